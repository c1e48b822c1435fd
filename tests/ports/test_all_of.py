# SPDX-License-Identifier: Apache-2.0
"""A host with two power supplies, each behind an outlet that only goes off by itself: two real IPMI devices in
software, or two outlets of a real Redfish service. What each does alone is test_power_contract.py's.

| one outlet | the other       | read    | off                                       |
|------------|-----------------|---------|-------------------------------------------|
| ON         | whatever        | ON      | to both                                   |
| OFF        | OFF             | OFF     | to both                                   |
| OFF        | UNKNOWN         | UNKNOWN | to both; Unanswered                       |
| refuses    | accepts         | ON      | Unanswered: the other one was switched    |
| refuses    | refuses         | ON      | Refused                                   |
| accepts    | accepts only    | ON      | to both: that they accept is no OFF       |
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ipmi_sim import IpmiSim, present
from redfish_sim import RedfishSim

from vmhad.drivers.power.all_of import AllOf
from vmhad.drivers.power.by_host import ByHost, Polled
from vmhad.drivers.power.ipmi import Ipmi
from vmhad.drivers.power.redfish import Redfish
from vmhad.drivers.power.two_paths import TwoPaths
from vmhad.kernel.signal import Reading
from vmhad.ports import Refused, Unanswered

pytestmark = pytest.mark.skipif(not present(), reason="ipmi_sim is not installed")

ON, OFF, UNKNOWN = Reading.ON, Reading.OFF, Reading.UNKNOWN
EACH_S = 1.0
# Two that are silent take 1.4 s one after the other.
SIDE_BY_SIDE_S = 1.2


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], IpmiSim]]:
    """Starts a device, which is on."""
    started: list[IpmiSim] = []

    def one(name: str) -> IpmiSim:
        started.append(IpmiSim(tmp_path / name))
        started[-1].start()
        return started[-1]

    try:
        yield one
    finally:
        for device in started:
            device.stop()


@pytest.fixture
def outlets(start: Callable[[str], IpmiSim]) -> tuple[IpmiSim, IpmiSim]:
    return start("a"), start("b")


def driver(device: IpmiSim, **changes: str) -> Ipmi:
    return Ipmi({"h": device.bmc(**changes)}, EACH_S)


def together(outlets: tuple[IpmiSim, IpmiSim]) -> AllOf:
    return AllOf([driver(one) for one in outlets])


READ = [
    (ON, ON, ON),
    (ON, OFF, ON),
    (ON, UNKNOWN, ON),
    (OFF, OFF, OFF),
    (OFF, UNKNOWN, UNKNOWN),
    (UNKNOWN, UNKNOWN, UNKNOWN),
]
READ += [(b, a, wanted) for a, b, wanted in READ if a is not b]


@pytest.mark.parametrize(("one", "other", "wanted"), READ, ids=[f"{a} {b}" for a, b, _ in READ])
def test_what_both_say(outlets: tuple[IpmiSim, IpmiSim], one: Reading, other: Reading, wanted: Reading) -> None:
    for device, reading in zip(outlets, (one, other), strict=True):
        device.set_power(reading is ON)
        if reading is UNKNOWN:
            device.hang()
    power = together(outlets)
    poll = power.poll_session("h", EACH_S)
    for reading, said in (power.read("h"), poll.read()):
        assert reading is wanted, said
        places = [re.escape(f"BMC 127.0.0.1:{device.port}") for device in outlets]
        assert re.match(rf"1 of 2: {places[0]}[^;]*; 2 of 2: {places[1]}", said), said
    poll.close()


def test_off_and_on_go_to_both(outlets: tuple[IpmiSim, IpmiSim]) -> None:
    power = together(outlets)
    power.off("h")
    assert [one.commands() for one in outlets] == [["0"], ["0"]] and power.read("h")[0] is OFF
    power.on("h")
    assert [one.is_on for one in outlets] == [True, True] and power.read("h")[0] is ON


@pytest.mark.parametrize("dead", [0, 1])
def test_one_that_is_silent_takes_nothing_of_the_others_time(outlets: tuple[IpmiSim, IpmiSim], dead: int) -> None:
    """The other one is off by then, and so nobody says that nothing was switched."""
    outlets[dead].hang()
    power, began = together(outlets), time.monotonic()
    with pytest.raises(Unanswered) as caught:
        power.off("h")
    assert time.monotonic() - began < SIDE_BY_SIDE_S
    assert not outlets[1 - dead].is_on and outlets[dead].is_on
    assert re.search(rf"{dead + 1} of 2: BMC [^;]*: no answer", str(caught.value))
    assert f"{2 - dead} of 2: accepted" in str(caught.value)
    assert power.read("h")[0] is UNKNOWN, "one is off, and that is not the host"
    outlets[dead].resume()
    assert power.read("h")[0] is ON
    power.off("h")
    assert power.read("h")[0] is OFF


def test_both_silent_cost_the_time_of_one(outlets: tuple[IpmiSim, IpmiSim]) -> None:
    for one in outlets:
        one.hang()
    power = together(outlets)
    for call in (lambda: power.read("h"), lambda: pytest.raises(Unanswered, power.off, "h")):
        began = time.monotonic()
        call()
        assert time.monotonic() - began < SIDE_BY_SIDE_S


def test_a_refusal_beside_an_act_is_no_refusal(outlets: tuple[IpmiSim, IpmiSim]) -> None:
    power = AllOf([driver(outlets[0], privilege="user"), driver(outlets[1])])
    with pytest.raises(Unanswered, match="1 of 2: BMC .*privilege.*; 2 of 2: accepted"):
        power.off("h")
    assert outlets[0].is_on and not outlets[1].is_on and power.read("h")[0] is ON


def test_one_that_declines_keeps_the_order_from_none_of_three(
    start: Callable[[str], IpmiSim], outlets: tuple[IpmiSim, IpmiSim]
) -> None:
    third = start("c")
    outlets[1].hang()
    power = AllOf([driver(outlets[0], privilege="user"), driver(outlets[1]), driver(third)])
    with pytest.raises(Unanswered, match="1 of 3: BMC .*; 2 of 3: BMC .*; 3 of 3: accepted"):
        power.off("h")
    assert not third.is_on


def test_that_both_accepted_is_no_off(outlets: tuple[IpmiSim, IpmiSim], redfish_service: RedfishSim) -> None:
    redfish_service.reset()
    redfish_service.mood("stuck")
    power = AllOf([driver(outlets[0]), Redfish({"h": redfish_service.bmc()}, EACH_S)])
    power.off("h")
    assert not outlets[0].is_on and redfish_service.is_on()
    assert power.read("h")[0] is ON
    redfish_service.hang()
    assert power.read("h")[0] is UNKNOWN, "an order that was accepted does not stand in for what is not seen"
    redfish_service.resume()
    redfish_service.reset()


def test_an_outlet_that_comes_on_again_takes_the_off_back(outlets: tuple[IpmiSim, IpmiSim]) -> None:
    power = together(outlets)
    power.off("h")
    poll = power.poll_session("h", EACH_S)
    assert power.read("h")[0] is OFF and poll.read()[0] is OFF
    outlets[0].set_power(True)
    assert power.read("h")[0] is ON and poll.read()[0] is ON
    outlets[0].hang()
    assert power.read("h")[0] is UNKNOWN and poll.read()[0] is UNKNOWN, "the OFF of before is not remembered"
    outlets[0].resume()
    power.off("h")
    assert power.read("h")[0] is OFF
    poll.close()


def test_two_refusals_are_one(outlets: tuple[IpmiSim, IpmiSim]) -> None:
    power = AllOf([driver(one, privilege="user") for one in outlets])
    for act in (power.off, power.on):
        with pytest.raises(Refused, match="1 of 2: BMC .*; 2 of 2: BMC "):
            act("h")
    assert [one.commands() for one in outlets] == [[], []]


@pytest.mark.parametrize("count", [0, 1])
def test_all_of_none_would_be_off(count: int) -> None:
    with pytest.raises(ValueError, match="less than two"):
        AllOf([Ipmi({})] * count)


def two_redfish_outlets(service: RedfishSim) -> list[Polled]:
    return [Redfish({"h": service.outlet(name)}, EACH_S) for name in ("h", "other")]


def test_two_outlets_of_a_power_distribution_unit(redfish_service: RedfishSim) -> None:
    redfish_service.reset()
    power, one = AllOf(two_redfish_outlets(redfish_service)), two_redfish_outlets(redfish_service)[1]
    assert power.read("h")[0] is ON
    one.off("h")
    assert power.read("h")[0] is ON, "the other one still feeds it"
    power.off("h")
    assert not redfish_service.has_power("h") and not redfish_service.has_power("other")
    assert power.read("h")[0] is OFF
    power.on("h")
    assert redfish_service.has_power("h") and redfish_service.has_power("other")
    redfish_service.reset()


def test_beside_a_bmc(start: Callable[[str], IpmiSim], outlets: tuple[IpmiSim, IpmiSim]) -> None:
    """The second power path of a host: asked at once where its BMC is silent, OFF only by both; and its ON says nothing
    of the host, as that of a single outlet."""
    bmc = start("bmc")
    power = TwoPaths(driver(bmc), ByHost({"h": together(outlets)}), ["h"], ["h"])
    power.off("h")
    assert not bmc.is_on and [one.commands() for one in outlets] == [[], []]
    assert power.read("h")[0] is OFF, "that its outlets have power says nothing of it"
    power.on("h")
    bmc.hang()
    outlets[1].hang()
    with pytest.raises(Unanswered, match="first path: BMC .*no answer; second path: 1 of 2: accepted; 2 of 2: BMC "):
        power.off("h")
    reading, said = power.read("h")
    assert reading is UNKNOWN and "second path: 1 of 2: BMC" in said
    outlets[1].resume()
    power.off("h")
    assert power.read("h")[0] is OFF
    outlets[0].set_power(True)
    assert power.read("h")[0] is UNKNOWN, "one of them feeds it again"
    power.on("h")
    assert [one.is_on for one in outlets] == [True, True] and power.read("h")[0] is UNKNOWN
