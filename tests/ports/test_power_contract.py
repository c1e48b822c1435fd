# SPDX-License-Identifier: Apache-2.0
"""What every Power behind the port does: the same cases on simulated BMCs, on real IPMI to a BMC in software, on such a
BMC that the agent of a peer asks, by orders over a real RabbitMQ, on real Redfish to a service in software,
on a host that both can switch, and on one with two supplies, behind two real IPMI devices that must go off together.

| mood of the BMC                    | read                | off and on                         | simulated by       |
|------------------------------------|---------------------|------------------------------------|--------------------|
| well                               | ON, OFF             | return; accepted is not done       | ok                 |
| well, and it is so already         | ON, OFF             | return                             | ok                 |
| silent, nobody there               | UNKNOWN             | Unanswered, nothing switched       | dead, unplug       |
| wrong password                     | UNKNOWN             | Refused, nothing switched          | wrong-password     |
| garbage                            | UNKNOWN             | Unanswered or Refused, nothing     | garbage            |
| shows power, refuses to switch     | ON, OFF             | Refused, nothing switched          | refuses            |
| loses its answer after the command | (not asked here)    | Unanswered, and it is switched     | loses-answers      |
| slow, within the limit             | ON, OFF             | return                             | slow               |
| no BMC is configured               | UNKNOWN             | Refused                            | an unknown host    |

Every call ends within its limit. A BMC of another host is told by its GUID where one is configured (test_ipmi.py,
test_redfish.py); «other» simulates the site that has configured none. One that lies, only the simulator has.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
from between import GARBAGE, Babble, Between, Reply, deaf_after_the_command, slowly
from ipmi_sim import IpmiSim, free_udp_port, present
from loopback import free_port
from redfish_sim import VIEWER, RedfishSim

from tests.broker import Broker
from tests.ports.orders_bench import MASTER, eventually
from vmhad.agent.orders import Orders
from vmhad.agent.power_proxy import PowerProxy
from vmhad.bus.signature import derive
from vmhad.bus.transport_url import read_url
from vmhad.drivers.hands.agent_orders import AgentOrders
from vmhad.drivers.power.all_of import AllOf
from vmhad.drivers.power.by_host import ByHost
from vmhad.drivers.power.by_proxy import ByProxy
from vmhad.drivers.power.ipmi import Ipmi
from vmhad.drivers.power.redfish import Redfish
from vmhad.drivers.power.two_paths import TwoPaths
from vmhad.kernel.signal import Reading
from vmhad.ports import Power, Refused, Unanswered
from vmhad.sim.clock import Agenda, SimClock
from vmhad.sim.datacentre import Bmc, Datacentre, SimHost
from vmhad.sim.life import Life
from vmhad.sim.power import PowerOrder, SimPower

ON, OFF, UNKNOWN = Reading.ON, Reading.OFF, Reading.UNKNOWN
LIMIT_S = 2.0


class Bench(Protocol):
    """One host "h" that is on, and its BMC. mood() decides how the BMC behaves from then on."""

    def mood(self, name: str) -> Power: ...

    @property
    def is_on(self) -> bool:
        """The chassis itself, whatever anybody says; time enough has passed for what was accepted."""

    def press(self, on: bool) -> None:
        """Switched by hand."""

    def took_s(self, call: Callable[[], object]) -> float:
        """Makes the call, whatever it raises, and says how long that took."""


class IpmiBench:
    """OpenIPMI's ipmi_sim, and a UDP peer between it and the driver for the worse moods."""

    def __init__(self, where: Path, ends: ExitStack) -> None:
        self._bmc = IpmiSim(where)
        self._ends = ends
        ends.callback(self._bmc.stop)
        self._bmc.start()

    def mood(self, name: str) -> Ipmi:
        changes: dict[str, str] = {}
        port = self._bmc.port
        if name == "silent":
            self._bmc.hang()
        elif name == "nobody there":
            port = free_udp_port()
        elif name == "wrong password":
            changes = {"password": "another"}
        elif name == "refuses":
            changes = {"privilege": "user"}
        elif name != "well":
            port = self._between(name)
        bmc = self._bmc.bmc(**changes)
        return Ipmi({"h": type(bmc)(bmc.address, port, bmc.user, bmc.password, bmc.privilege)}, LIMIT_S)

    def _between(self, name: str) -> int:
        replies: dict[str, Reply] = {
            "loses its answer": deaf_after_the_command(self._bmc.port),
            "slow": slowly(0.1),
            **{f"garbage: {kind}": reply for kind, reply in GARBAGE.items()},
        }
        return self._ends.enter_context(Between(replies[name], self._bmc.port)).port

    @property
    def is_on(self) -> bool:
        return self._bmc.is_on

    def press(self, on: bool) -> None:
        self._bmc.set_power(on)

    def took_s(self, call: Callable[[], object]) -> float:
        began = time.monotonic()
        _whatever(call)
        return time.monotonic() - began


class ProxyBench(IpmiBench):
    """Its BMC is asked by the agent of the only peer, by an engine's order. The engine itself has no way to it."""

    def __init__(self, where: Path, ends: ExitStack, rabbit: Broker) -> None:
        super().__init__(where, ends)
        self._bus = read_url(rabbit.url)
        self._engine = AgentOrders([self._bus], ["p"], {"k1": MASTER}, limit_s=LIMIT_S)
        ends.callback(self._engine.stop)

    def mood(self, name: str) -> Power:
        bmc = super().mood(name)
        bmc._timeout_s = LIMIT_S - 0.3
        agent = Orders([self._bus], derive("k1", MASTER, "p"), {"power": PowerProxy(bmc, "p")}, began=0.0)
        agent.start()
        self._ends.callback(agent.stop)
        eventually("an agent that listens", agent.is_listening)
        return ByProxy(Ipmi({}), {"h": ["p"]}, self._engine.power, LIMIT_S)


class RedfishBench:
    """sushy-tools' emulator, by TLS."""

    MOODS = {"slow": "slow 0.1", "loses its answer": "loses"}

    def __init__(self, service: RedfishSim, ends: ExitStack) -> None:
        self._service, self._ends = service, ends
        service.reset()
        ends.callback(service.reset)

    def mood(self, name: str) -> Redfish:
        changes = {"wrong password": {"password": "another"}, "refuses": {"user": VIEWER}}.get(name, {})
        bmc = self._service.bmc(**changes)
        if name == "silent":
            self._service.hang()
        elif name == "nobody there":
            bmc = replace(bmc, port=free_port())
        elif name.startswith("garbage"):
            bmc = replace(bmc, port=self._ends.enter_context(Babble(lambda: os.urandom(60))).port)
        else:
            self._service.mood(self.MOODS.get(name, "well"))
        return Redfish({"h": bmc}, LIMIT_S)

    @property
    def is_on(self) -> bool:
        return self._service.is_on()

    def press(self, on: bool) -> None:
        self._service.set_power(on)

    def took_s(self, call: Callable[[], object]) -> float:
        began = time.monotonic()
        _whatever(call)
        return time.monotonic() - began


class TwoPathsBench:
    """One chassis behind a BMC that speaks IPMI and a chassis manager that speaks Redfish, both in the same mood."""

    def __init__(self, where: Path, service: RedfishSim, ends: ExitStack) -> None:
        self._ipmi, self._redfish = IpmiBench(where, ends), RedfishBench(service, ends)
        power = service.where / "power.h"
        power.unlink()
        power.symlink_to(where / "power")
        ends.callback(power.unlink)

    def mood(self, name: str) -> TwoPaths:
        first, second = self._ipmi.mood(name), self._redfish.mood(name)
        first._timeout_s = second._timeout_s = LIMIT_S / 2
        return TwoPaths(ByHost({"h": first}), ByHost({"h": second}), ["h"])

    @property
    def is_on(self) -> bool:
        return self._ipmi.is_on

    def press(self, on: bool) -> None:
        self._ipmi.press(on)

    def took_s(self, call: Callable[[], object]) -> float:
        return self._ipmi.took_s(call)


class AllOfBench:
    """A host with two supplies, each behind an outlet of its own, both in the same mood. One alone keeps it on."""

    def __init__(self, where: Path, ends: ExitStack) -> None:
        self._outlets = [IpmiBench(where / name, ends) for name in ("a", "b")]

    def mood(self, name: str) -> AllOf:
        return AllOf([one.mood(name) for one in self._outlets])

    @property
    def is_on(self) -> bool:
        return any(one.is_on for one in self._outlets)

    def press(self, on: bool) -> None:
        for one in self._outlets:
            one.press(on)

    def took_s(self, call: Callable[[], object]) -> float:
        return self._outlets[0].took_s(call)


class SimBench:
    MOODS = {
        "well": Bmc.OK,
        "silent": Bmc.DEAD,
        "wrong password": Bmc.WRONG_PASSWORD,
        "refuses": Bmc.REFUSES,
        "loses its answer": Bmc.LOSES_ANSWERS,
        "slow": Bmc.SLOW,
    }

    def __init__(self) -> None:
        self.agenda = Agenda()
        self.datacentre = Datacentre(self.agenda)
        self.datacentre.add_host(SimHost("h"))
        self._clock = SimClock(self.agenda)
        self.orders: list[PowerOrder] = []
        self._power = SimPower(self.datacentre, Life(self.agenda, "e1"), self._clock, LIMIT_S, self.orders.append)

    def mood(self, name: str) -> Power:
        if name == "nobody there":
            self.datacentre.unplug("h")
        else:
            self.datacentre.hosts["h"].bmc = self.MOODS.get(name.partition(":")[0], Bmc.GARBAGE)
        return self._power

    @property
    def is_on(self) -> bool:
        until = self.agenda.now + 5.0
        while self.agenda.step(until):
            pass
        return self.datacentre.hosts["h"].powered

    def press(self, on: bool) -> None:
        (self.datacentre.power_on if on else self.datacentre.cut)("h")

    def took_s(self, call: Callable[[], object]) -> float:
        before = self._clock.spent_s
        _whatever(call)
        return self._clock.spent_s - before


def _whatever(call: Callable[[], object]) -> None:
    try:
        call()
    except (Unanswered, Refused):
        return


@pytest.fixture(params=["sim", "ipmi", "proxy", "redfish", "two paths", "all of"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "sim":
        yield SimBench()
        return
    if request.param == "redfish":
        with ExitStack() as ends:
            yield RedfishBench(request.getfixturevalue("redfish_service"), ends)
        return
    if not present():
        pytest.skip("ipmi_sim is not installed")
    with ExitStack() as ends:
        if request.param == "proxy":
            yield ProxyBench(tmp_path / "bmc", ends, request.getfixturevalue("rabbit"))
        elif request.param == "two paths":
            yield TwoPathsBench(tmp_path / "bmc", request.getfixturevalue("redfish_service"), ends)
        elif request.param == "all of":
            yield AllOfBench(tmp_path, ends)
        else:
            yield IpmiBench(tmp_path / "bmc", ends)


@pytest.mark.parametrize("mood", ["well", "slow"])
def test_off_and_on(bench: Bench, mood: str) -> None:
    power = bench.mood(mood)
    assert power.read("h")[0] is ON
    power.off("h")
    assert not bench.is_on
    reading, said = power.read("h")
    assert reading is OFF and said
    power.on("h")
    assert bench.is_on and power.read("h")[0] is ON


def test_what_is_so_already_is_no_error(bench: Bench) -> None:
    power = bench.mood("well")
    power.on("h")
    assert bench.is_on
    bench.press(False)
    power.off("h")
    power.off("h")
    assert not bench.is_on and power.read("h")[0] is OFF


MUTE = ["silent", "nobody there", "wrong password", "garbage: noise"]


@pytest.mark.parametrize("mood", MUTE)
@pytest.mark.parametrize("on", [True, False])
def test_no_answer_is_unknown_and_never_off(bench: Bench, mood: str, on: bool) -> None:
    if not on:
        bench.press(False)
    power = bench.mood(mood)
    reading, said = power.read("h")
    assert reading is UNKNOWN and said


@pytest.mark.parametrize(
    ("mood", "said"),
    [("silent", Unanswered), ("wrong password", Refused), ("garbage: noise", (Unanswered, Refused))],
)
def test_no_answer_switches_nothing(bench: Bench, mood: str, said: type[Exception]) -> None:
    power = bench.mood(mood)
    with pytest.raises(said):
        power.off("h")
    assert bench.is_on


def test_nobody_there_is_unanswered(bench: Bench) -> None:
    power = bench.mood("nobody there")
    for act in (power.off, power.on):
        with pytest.raises(Unanswered):
            act("h")


def test_a_refusal_switches_nothing_and_the_power_can_still_be_read(bench: Bench) -> None:
    power = bench.mood("refuses")
    with pytest.raises(Refused):
        power.off("h")
    assert bench.is_on and power.read("h")[0] is ON
    bench.press(False)
    with pytest.raises(Refused):
        power.on("h")
    assert not bench.is_on and power.read("h")[0] is OFF


def test_a_lost_answer_is_no_refusal(bench: Bench) -> None:
    """The host is off by then."""
    power = bench.mood("loses its answer")
    with pytest.raises(Unanswered):
        power.off("h")
    assert not bench.is_on


def test_a_host_without_a_bmc(bench: Bench) -> None:
    power = bench.mood("well")
    reading, said = power.read("other")
    assert reading is UNKNOWN and "other" in said
    for act in (power.off, power.on):
        with pytest.raises(Refused, match="other"):
            act("other")


@pytest.mark.parametrize("mood", ["well", "slow", "refuses", *MUTE])
def test_every_call_ends_within_its_limit(bench: Bench, mood: str) -> None:
    power = bench.mood(mood)
    assert bench.took_s(lambda: power.read("h")) <= LIMIT_S + 0.2
    assert bench.took_s(lambda: power.off("h")) <= LIMIT_S + 0.2
