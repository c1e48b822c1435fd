# SPDX-License-Identifier: Apache-2.0
"""IPMI against a real BMC in software, in all the ways in which one can fail to be an answer: what is the driver's own.
The contract of the port is test_power_contract.py."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from between import GARBAGE, Between, Reply, deaf_after_the_command
from ipmi_sim import GUID, PASSWORD, IpmiSim, free_udp_port, present

from vmhad.drivers.power.ipmi import Bmc, Ipmi
from vmhad.kernel.signal import Reading
from vmhad.ports import Refused, Unanswered

pytestmark = pytest.mark.skipif(not present(), reason="ipmi_sim is not installed")

REVERSED_GUID = bytes.fromhex(GUID)[::-1].hex()
SMBIOS_GUID = str(uuid.UUID(bytes_le=bytes.fromhex(GUID)))


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[IpmiSim]:
    bmc = IpmiSim(tmp_path / "bmc")
    try:
        bmc.start()
        yield bmc
    finally:
        bmc.stop()


def power(bmc: Bmc, timeout_s: float = 5.0, asf_ping: bool = False) -> Ipmi:
    return Ipmi({"h": bmc}, timeout_s, asf_ping)


def test_read_off_on(sim: IpmiSim) -> None:
    ipmi = power(sim.bmc())
    assert ipmi.read("h")[0] is Reading.ON
    ipmi.off("h")
    assert not sim.is_on
    reading, said = ipmi.read("h")
    assert reading is Reading.OFF and "power off" in said and f"127.0.0.1:{sim.port}" in said
    ipmi.on("h")
    assert sim.is_on
    assert ipmi.read("h")[0] is Reading.ON
    assert sim.commands() == ["0", "1"]


def test_off_when_off_and_on_when_on_return(sim: IpmiSim) -> None:
    ipmi = power(sim.bmc())
    ipmi.on("h")
    sim.set_power(False)
    ipmi.off("h")
    ipmi.off("h")
    assert ipmi.read("h")[0] is Reading.OFF


@pytest.mark.parametrize("asf_ping", [False, True])
@pytest.mark.parametrize("privilege", ["operator", "administrator"])
def test_ways_to_open(sim: IpmiSim, asf_ping: bool, privilege: str) -> None:
    assert power(sim.bmc(privilege=privilege), asf_ping=asf_ping).read("h")[0] is Reading.ON


@pytest.mark.parametrize("changes", [{"password": "wrong-one"}, {"user": "nobody"}, {"password": ""}])
def test_wrong_credentials(sim: IpmiSim, changes: dict[str, str]) -> None:
    ipmi = power(sim.bmc(**changes))
    began = time.monotonic()
    reading, said = ipmi.read("h")
    assert reading is Reading.UNKNOWN and "wrong-one" not in said
    for act in (ipmi.off, ipmi.on):
        with pytest.raises(Refused) as caught:
            act("h")
        assert "wrong-one" not in str(caught.value)
    assert time.monotonic() - began < 2.0
    assert sim.commands() == []


def test_too_little_privilege_is_refused(sim: IpmiSim) -> None:
    ipmi = power(sim.bmc(privilege="user"))
    assert ipmi.read("h")[0] is Reading.ON
    with pytest.raises(Refused):
        ipmi.off("h")
    assert sim.is_on and sim.commands() == []


def test_host_without_bmc(sim: IpmiSim) -> None:
    ipmi = power(sim.bmc())
    assert ipmi.read("other") == (Reading.UNKNOWN, "no BMC is configured for other")
    with pytest.raises(Refused, match="other"):
        ipmi.off("other")


@pytest.mark.parametrize("guid", [GUID, GUID.upper(), REVERSED_GUID, SMBIOS_GUID])
def test_right_guid_in_any_order_of_bytes(sim: IpmiSim, guid: str) -> None:
    ipmi = power(sim.bmc(guid=guid))
    assert ipmi.read("h")[0] is Reading.ON
    ipmi.off("h")
    assert not sim.is_on


def test_a_bmc_of_another_host_is_not_believed_and_not_told(sim: IpmiSim) -> None:
    sim.set_power(False)
    ipmi = power(sim.bmc(guid="b" * 32))
    reading, said = ipmi.read("h")
    assert reading is Reading.UNKNOWN
    assert f"answers with GUID {GUID}, host's is {'b' * 32}" in said
    for act in (ipmi.off, ipmi.on):
        with pytest.raises(Refused, match=f"answers with GUID {GUID}"):
            act("h")
    assert ipmi.poll_session("h").read()[0] is Reading.UNKNOWN
    assert sim.commands() == []


def test_silence(sim: IpmiSim) -> None:
    ipmi = power(sim.bmc(), timeout_s=1.5)
    sim.hang()
    for asf_ping in (False, True):
        began = time.monotonic()
        reading, said = power(sim.bmc(), 1.5, asf_ping).read("h")
        assert reading is Reading.UNKNOWN and "no answer" in said
        assert time.monotonic() - began < 1.7
    with pytest.raises(Unanswered, match="no answer"):
        ipmi.off("h")
    sim.resume()
    assert ipmi.read("h")[0] is Reading.ON


def test_nobody_there() -> None:
    ipmi = power(Bmc("127.0.0.1", free_udp_port(), "u", PASSWORD))
    began = time.monotonic()
    reading, said = ipmi.read("h")
    assert reading is Reading.UNKNOWN and "refused" in said
    with pytest.raises(Unanswered, match="refused"):
        ipmi.off("h")
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("reply", GARBAGE.values(), ids=GARBAGE)
def test_garbage(reply: Reply) -> None:
    with Between(reply) as server:
        ipmi = power(Bmc("127.0.0.1", server.port, "u", PASSWORD), timeout_s=1.5)
        began = time.monotonic()
        reading, said = ipmi.read("h")
        assert reading is Reading.UNKNOWN and PASSWORD not in said
        with pytest.raises((Unanswered, Refused)):
            ipmi.off("h")
        assert ipmi.poll_session("h").read()[0] is Reading.UNKNOWN
        assert time.monotonic() - began < 5.2


def test_garbage_in_the_handshake_ends_in_time(sim: IpmiSim) -> None:
    def spoil_handshake(packet: bytes) -> bytes | None:
        return bytes.fromhex("0600ff07") + b"\x06\x15" + os.urandom(30) if packet[4:5] == b"\x06" else None

    with Between(spoil_handshake, sim.port) as server:
        ipmi = power(Bmc("127.0.0.1", server.port, "admin", PASSWORD), timeout_s=2.0)
        began = time.monotonic()
        assert ipmi.read("h")[0] is Reading.UNKNOWN
        assert time.monotonic() - began < 2.2
    assert sim.commands() == []


def test_a_suite_that_is_met_with_silence_leads_to_the_next(sim: IpmiSim) -> None:
    dropped = []

    def drop_suite_17(packet: bytes) -> bytes | None:
        # An RMCP+ Open Session Request whose authentication algorithm is HMAC-SHA256.
        if packet[4:6] == b"\x06\x10" and packet[28] == 3:
            dropped.append(packet)
            return b""
        return None

    with Between(drop_suite_17, sim.port) as server:
        ipmi = power(Bmc("127.0.0.1", server.port, "admin", PASSWORD))
        assert ipmi.read("h")[0] is Reading.ON
    assert dropped


def test_an_answer_lost_after_the_command_is_unanswered(sim: IpmiSim) -> None:
    """The host is off by then; nobody may call that refused."""
    with Between(deaf_after_the_command(sim.port), sim.port) as server:
        ipmi = power(Bmc("127.0.0.1", server.port, "admin", PASSWORD), timeout_s=2.0)
        with pytest.raises(Unanswered):
            ipmi.off("h")
    assert sim.commands() == ["0"] and not sim.is_on


def test_hung_in_mid_session(sim: IpmiSim) -> None:
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


def test_a_kept_session_that_the_bmc_forgot_is_opened_anew(sim: IpmiSim) -> None:
    poll = power(sim.bmc()).poll_session("h")
    assert poll.read()[0] is Reading.ON
    sim.stop()
    assert poll.read()[0] is Reading.UNKNOWN
    sim.start()
    assert poll.read()[0] is Reading.ON
    poll.close()
    assert poll.read()[0] is Reading.ON
    poll.close()


def test_sixteen_at_once(sim: IpmiSim) -> None:
    ipmi = power(sim.bmc())
    with ThreadPoolExecutor(16) as pool:
        for _ in range(3):
            assert {reading for reading, _ in pool.map(ipmi.read, ["h"] * 16)} == {Reading.ON}


def test_sessions_are_given_back(sim: IpmiSim) -> None:
    """More in a row than a BMC has slots for."""
    ipmi = power(sim.bmc())
    assert {ipmi.read("h")[0] for _ in range(80)} == {Reading.ON}


def test_the_password_is_in_no_text(sim: IpmiSim, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ipmi = power(sim.bmc())
    poll = ipmi.poll_session("h", 0.5)
    said = [repr(sim.bmc()), repr(ipmi), repr(poll), ipmi.read("h")[1], poll.read()[1]]
    ipmi.off("h")
    sim.hang()
    said += [power(sim.bmc(), 0.5).read("h")[1], poll.read()[1]]
    with pytest.raises(Unanswered) as caught:
        power(sim.bmc(), 0.5).off("h")
    said += [str(caught.value), repr(caught.value)]
    assert caplog.text, "the library does log"
    for text in [*said, caplog.text]:
        assert PASSWORD not in text and PASSWORD.encode().hex(" ") not in text


@pytest.mark.parametrize(
    "wrong",
    [{"address": "bmc.example"}, {"guid": "12"}, {"privilege": "root"}, {"password": "x" * 21}, {"user": "u" * 17}],
)
def test_a_bmc_that_cannot_be(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError) as caught:
        Bmc(**{"address": "192.0.2.1", **wrong})  # type: ignore[arg-type]
    assert "x" * 21 not in str(caught.value)
