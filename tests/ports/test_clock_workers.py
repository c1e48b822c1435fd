# SPDX-License-Identifier: Apache-2.0
"""What only real threads can get wrong; the contract of both ports is test_workers_contract.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from vmhad.drivers.clock import SystemClock
from vmhad.drivers.workers import ThreadWorkers
from vmhad.ports import Refused, Unanswered


@pytest.fixture
def clock() -> SystemClock:
    return SystemClock()


@pytest.fixture
def workers(clock: SystemClock) -> Iterator[ThreadWorkers]:
    pool = ThreadWorkers(2, clock)
    yield pool
    pool.stop()


def ended(workers: ThreadWorkers, clock: SystemClock, count: int) -> dict[str, object]:
    results: dict[str, object] = {}
    until = time.monotonic() + 5
    while len(results) < count and time.monotonic() < until:
        clock.wait(0.5)
        results.update(workers.finished())
    return results


def test_now_is_unix_time_and_grows(clock: SystemClock) -> None:
    first = clock.now()
    assert abs(first - time.time()) < 1.0
    assert clock.now() >= first


def test_wait_ends_by_itself(clock: SystemClock) -> None:
    began = time.monotonic()
    clock.wait(0.05)
    assert 0.04 < time.monotonic() - began < 1.0


def test_wake_ends_a_wait(clock: SystemClock) -> None:
    waker = threading.Timer(0.05, clock.wake)
    began = time.monotonic()
    waker.start()
    clock.wait(10.0)
    assert time.monotonic() - began < 2.0


def test_wake_before_the_wait_is_not_lost_and_counts_once(clock: SystemClock) -> None:
    clock.wake()
    clock.wake()
    began = time.monotonic()
    clock.wait(10.0)
    assert time.monotonic() - began < 1.0
    clock.wait(0.05)
    assert time.monotonic() - began > 0.04


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, 1e12])
def test_odd_waits(clock: SystemClock, timeout_s: float) -> None:
    if timeout_s > 1:
        clock.wake()
    began = time.monotonic()
    clock.wait(timeout_s)
    assert time.monotonic() - began < 1.0


def test_result_and_exception_come_back_as_values(workers: ThreadWorkers, clock: SystemClock) -> None:
    error = Refused("no")

    def refuse() -> object:
        raise error

    assert workers.submit("good", lambda: 42)
    assert workers.submit("bad", refuse)
    assert ended(workers, clock, 2) == {"good": 42, "bad": error}
    assert workers.finished() == ()


def test_one_name_runs_once(workers: ThreadWorkers, clock: SystemClock) -> None:
    gate = threading.Event()
    assert workers.submit("x", lambda: gate.wait(5))
    assert not workers.submit("x", lambda: 2)
    assert workers.running() == ["x"]
    assert workers.finished() == ()
    gate.set()
    assert ended(workers, clock, 1) == {"x": True}
    assert workers.submit("x", lambda: 3)
    assert ended(workers, clock, 1) == {"x": 3}


def test_more_calls_than_threads_queue(workers: ThreadWorkers, clock: SystemClock) -> None:
    most, now, lock = 0, 0, threading.Lock()

    def call() -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1

    for number in range(10):
        assert workers.submit(f"call-{number}", call)
    assert len(ended(workers, clock, 10)) == 10
    assert most == 2


def test_the_end_of_a_call_wakes_the_clock(workers: ThreadWorkers, clock: SystemClock) -> None:
    began = time.monotonic()
    workers.submit("x", lambda: None)
    clock.wait(10.0)
    assert time.monotonic() - began < 2.0
    assert workers.finished() == (("x", None),)


def test_an_exit_in_a_call_ends_nothing_else(workers: ThreadWorkers, clock: SystemClock) -> None:
    def leave() -> object:
        raise SystemExit(1)

    workers.submit("x", leave)
    assert isinstance(ended(workers, clock, 1)["x"], Unanswered)
    workers.submit("y", lambda: 1)
    assert ended(workers, clock, 1) == {"y": 1}


def test_after_stop_nothing_is_taken(clock: SystemClock) -> None:
    pool = ThreadWorkers(1, clock)
    pool.submit("x", lambda: 1)
    pool.stop()
    assert pool.finished() == (("x", 1),)
    assert not pool.submit("y", lambda: 1)
