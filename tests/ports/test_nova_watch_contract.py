# SPDX-License-Identifier: Apache-2.0
"""What Nova's eye says, and above all what it may not say: the same cases for the simulated watch and the driver's.

The driver's reads a nova-api over real HTTP whose rows move as Nova's do; that they do so is pinned by the contract of
Compute (services, dead_host_reads_up, own_changes_look_like_life).

| what                                                             | case                                         |
|------------------------------------------------------------------|----------------------------------------------|
| the first look at anything is no sign of life                    | test_a_first_look_is_no_life                 |
| a heartbeat is one, once                                         | test_a_heartbeat_is_life_once                |
| a minute without one is DOWN                                     | test_silence_is_down                         |
| our own changes of the row are none                              | test_what_is_done_to_the_row_is_no_life      |
| a heartbeat between two looks that people changed too: none      | test_a_heartbeat_beside_a_change_is_no_life  |
| forced down and beating is UP, for a minute after the last beat  | test_a_host_forced_down_is_up_while_it_beats |
| no answer is UNKNOWN of every host; what moved meanwhile counts  | test_nova_away_is_unknown_of_all             |
| the clock is woken by news only                                  | test_news_only_wake                          |
| look() does not wait for the next round                          | test_look_is_sooner_than_the_round           |
| what begins to read DOWN is read again before the next round     | test_a_first_down_is_read_again_soon         |
| while a heartbeat is overdue the rounds are shorter              | test_rounds_are_short_while_one_is_overdue   |

The last two are the driver's only: the simulated watch waits for its round, which makes it the slower one.
A host that Nova has no row for, or whose cell is down, reads UNKNOWN: the driver's only (test_nova_answers.py), the
simulated Nova knows every host.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Protocol

import pytest
from eyes import all_told
from keystoneauth1.noauth import NoAuth
from stand_in import StandIn, running

from vmhad.drivers.clock import SystemClock
from vmhad.drivers.compute.nova import NovaCompute
from vmhad.drivers.watch.nova_services import AGAIN_S, NovaServicesWatch
from vmhad.kernel.signal import Channel, Reading, Signal
from vmhad.sim.clock import Agenda, SimClock
from vmhad.sim.compute import NovaFaults
from vmhad.sim.datacentre import Datacentre, SimHost
from vmhad.sim.life import Life
from vmhad.sim.nova import HEARTBEAT_S, SimNova
from vmhad.sim.watch import SimNovaWatch

UP, DOWN, UNKNOWN = Reading.UP, Reading.DOWN, Reading.UNKNOWN
HOSTS = ("h1", "h2")


class Bench(Protocol):
    """A cloud whose hosts h1 and h2 beat by themselves, and a watch that looks when it is told to."""

    woken: int

    def look(self) -> dict[str, Signal]:
        """One look at all hosts."""

    def beat(self) -> None:
        """Every living host's next heartbeat lands."""

    def die(self, host: str) -> None: ...

    def minute(self) -> None:
        """More than a minute passes; who lives, beats."""

    def force_down(self, host: str, forced: bool) -> None: ...

    def disable(self, host: str, reason: str) -> None:
        """Enables again where reason is ''."""

    def api(self, away: bool) -> None: ...


class SimBench:
    def __init__(self) -> None:
        self._agenda = Agenda()
        self._datacentre = Datacentre(self._agenda)
        self._nova = SimNova(self._datacentre)
        for name in HOSTS:
            self._nova.add_host(SimHost(name))
        self._faults = NovaFaults()
        clock = SimClock(self._agenda)
        clock.on_wake = self._wake
        self.woken = 0
        self.rest(5.05)  # between two rounds of heartbeats, and between two whole seconds
        life = Life(self._agenda, "e1")
        self._watch = SimNovaWatch(life, clock, self._nova, self._faults, 10_000.0, 0.1)
        self.look()
        self._watch.look([])

    def _wake(self) -> None:
        self.woken += 1

    def rest(self, seconds: float) -> None:
        until = self._agenda.now + seconds
        while self._agenda.step(until):
            pass

    def look(self) -> dict[str, Signal]:
        self._watch.look(HOSTS)
        self.rest(0.4)
        return {one.host: one for one in all_told(self._watch, HOSTS)}

    def beat(self) -> None:
        self.rest(HEARTBEAT_S)

    def die(self, host: str) -> None:
        self._datacentre.cut(host)

    def minute(self) -> None:
        self.rest(61.0)

    def force_down(self, host: str, forced: bool) -> None:
        self.rest(1.0)
        self._nova.set_forced_down(host, forced)

    def disable(self, host: str, reason: str) -> None:
        self.rest(1.0)
        self._nova.set_enabled(host, not reason, reason)

    def api(self, away: bool) -> None:
        self._faults.down_until = self._agenda.now + (1e6 if away else 0.0)


class HttpBench:
    """The driver over real HTTP; its clock and Nova's are turned by the bench."""

    def __init__(self, peer: StandIn) -> None:
        self._agenda = Agenda()
        self._peer = peer
        self._dead: set[str] = set()
        self._heard = dict.fromkeys(HOSTS, self._agenda.now)
        self._rows: dict[str, dict[str, Any]] = {
            host: {"binary": "nova-compute", "host": host, "id": host, "status": "enabled", "state": "up",
                   "forced_down": False, "disabled_reason": None, "updated_at": self._text()}
            for host in HOSTS
        }  # fmt: skip
        self.api(away=False)
        self.woken = 0
        self.clock = SimClock(self._agenda)
        self.clock.on_wake = self._wake
        self.compute = NovaCompute(NoAuth(endpoint=peer.url), timeout_s=2.0)
        self._watch = NovaServicesWatch(self.compute, HOSTS, self.clock)
        self.look()

    def _wake(self) -> None:
        self.woken += 1

    def _text(self) -> str:
        return datetime.fromtimestamp(int(self._agenda.now), UTC).strftime("%Y-%m-%dT%H:%M:%S.000000")

    def _services(self) -> bytes:
        for host, row in self._rows.items():
            heard_lately = self._agenda.now - self._heard[host] <= 60.0
            row["state"] = "up" if heard_lately and not row["forced_down"] else "down"
        return json.dumps({"services": list(self._rows.values())}).encode()

    def look(self) -> dict[str, Signal]:
        self._watch.poll()
        return {one.host: one for one in all_told(self._watch, HOSTS)}

    def beat(self) -> None:
        self._agenda.now += HEARTBEAT_S
        for host in set(HOSTS) - self._dead:
            self._heard[host] = self._agenda.now
            self._rows[host]["updated_at"] = self._text()

    def die(self, host: str) -> None:
        self._dead.add(host)

    def minute(self) -> None:
        for _ in range(7):
            self.beat()

    def force_down(self, host: str, forced: bool) -> None:
        self._agenda.now += 1.0
        self._rows[host] |= {"forced_down": forced, "updated_at": self._text()}

    def disable(self, host: str, reason: str) -> None:
        self._agenda.now += 1.0
        status = "disabled" if reason else "enabled"
        self._rows[host] |= {"status": status, "disabled_reason": reason or None, "updated_at": self._text()}

    def api(self, away: bool) -> None:
        self._peer.answer = lambda method, path: (503, b"away") if away else (200, self._services())


@pytest.fixture(params=["sim", "http"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """After its first look."""
    if request.param == "sim":
        yield SimBench()
        return
    with running() as peer:
        begun = HttpBench(peer)
        yield begun
        begun.compute.close()


def said(signals: dict[str, Signal]) -> dict[str, tuple[Reading, bool]]:
    assert {one.channel for one in signals.values()} <= {Channel.NOVA}
    return {host: (one.reading, one.life) for host, one in signals.items()}


def test_a_first_look_is_no_life(bench: Bench) -> None:
    assert said(bench.look()) == {"h1": (UP, False), "h2": (UP, False)}


def test_a_heartbeat_is_life_once(bench: Bench) -> None:
    bench.beat()
    assert said(bench.look()) == {"h1": (UP, True), "h2": (UP, True)}
    assert said(bench.look()) == {"h1": (UP, False), "h2": (UP, False)}


def test_silence_is_down(bench: Bench) -> None:
    bench.die("h1")
    bench.look()
    bench.minute()
    assert said(bench.look()) == {"h1": (DOWN, False), "h2": (UP, True)}


def test_what_is_done_to_the_row_is_no_life(bench: Bench) -> None:
    bench.die("h1")
    bench.look()
    changes: list[Callable[[], None]] = [
        lambda: bench.force_down("h1", True),
        lambda: bench.disable("h1", "vmhad: fenced"),
        lambda: bench.disable("h1", "vmhad: fenced again"),
        lambda: bench.disable("h1", ""),
        lambda: bench.force_down("h1", False),
    ]
    for change in changes:
        change()
        assert not bench.look()["h1"].life


def test_a_heartbeat_beside_a_change_is_no_life(bench: Bench) -> None:
    """Which of the two moved updated_at cannot be told."""
    bench.beat()
    bench.force_down("h1", True)
    assert not bench.look()["h1"].life


def test_a_host_forced_down_is_up_while_it_beats(bench: Bench) -> None:
    """Nova itself says down of it, always."""
    bench.force_down("h1", True)
    first = bench.look()["h1"]
    assert (first.reading, first.life) == (DOWN, False) and "forced down" in first.detail
    bench.beat()
    assert said(bench.look())["h1"] == (UP, True)
    assert said(bench.look())["h1"] == (UP, False)
    bench.die("h1")
    bench.minute()
    assert said(bench.look())["h1"] == (DOWN, False)


def test_nova_away_is_unknown_of_all(bench: Bench) -> None:
    bench.look()
    bench.api(away=True)
    assert said(bench.look()) == {"h1": (UNKNOWN, False), "h2": (UNKNOWN, False)}
    bench.die("h1")
    bench.beat()
    assert said(bench.look()) == {"h1": (UNKNOWN, False), "h2": (UNKNOWN, False)}
    bench.api(away=False)
    found = said(bench.look())
    assert found["h2"] == (UP, True) and not found["h1"][1]


def test_news_only_wake(bench: Bench) -> None:
    bench.look()
    before = bench.woken
    bench.beat()
    bench.look()
    assert bench.woken == before
    bench.api(away=True)
    bench.look()
    assert bench.woken == before + 1
    bench.look()
    assert bench.woken == before + 1
    bench.api(away=False)
    bench.look()
    assert bench.woken == before + 2


class CountingClock(SystemClock):
    def __init__(self) -> None:
        super().__init__()
        self.woken, self.ahead_s = 0, 0.0

    def now(self) -> float:
        return super().now() + self.ahead_s

    def wake(self) -> None:
        self.woken += 1
        super().wake()


def test_a_first_down_is_read_again_soon() -> None:
    """One reading is no death; the second one comes in a second and wakes the engine, once. A suspect is looked at at
    once, too, and that reading is not far enough from the first to count."""
    with running() as peer:
        bench, clock = HttpBench(peer), CountingClock()
        watch = NovaServicesWatch(bench.compute, HOSTS, clock, interval_s=60.0)
        bench.die("h1")
        bench.minute()
        watch.start()
        try:
            for woken in (1, 2):
                until = time.monotonic() + 10.0
                while clock.woken < woken:
                    assert time.monotonic() < until, "it was not read again"
                    time.sleep(0.02)
                watch.look(["h1"])
            readings = [one.at for one in all_told(watch, HOSTS) if one.host == "h1"]
            assert readings[-1] - readings[0] >= AGAIN_S
            time.sleep(1.2)
            assert clock.woken == 2
        finally:
            watch.stop()
            bench.compute.close()


def test_rounds_are_short_while_one_is_overdue() -> None:
    """Half a minute after the last heartbeat that was seen Nova may call it down any moment."""
    with running() as peer:
        bench, clock = HttpBench(peer), CountingClock()
        watch = NovaServicesWatch(bench.compute, HOSTS, clock, interval_s=60.0)
        watch.poll()
        bench.beat()
        watch.poll()
        all_told(watch, HOSTS)
        clock.ahead_s = 30.0
        asked: list[str] = []
        answer = peer.answer
        peer.answer = lambda method, path: asked.append(path) or answer(method, path)  # type: ignore[func-returns-value]
        watch.start()
        try:
            until = time.monotonic() + 10.0
            while len(asked) < 4:
                assert time.monotonic() < until, "it waited for its round"
                time.sleep(0.02)
        finally:
            watch.stop()
            bench.compute.close()


def test_look_is_sooner_than_the_round() -> None:
    """The driver's own thread; the simulated watch is driven so in every case above."""
    with running() as peer:
        bench = HttpBench(peer)
        clock = SystemClock()
        watch = NovaServicesWatch(bench.compute, HOSTS, clock, interval_s=60.0)
        watch.start()
        try:
            heard: list[Signal] = []
            for count in (1, 2, 3):
                until = time.monotonic() + 5.0
                while len({one.at for one in heard}) < count:
                    assert time.monotonic() < until, "it did not look"
                    clock.wait(0.02)
                    heard.extend(all_told(watch, HOSTS))
                watch.look(["h2"])
        finally:
            watch.stop()
            bench.compute.close()
