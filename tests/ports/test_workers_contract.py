# SPDX-License-Identifier: Apache-2.0
"""What every Clock and Workers behind the ports do: the same cases in virtual time and on real threads.

| what                                                                        | case                                  |
|-----------------------------------------------------------------------------|---------------------------------------|
| now() is Unix time and never goes back, whatever a call took                | test_now_never_goes_back              |
| a wake between two waits is not lost, and many are one                      | test_a_wake_is_not_lost               |
| a wait ends by itself                                                       | test_a_wait_ends                      |
| results and exceptions come back as values, each once, oldest first         | test_ends_come_back_once              |
| a result is there when its call is over, not before; its end wakes          | test_a_call_takes_its_time            |
| one name runs once; it is free again when its end was there                 | test_one_name_runs_once               |
| more calls than threads queue                                               | test_more_calls_than_threads_queue    |

A call that ends its thread (SystemExit) and stop() are the driver's only (test_clock_workers.py). In virtual time a
call runs in one piece at its begin, and what it takes is waited for afterwards: its effect may be early, never late.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

from vmhad.drivers.clock import SystemClock
from vmhad.drivers.workers import ThreadWorkers
from vmhad.ports import Clock, Refused, Workers
from vmhad.sim.clock import Agenda, SimClock
from vmhad.sim.life import Life
from vmhad.sim.workers import SimWorkers

SIZE = 2


class Bench(Protocol):
    """An engine's clock and its two workers."""

    clock: Clock
    workers: Workers

    def spend(self, seconds: float) -> None:
        """Called from within a call: that long nothing comes back."""

    def wait(self, timeout_s: float) -> float:
        """As the engine's loop waits; how long it was, in seconds."""


class SimBench:
    """The world's part of the wait: the engine is ticked when its clock was woken, or its time is over."""

    def __init__(self) -> None:
        self._agenda = Agenda()
        self.clock = SimClock(self._agenda)
        self.clock.on_wake = self._wake
        self.workers = SimWorkers(Life(self._agenda, "e1"), self.clock, SIZE)
        self._woken = False

    def _wake(self) -> None:
        self._woken = True

    def spend(self, seconds: float) -> None:
        self.clock.spend(seconds)

    def wait(self, timeout_s: float) -> float:
        began = self._agenda.now
        while not self._woken and self._agenda.step(began + timeout_s):
            pass
        self._woken = False
        return self._agenda.now - began


class ThreadBench:
    def __init__(self) -> None:
        self.clock = SystemClock()
        self.workers = ThreadWorkers(SIZE, self.clock)

    def spend(self, seconds: float) -> None:
        time.sleep(seconds)

    def wait(self, timeout_s: float) -> float:
        began = time.monotonic()
        self.clock.wait(timeout_s)
        return time.monotonic() - began


@pytest.fixture(params=["sim", "threads"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "sim":
        yield SimBench()
        return
    begun = ThreadBench()
    yield begun
    begun.workers.stop()


def ended(bench: Bench, count: int) -> list[tuple[str, object]]:
    """The next count ends, in their order."""
    found: list[tuple[str, object]] = []
    until = bench.clock.now() + 5.0
    while len(found) < count and bench.clock.now() < until:
        bench.wait(0.5)
        found.extend(bench.workers.finished())
    return found


def test_now_never_goes_back(bench: Bench) -> None:
    seen = [bench.clock.now()]

    def call() -> float:
        bench.spend(0.05)
        return bench.clock.now()

    bench.workers.submit("x", call)
    seen += [float(str(result)) for _, result in ended(bench, 1)]
    seen.append(bench.clock.now())
    assert len(seen) == 3 and seen == sorted(seen) and seen[0] > 1.7e9


def test_a_wake_is_not_lost(bench: Bench) -> None:
    bench.clock.wake()
    bench.clock.wake()
    assert bench.wait(5.0) < 1.0
    assert bench.wait(0.1) > 0.09


def test_a_wait_ends(bench: Bench) -> None:
    assert 0.04 < bench.wait(0.05) < 1.0


def test_ends_come_back_once(bench: Bench) -> None:
    error = Refused("no")

    def refuse() -> object:
        bench.spend(0.1)
        raise error

    assert bench.workers.submit("bad", refuse)
    assert bench.workers.submit("good", lambda: 42)
    assert ended(bench, 2) == [("good", 42), ("bad", error)]
    assert tuple(bench.workers.finished()) == ()


def test_a_call_takes_its_time(bench: Bench) -> None:
    bench.workers.submit("x", lambda: bench.spend(0.3))
    assert tuple(bench.workers.finished()) == ()
    assert 0.25 < bench.wait(5.0) < 1.0
    assert tuple(bench.workers.finished()) == (("x", None),)


def test_one_name_runs_once(bench: Bench) -> None:
    assert bench.workers.submit("x", lambda: bench.spend(0.3))
    assert not bench.workers.submit("x", lambda: 2)
    bench.wait(0.1)
    assert not bench.workers.submit("x", lambda: 2)
    assert ended(bench, 1) == [("x", None)]
    assert bench.workers.submit("x", lambda: 3)
    assert ended(bench, 1) == [("x", 3)]


def test_more_calls_than_threads_queue(bench: Bench) -> None:
    began = bench.clock.now()

    def call() -> None:
        bench.spend(0.2)

    calls: list[Callable[[], object]] = [call] * 5
    assert all(bench.workers.submit(f"call-{number}", one) for number, one in enumerate(calls))
    assert len(ended(bench, 5)) == 5
    assert 0.55 < bench.clock.now() - began < 2.0
