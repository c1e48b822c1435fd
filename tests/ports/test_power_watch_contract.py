# SPDX-License-Identifier: Apache-2.0
"""What the eye on the BMCs says and when: the same cases for the simulated watch and the driver's, which runs in
real time and in threads of its own. test_bmc_power_watch.py has what only threads can get wrong.

| what                                                                   | case                                  |
|------------------------------------------------------------------------|---------------------------------------|
| every host at the pace, never two reads of one at a time               | test_every_host_at_the_pace           |
| ON is life; OFF and UNKNOWN are not                                    | test_only_on_is_life                  |
| an OFF is read twice, apart, before anybody asks                       | test_off_is_read_twice_apart          |
| look() reads now; hosts that are not watched are passed over           | test_look_is_sooner_than_the_round    |
| look() while a read is under way brings a reading that began after it  | test_look_during_a_read               |
| a reading is of the moment when its read began                         | test_at_is_when_the_read_began        |
| every OFF of late wakes the clock, else only what is new               | test_every_off_wakes_else_only_news   |
| a host that is off for good wakes nobody                               | test_an_old_off_wakes_nobody          |
| of what is said again only the newest is kept, and comes when asked    | test_what_is_said_again_waits         |
| what waited comes before what is news, and with it what came after     | test_what_waited_keeps_its_place      |

After a look() the driver reads once more 0.9 s later, the simulated watch only where it saw the first OFF: it knows
less, not more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import pytest
from eyes import all_told
from rack import Rack

from vmhad.drivers.clock import SystemClock
from vmhad.drivers.watch.bmc_power import BmcPowerWatch
from vmhad.kernel.signal import OFF_IS_NEWS_S, Channel, Reading, Signal
from vmhad.ports import Watch
from vmhad.sim.clock import Agenda, SimClock
from vmhad.sim.datacentre import Bmc, Datacentre, SimHost
from vmhad.sim.life import Life
from vmhad.sim.watch import SimPowerWatch

ON, OFF, UNKNOWN = Reading.ON, Reading.OFF, Reading.UNKNOWN
HOSTS = ("h1", "h2", "h3")
BMC_LIMIT_S = 1.5
GATHERED_EVERY_S = 0.05
# How much sooner an OFF is old for the watch that runs in real time.
HURRY = 10.0


class Bench(Protocol):
    """Three hosts, watched from now on."""

    watch: Watch
    said: list[Signal]

    def now(self) -> float: ...

    def power(self, host: str, on: bool) -> None: ...

    def silence(self, host: str) -> None:
        """Its BMC answers nothing, until the reader's limit is over; see BMC_LIMIT_S."""

    def rest(self, seconds: float) -> None:
        """Time passes; whatever the watch says is gathered."""

    def pass_unheard(self, seconds: float) -> None:
        """Time passes, and nobody asks."""

    def grow_old(self) -> None:
        """So much time passes that an OFF is no news any more."""

    def wakes(self) -> int:
        """How often the clock was woken since last asked, as far as the engine could notice."""


class SimBench:
    def __init__(self, interval_s: float, off: Sequence[str]) -> None:
        self._agenda = Agenda()
        self._datacentre = Datacentre(self._agenda)
        for name in HOSTS:
            self._datacentre.add_host(SimHost(name, powered=name not in off))
        self._clock = SimClock(self._agenda)
        self._clock.on_wake = self._wake
        self._woken = 0
        life = Life(self._agenda, "e1")
        self.watch = SimPowerWatch(life, self._clock, self._datacentre, HOSTS, interval_s, BMC_LIMIT_S)
        self.said: list[Signal] = []

    def _wake(self) -> None:
        self._woken += 1

    def now(self) -> float:
        return self._clock.now()

    def power(self, host: str, on: bool) -> None:
        self._datacentre.hosts[host].powered = on

    def silence(self, host: str) -> None:
        self._datacentre.hosts[host].bmc = Bmc.DEAD

    def rest(self, seconds: float) -> None:
        until = self._agenda.now + seconds
        while self._agenda.now < until:
            while self._agenda.step(min(self._agenda.now + GATHERED_EVERY_S, until)):
                pass
            self.said.extend(all_told(self.watch, HOSTS))

    def pass_unheard(self, seconds: float) -> None:
        until = self._agenda.now + seconds
        while self._agenda.step(until):
            pass

    def grow_old(self) -> None:
        self.pass_unheard(OFF_IS_NEWS_S)

    def wakes(self) -> int:
        woken, self._woken = self._woken, 0
        return woken


class ThreadBench:
    def __init__(self, interval_s: float, off: Sequence[str]) -> None:
        self._rack = Rack(HOSTS)
        self._rack.power.update(dict.fromkeys(off, OFF))
        self._clock = SystemClock()
        self._woken = 0
        self._over = threading.Event()
        self._counter = threading.Thread(target=self._count)
        self._counter.start()
        self.watch = BmcPowerWatch(
            self._rack.open, HOSTS, self._clock, interval_s=interval_s, off_is_news_s=OFF_IS_NEWS_S / HURRY
        )
        self.watch.start()
        self.said: list[Signal] = []

    def end(self) -> None:
        self._over.set()
        self._rack.release.set()
        self.watch.stop()
        self._clock.wake()
        self._counter.join(5)

    def _count(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self._clock.wait(60.0)
            self._woken += time.monotonic() - began < 59.0

    def now(self) -> float:
        return self._clock.now()

    def power(self, host: str, on: bool) -> None:
        self._rack.power[host] = ON if on else OFF

    def silence(self, host: str) -> None:
        self._rack.hung[host] = True

    def rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            self._over.wait(min(left_s, GATHERED_EVERY_S))
            self.said.extend(all_told(self.watch, HOSTS))

    def pass_unheard(self, seconds: float) -> None:
        self._over.wait(seconds)

    def grow_old(self) -> None:
        self.pass_unheard(OFF_IS_NEWS_S / HURRY)

    def wakes(self) -> int:
        woken, self._woken = self._woken, 0
        return woken


Start = Callable[..., Bench]


@pytest.fixture(params=["sim", "threads"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Called with the interval between two reads of one host, and with the hosts that are off."""
    begun: list[ThreadBench] = []

    def go(interval_s: float, *off: str) -> Bench:
        if request.param == "sim":
            return SimBench(interval_s, off)
        begun.append(ThreadBench(interval_s, off))
        return begun[-1]

    yield go
    for bench in begun:
        bench.end()


def of(bench: Bench, host: str, reading: Reading | None = None) -> list[Signal]:
    return [one for one in bench.said if one.host == host and reading in (None, one.reading)]


def until(bench: Bench, seen: Callable[[], bool], limit_s: float = 5.0) -> None:
    ends = bench.now() + limit_s
    while not seen():
        assert bench.now() < ends, "not seen in time"
        bench.rest(0.02)


def test_every_host_at_the_pace(start: Start) -> None:
    bench = start(0.5)
    bench.rest(3.2)
    for host in HOSTS:
        moments = [one.at for one in of(bench, host)]
        gaps = [later - earlier for earlier, later in zip(moments, moments[1:], strict=False)]
        assert len(gaps) >= 4 and min(gaps) > 0.49 and max(gaps) < 0.9
    assert {one.channel for one in bench.said} == {Channel.POWER}


def test_only_on_is_life(start: Start) -> None:
    bench = start(0.3, "h2")
    bench.rest(1.0)
    bench.silence("h3")
    until(bench, lambda: bool(of(bench, "h3", UNKNOWN)))
    assert {(one.host, one.reading, one.life) for one in bench.said} == {
        ("h1", ON, True), ("h2", OFF, False), ("h3", ON, True), ("h3", UNKNOWN, False),
    }  # fmt: skip
    assert all(one.detail for one in bench.said)


def test_off_is_read_twice_apart(start: Start) -> None:
    bench = start(30.0, "h1")
    until(bench, lambda: len(of(bench, "h1", OFF)) >= 2)
    first, second = of(bench, "h1", OFF)
    assert 0.8 <= second.at - first.at <= 1.1
    bench.rest(2.0)
    assert len(of(bench, "h1")) == 2, "and then at its own pace"


def test_look_is_sooner_than_the_round(start: Start) -> None:
    bench = start(60.0)
    until(bench, lambda: bool(of(bench, "h1")))
    bench.rest(1.5)
    bench.said.clear()
    asked = bench.now()
    bench.watch.look(["h1", "nosuchhost"])
    until(bench, lambda: bool(of(bench, "h1")), 1.0)
    assert asked <= of(bench, "h1")[0].at < asked + 0.5
    assert {one.host for one in bench.said} == {"h1"}


def test_look_during_a_read(start: Start) -> None:
    """What was asked for during a read may have happened after it began."""
    bench = start(60.0)
    until(bench, lambda: bool(of(bench, "h1")))
    bench.rest(1.5)
    bench.silence("h1")
    bench.said.clear()
    bench.watch.look(["h1"])
    bench.rest(0.5)
    assert not of(bench, "h1"), "a read is under way"
    asked = bench.now()
    bench.watch.look(["h1"])
    until(bench, lambda: len(of(bench, "h1")) >= 2, 2 * BMC_LIMIT_S + 1.0)
    assert of(bench, "h1")[0].at < asked < of(bench, "h1")[1].at


def test_at_is_when_the_read_began(start: Start) -> None:
    bench = start(60.0)
    until(bench, lambda: bool(of(bench, "h1")))
    bench.rest(1.5)
    bench.silence("h1")
    bench.said.clear()
    asked = bench.now()
    bench.watch.look(["h1"])
    until(bench, lambda: bool(of(bench, "h1")))
    assert bench.now() - asked >= BMC_LIMIT_S - 0.05
    assert asked <= of(bench, "h1")[0].at < asked + 0.5


def test_every_off_wakes_else_only_news(start: Start) -> None:
    bench = start(0.4)
    bench.rest(1.5)
    bench.wakes()
    bench.rest(1.5)
    assert bench.wakes() == 0
    bench.power("h1", False)
    bench.rest(2.5)
    assert bench.wakes() >= 3
    bench.power("h1", True)
    bench.rest(1.0)
    assert bench.wakes() >= 1
    bench.rest(1.0)
    assert bench.wakes() == 0


def test_an_old_off_wakes_nobody(start: Start) -> None:
    """It is told all the same: whoever looks at it by himself finds it fresh."""
    bench = start(0.4, "h1")
    bench.grow_old()
    bench.rest(0.5)
    bench.wakes()
    bench.said.clear()
    bench.rest(1.3)
    assert bench.wakes() == 0 and len(of(bench, "h1", OFF)) >= 2


def test_what_is_said_again_waits(start: Start) -> None:
    bench = start(0.3)
    bench.rest(0.8)
    bench.pass_unheard(1.2)
    assert list(bench.watch.read()) == []
    again = bench.watch.latest("h1")
    assert again is not None and (again.reading, again.life) == (ON, True)
    assert bench.now() - again.at < 0.8
    assert bench.watch.latest("h1") is None and bench.watch.latest("nosuchhost") is None


def test_what_waited_keeps_its_place(start: Start) -> None:
    bench = start(0.3)
    bench.rest(0.8)
    bench.pass_unheard(0.7)
    bench.power("h1", False)
    bench.pass_unheard(0.7)
    bench.power("h1", True)
    bench.pass_unheard(1.5)
    told = [one for one in bench.watch.read() if one.host == "h1"]
    assert [one.at for one in told] == sorted(one.at for one in told)
    off = [number for number, one in enumerate(told) if one.reading is OFF]
    assert off and off[0] == 1 and len(told) - off[-1] == 3, "the last ON before, each OFF, the first ON and the newest"
    assert bench.watch.latest("h1") is None
