# SPDX-License-Identifier: Apache-2.0
"""A host that two devices can cut: a real IPMI BMC in software, and a real Redfish service. What either does alone is
test_power_contract.py's; here is what the two lead to together.

| first path    | second path       | read                                   | off                        |
|---------------|-------------------|----------------------------------------|----------------------------|
| ON            | whatever it says  | ON                                     | by the first               |
| OFF           | ON                | ON; of an outlet OFF                   |                            |
| OFF           | OFF or UNKNOWN    | OFF, unless only the second switched   |                            |
| UNKNOWN       | OFF               | OFF                                    | by the second, at once     |
| UNKNOWN       | ON, UNKNOWN       | ON, UNKNOWN; of an outlet UNKNOWN      | by the second; Unanswered  |
| refuses       | refuses           | as they say                            | Refused                    |
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ipmi_sim import IpmiSim, present
from redfish_sim import RedfishSim

from vmhad.drivers.power.ipmi import Ipmi
from vmhad.drivers.power.redfish import Redfish
from vmhad.drivers.power.two_paths import TwoPaths
from vmhad.kernel.signal import Reading
from vmhad.ports import Refused, Unanswered

pytestmark = pytest.mark.skipif(not present(), reason="ipmi_sim is not installed")

ON, OFF, UNKNOWN = Reading.ON, Reading.OFF, Reading.UNKNOWN
EACH_S = 1.0


class Host:
    """Each device has a switch of its own, which a test may join or leave apart."""

    def __init__(self, ipmi: IpmiSim, redfish: RedfishSim) -> None:
        self.ipmi, self.redfish = ipmi, redfish

    def power(self, is_outlet: bool = False, password: str = "") -> TwoPaths:
        """password: a wrong one, for both."""
        wrong = {"password": password} if password else {}
        first = Ipmi({"h": self.ipmi.bmc(**wrong)}, EACH_S)
        second = Redfish({"h": self.redfish.bmc(**wrong)}, EACH_S)
        return TwoPaths(first, second, ["h"], ["h"] if is_outlet else [])

    def stand(self, first: Reading, second: Reading) -> None:
        self.ipmi.set_power(first is ON)
        self.redfish.set_power(second is ON)
        if first is UNKNOWN:
            self.ipmi.hang()
        if second is UNKNOWN:
            self.redfish.hang()


@pytest.fixture
def host(tmp_path: Path, redfish_service: RedfishSim) -> Iterator[Host]:
    bmc = IpmiSim(tmp_path / "bmc")
    redfish_service.reset()
    try:
        bmc.start()
        yield Host(bmc, redfish_service)
    finally:
        bmc.stop()
        redfish_service.reset()


READ = [
    (ON, ON, ON, ON),
    (ON, OFF, ON, ON),
    (ON, UNKNOWN, ON, ON),
    (OFF, ON, ON, OFF),
    (OFF, OFF, OFF, OFF),
    (OFF, UNKNOWN, OFF, OFF),
    (UNKNOWN, ON, ON, UNKNOWN),
    (UNKNOWN, OFF, OFF, OFF),
    (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN),
]


@pytest.mark.parametrize(("first", "second", "of_host", "of_outlet"), READ, ids=[f"{a} {b}" for a, b, *_ in READ])
def test_what_both_say(host: Host, first: Reading, second: Reading, of_host: Reading, of_outlet: Reading) -> None:
    host.stand(first, second)
    for is_outlet, wanted in ((False, of_host), (True, of_outlet)):
        power = host.power(is_outlet)
        poll = power.poll_session("h", 2 * EACH_S)
        for reading, said in (power.read("h"), poll.read()):
            assert reading is wanted, said
            assert "first path: BMC" in said
            assert ("second path: BMC" in said) is (first is not ON)
        poll.close()


def test_the_second_path_is_left_alone_while_the_first_one_answers(host: Host) -> None:
    power = host.power()
    power.off("h")
    assert not host.ipmi.is_on and host.redfish.commands() == []


def test_what_is_silent_is_passed_over_at_once(host: Host) -> None:
    host.ipmi.hang()
    power = host.power()
    began = time.monotonic()
    power.off("h")
    assert time.monotonic() - began < EACH_S + 0.5
    assert host.redfish.commands() == ["ForceOff"]
    reading, said = power.read("h")
    assert reading is OFF and "first path: BMC" in said and "no answer; second path: BMC" in said


def test_what_refuses_is_passed_over_at_once(host: Host) -> None:
    first = Ipmi({"h": host.ipmi.bmc(privilege="user")}, EACH_S)
    power = TwoPaths(first, Redfish({"h": host.redfish.bmc()}, EACH_S), ["h"])
    power.off("h")
    assert host.ipmi.commands() == [] and host.redfish.commands() == ["ForceOff"]
    assert power.read("h")[0] is ON, "the first path still says so: it has power from elsewhere"


def test_a_first_path_that_kept_no_word_is_not_relied_on_again(host: Host) -> None:
    """It accepts, and the host stays on: told again, both are asked."""
    power = host.power()
    power.off("h")
    host.ipmi.set_power(True)
    power.off("h")
    assert host.redfish.commands() == ["ForceOff"] and host.ipmi.commands() == ["0", "0"]


def test_an_off_of_a_path_that_did_not_switch_proves_nothing(host: Host) -> None:
    """Only the second one was switched, and says nothing now: the first one may be another host's."""
    host.ipmi.hang()
    power = host.power()
    power.off("h")
    host.ipmi.resume()
    host.stand(OFF, UNKNOWN)
    assert power.read("h")[0] is UNKNOWN
    host.redfish.resume()
    assert power.read("h")[0] is OFF


def test_neither_path(host: Host) -> None:
    with pytest.raises(Refused, match="first path: BMC .*; second path: BMC .*"):
        host.power(password="wrong").off("h")
    host.ipmi.hang()
    host.redfish.hang()
    for act in (host.power().off, host.power().on):
        with pytest.raises(Unanswered) as caught:
            act("h")
        for path in ("first path", "second path"):
            assert re.search(rf"{path}: BMC [^;]*: no answer", str(caught.value))
    host.ipmi.resume()
    wrong = Ipmi({"h": host.ipmi.bmc(password="wrong")}, EACH_S)
    with pytest.raises(Unanswered):
        TwoPaths(wrong, Redfish({"h": host.redfish.bmc()}, EACH_S), ["h"]).off("h")
    assert host.ipmi.is_on and host.redfish.is_on()


def test_on_gives_power_back_on_both(host: Host) -> None:
    """The second one first: behind an outlet without power there is no BMC to be asked."""
    host.ipmi.hang()
    power = host.power(is_outlet=True)
    power.off("h")
    power.on("h")
    assert host.redfish.is_on()
    host.ipmi.resume()
    host.ipmi.set_power(False)
    assert power.read("h")[0] is OFF, "what was switched is forgotten with it"
    power.on("h")
    assert host.ipmi.is_on and power.read("h")[0] is ON


def test_an_outlet_of_a_power_distribution_unit(host: Host) -> None:
    """The BMC is dead; then, in another failure, it is well, and the outlet's ON is no objection to its OFF."""
    outlet = Redfish({"h": host.redfish.outlet()}, EACH_S)
    power = TwoPaths(Ipmi({"h": host.ipmi.bmc()}, EACH_S), outlet, ["h"], ["h"])
    host.ipmi.hang()
    assert power.read("h")[0] is UNKNOWN
    power.off("h")
    assert not host.redfish.has_power() and power.read("h")[0] is OFF
    power.on("h")
    assert host.redfish.has_power()
    host.ipmi.resume()
    power.off("h")
    assert not host.ipmi.is_on and host.redfish.has_power() and power.read("h")[0] is OFF


def test_other_hosts_have_one_path(host: Host) -> None:
    ipmi = Ipmi({"h": host.ipmi.bmc(), "plain": host.ipmi.bmc()}, EACH_S)
    power = TwoPaths(ipmi, Redfish({}, EACH_S), ["h"])
    assert power.read("plain") == (ON, f"BMC 127.0.0.1:{host.ipmi.port} says power on")
    power.off("plain")
    poll = power.poll_session("plain")
    assert poll.read()[0] is OFF and host.redfish.commands() == []
    poll.close()
    power.on("plain")
    assert host.ipmi.is_on
