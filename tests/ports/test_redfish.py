# SPDX-License-Identifier: Apache-2.0
"""Redfish against a real service in software, in all the ways in which one can fail to be an answer: what is the
driver's own. The contract of the port is test_power_contract.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from between import Babble
from redfish_sim import PASSWORD, USER, RedfishSim, certificate, present
from sushy import Sushy
from sushy.auth import SessionAuth

from vmhad.drivers.power.redfish import Redfish, RedfishBmc
from vmhad.kernel.signal import Reading
from vmhad.ports import Refused, Unanswered

pytestmark = pytest.mark.skipif(not present(), reason="openssl is not installed, which makes the certificate")


@pytest.fixture
def sim(redfish_service: RedfishSim) -> Iterator[RedfishSim]:
    redfish_service.reset()
    yield redfish_service
    redfish_service.reset()


def power(bmc: RedfishBmc, timeout_s: float = 5.0) -> Redfish:
    return Redfish({"h": bmc}, timeout_s)


def says_no(redfish: Redfish, words: str) -> None:
    """UNKNOWN when read, Refused when told, both in these words."""
    reading, said = redfish.read("h")
    assert reading is Reading.UNKNOWN and words in said
    for act in (redfish.off, redfish.on):
        with pytest.raises(Refused, match=words):
            act("h")


def test_read_off_on(sim: RedfishSim) -> None:
    redfish = power(sim.bmc())
    assert redfish.read("h")[0] is Reading.ON
    redfish.off("h")
    assert not sim.is_on()
    reading, said = redfish.read("h")
    assert reading is Reading.OFF and said == f"BMC 127.0.0.1:{sim.port} says power off"
    redfish.on("h")
    assert sim.is_on() and redfish.read("h")[0] is Reading.ON
    assert sim.commands() == ["ForceOff", "On"]
    assert sim.is_on("other") and sim.commands("other") == []


def test_no_name_among_several_is_no_guess(sim: RedfishSim) -> None:
    says_no(power(sim.bmc("")), "has 2 systems, and no name says which")
    assert sim.commands() == sim.commands("other") == []


def test_the_only_system_needs_no_name(tmp_path: Path) -> None:
    alone = RedfishSim(tmp_path / "alone", ["h"])
    try:
        alone.start()
        redfish = power(alone.bmc(""))
        redfish.off("h")
        assert not alone.is_on() and redfish.read("h")[0] is Reading.OFF
    finally:
        alone.stop()


def test_no_such_system(sim: RedfishSim) -> None:
    says_no(power(sim.bmc("another")), "has no such system")


def test_right_guid_in_any_order_of_bytes(sim: RedfishSim) -> None:
    plain = sim.uuids["h"].replace("-", "")
    reversed_guid = bytes.fromhex(plain)[::-1].hex()
    for guid in (sim.uuids["h"], plain.upper(), reversed_guid):
        assert power(sim.bmc(guid=guid)).read("h")[0] is Reading.ON
    power(sim.bmc(guid=sim.uuids["h"])).off("h")
    assert not sim.is_on()


def test_a_system_of_another_host_is_not_believed_and_not_told(sim: RedfishSim) -> None:
    sim.set_power(False)
    redfish = power(sim.bmc(guid=sim.uuids["other"]))
    says_no(redfish, f"answers with UUID {sim.uuids['h'].replace('-', '')}, host's is {sim.uuids['other']}")
    assert redfish.poll_session("h").read()[0] is Reading.UNKNOWN
    assert sim.commands() == []


@pytest.mark.parametrize("changes", [{"password": "wrong-one"}, {"user": "nobody"}, {"password": ""}])
def test_wrong_credentials(sim: RedfishSim, changes: dict[str, str]) -> None:
    began = time.monotonic()
    says_no(power(sim.bmc(**changes)), "authentication failed")
    assert time.monotonic() - began < 2.0
    assert sim.commands() == []


def test_a_certificate_of_nobody_we_trust(sim: RedfishSim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what the machine trusts, nor another's certificate, nor what the environment offers is ours."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", sim.ca_file)
    monkeypatch.setenv("CURL_CA_BUNDLE", sim.ca_file)
    for ca_file in ("", certificate(tmp_path)[0]):
        says_no(power(sim.bmc(ca_file=ca_file)), "its certificate is not trusted")
    assert sim.requests() == [], "not a word was said to it"


def test_a_certificate_of_another_address(tmp_path: Path) -> None:
    other = RedfishSim(tmp_path / "other", address="192.0.2.9")
    try:
        other.start()
        says_no(power(other.bmc()), "its certificate is another address's")
        assert other.requests() == [] and other.is_on()
    finally:
        other.stop()


def test_a_new_ca_file_counts_at_once(sim: RedfishSim, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    redfish = power(sim.bmc(ca_file=str(ca_file)))
    says_no(redfish, f"ca_file {ca_file} cannot be used")
    ca_file.write_bytes(Path(certificate(tmp_path)[0]).read_bytes())
    says_no(redfish, "its certificate is not trusted")
    ca_file.write_bytes(Path(sim.ca_file).read_bytes())
    assert redfish.read("h")[0] is Reading.ON


def test_no_proxy_is_asked(sim: RedfishSim, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert power(sim.bmc()).read("h")[0] is Reading.ON


def test_an_error_for_what_is_so_already_is_none(sim: RedfishSim) -> None:
    """The service answers 409 to ForceOff of a system that is off."""
    sim.mood("strict")
    redfish = power(sim.bmc())
    redfish.on("h")
    redfish.off("h")
    redfish.off("h")
    assert not sim.is_on() and sim.commands() == ["ForceOff"]


def test_a_broken_service_is_no_refusal(sim: RedfishSim) -> None:
    """HTTP 500 says nothing about the effect."""
    sim.mood("broken")
    redfish = power(sim.bmc())
    with pytest.raises(Unanswered, match="HTTP status 500"):
        redfish.off("h")
    sim.set_power(False)
    redfish.off("h")


def test_a_command_is_sent_once(sim: RedfishSim) -> None:
    sim.mood("loses")
    with pytest.raises(Unanswered, match="no answer"):
        power(sim.bmc(), 1.0).off("h")
    assert sim.commands() == ["ForceOff"]


@pytest.mark.parametrize("mood", ["silent", "trickles", "slow 8"])
def test_an_end_within_the_limit_whatever_comes(sim: RedfishSim, mood: str) -> None:
    """Also where a byte comes each tenth of a second, for ever within any limit between two of them."""
    sim.mood(mood)
    redfish = power(sim.bmc(), 1.0)
    for call in (redfish.read, redfish.poll_session("h", 1.0).read):
        began = time.monotonic()
        reading, said = call("h") if call == redfish.read else call()  # type: ignore[operator]
        assert reading is Reading.UNKNOWN and "no answer" in said
        assert 0.9 < time.monotonic() - began < 1.2
    began = time.monotonic()
    with pytest.raises(Unanswered, match="no answer"):
        redfish.off("h")
    assert time.monotonic() - began < 1.2 and sim.commands() == []


ANSWER = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}"
GARBAGE = {
    "nothing": "",
    "html": ANSWER.format(13, "<html></html>"),
    "a list": ANSWER.format(2, "[]"),
    "half": ANSWER.format(500, '{"PowerState": "Off"'),
    "empty": ANSWER.format(2, "{}"),
    "no state": ANSWER.format(10, '{"Id":"h"}'),
    "a state of its own": ANSWER.format(32, '{"Id":"h","PowerState":"Unheard"}'),
    "out of TLS": "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/redfish/v1/Systems/h\r\n\r\n",
    "round and round": "HTTP/1.1 302 Found\r\nLocation: /redfish/v1/Systems/h\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("says", GARBAGE.values(), ids=GARBAGE)
def test_garbage(sim: RedfishSim, says: str) -> None:
    with Babble(says.encode, (sim.ca_file, sim.ca_file.replace("cert.pem", "key.pem"))) as server:
        redfish = power(replace(sim.bmc(), port=server.port), 1.5)
        reading, said = redfish.read("h")
        assert reading is Reading.UNKNOWN and said and PASSWORD not in said
        with pytest.raises((Unanswered, Refused)):
            redfish.off("h")


def test_hung_in_mid_session(sim: RedfishSim) -> None:
    poll = power(sim.bmc()).poll_session("h", 1.0)
    assert poll.read()[0] is Reading.ON
    sim.hang()
    for _ in range(2):
        began = time.monotonic()
        reading, said = poll.read()
        assert reading is Reading.UNKNOWN and "no answer" in said
        assert time.monotonic() - began < 1.2
    sim.resume()
    sim.set_power(False)
    assert poll.read()[0] is Reading.OFF
    poll.close()


def test_a_kept_connection_that_the_service_forgot_is_made_anew(sim: RedfishSim) -> None:
    poll = power(sim.bmc()).poll_session("h")
    assert poll.read()[0] is Reading.ON
    sim.stop()
    assert poll.read()[0] is Reading.UNKNOWN
    sim.start()
    assert poll.read()[0] is Reading.ON
    poll.close()
    assert poll.read()[0] is Reading.ON
    poll.close()


def test_sixteen_at_once(sim: RedfishSim) -> None:
    redfish = power(sim.bmc())
    with ThreadPoolExecutor(16) as pool:
        for _ in range(3):
            assert {reading for reading, _ in pool.map(redfish.read, ["h"] * 16)} == {Reading.ON}


def test_no_session_is_left_behind(sim: RedfishSim) -> None:
    """A BMC has room for a few. That the emulator counts them is seen by one that is opened by hand."""
    redfish = power(sim.bmc())
    poll = redfish.poll_session("h")
    for _ in range(10):
        assert redfish.read("h")[0] is Reading.ON and poll.read()[0] is Reading.ON
    redfish.off("h")
    redfish.on("h")
    assert sim.sessions() == 0
    auth = SessionAuth(USER, PASSWORD)
    by_hand = Sushy(f"https://127.0.0.1:{sim.port}", auth=auth, verify=sim.ca_file)
    assert sim.sessions() == 1 and by_hand.get_system("/redfish/v1/Systems/h").power_state
    auth.close()
    assert sim.sessions() == 0


def test_an_outlet(sim: RedfishSim) -> None:
    redfish = power(sim.outlet())
    assert redfish.read("h")[0] is Reading.ON
    redfish.off("h")
    redfish.off("h")
    assert not sim.has_power() and sim.has_power("other") and redfish.read("h")[0] is Reading.OFF
    redfish.on("h")
    assert sim.has_power() and redfish.read("h")[0] is Reading.ON
    says_no(power(sim.outlet(password="wrong-one")), "authentication failed")
    says_no(power(sim.outlet(guid=sim.uuids["h"])), "shows no UUID")
    assert sim.has_power() and sim.is_on() and sim.commands() == []


def test_an_address_is_a_number() -> None:
    with pytest.raises(ValueError):
        RedfishBmc("bmc.example")
