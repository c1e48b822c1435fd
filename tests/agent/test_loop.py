# SPDX-License-Identifier: Apache-2.0
"""Whatever hangs, the beat goes on: an eye, the bus; and the last one says that the agent leaves."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from vmhad.agent.bootclock import boot_id, boot_s
from vmhad.agent.loop import Agent, Identity, compose
from vmhad.agent.told import Eye, Rounds, Told
from vmhad.kernel.beat import Beat, Domain, DomainState, PeerView, Plane, StorageBeat, Unit, UnitState
from vmhad.kernel.signal import Reading

WHO = Identity("h1", boot_id(), "run-1")
INTERVAL_S = 0.1
LIMIT_S = 10.0


class Known:
    """An eye that says what it is told to say, and looks by a call of the test."""

    def __init__(self, told: Callable[[], Told], look: Callable[[], None] = lambda: None) -> None:
        self._told = told
        self._rounds = Rounds("known", look, INTERVAL_S)

    def start(self) -> None:
        self._rounds.start()

    def stop(self) -> None:
        self._rounds.stop()

    def tell(self, now: float) -> Told:
        return self._told()


@contextmanager
def running(eyes: Sequence[Eye], say: Callable[[Beat], None], interval_s: float = INTERVAL_S) -> Iterator[Agent]:
    last: list[Beat] = []
    agent = Agent(WHO, eyes, say, interval_s, last.append)
    thread = threading.Thread(target=agent.run, daemon=True)
    thread.start()
    try:
        yield agent
    finally:
        agent.end()
        thread.join(LIMIT_S)
        assert not thread.is_alive() and [beat.leaving for beat in last] == [True]


def test_beats_count_and_the_last_one_leaves() -> None:
    said: queue.Queue[Beat] = queue.Queue()
    with running([], said.put):
        beats = [said.get(timeout=LIMIT_S) for _ in range(5)]
    assert [beat.count for beat in beats] == [1, 2, 3, 4, 5]
    assert {(beat.host, beat.boot, beat.run, beat.leaving) for beat in beats} == {("h1", boot_id(), "run-1", False)}
    assert all(
        INTERVAL_S * 0.9 <= late.uptime_s - early.uptime_s for early, late in zip(beats, beats[1:], strict=False)
    )
    assert beats[-1].uptime_s <= boot_s() and abs(beats[-1].sent_at - time.time()) < LIMIT_S
    rest = [said.get(timeout=LIMIT_S)]
    while not said.empty():
        rest.append(said.get())
    assert rest[-1].leaving and not any(beat.leaving for beat in rest[:-1])


def test_an_eye_that_hangs_or_breaks_costs_its_own_word_only() -> None:
    said: queue.Queue[Beat] = queue.Queue()
    hanging, free = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        free.wait()

    def break_down() -> Told:
        raise RuntimeError("no eye should do that")

    eyes = [
        Known(lambda: Told(services={"a": Reading.UP}), hang),
        Known(break_down),
        Known(lambda: Told(services={"b": Reading.DOWN})),
    ]
    with running(eyes, said.put):
        assert hanging.wait(LIMIT_S)
        at = [said.get(timeout=LIMIT_S) for _ in range(6)]
        assert at[-1].services == {"a": Reading.UP, "b": Reading.DOWN}
        assert at[-1].uptime_s - at[0].uptime_s < LIMIT_S / 2
    free.set()


def test_a_bus_that_hangs_is_given_the_newest_beat_when_it_is_back() -> None:
    said: queue.Queue[Beat] = queue.Queue()
    made: queue.Queue[None] = queue.Queue()
    free = threading.Event()

    def say(beat: Beat) -> None:
        said.put(beat)
        free.wait()

    def told() -> Told:
        made.put(None)
        return Told()

    with running([Known(told)], say):
        assert said.get(timeout=LIMIT_S).count == 1
        for _ in range(5):
            made.get(timeout=LIMIT_S)
        assert said.empty()
        free.set()
        assert said.get(timeout=LIMIT_S).count >= 4


def test_a_bus_that_is_broken_is_tried_with_every_beat() -> None:
    tried: queue.Queue[int] = queue.Queue()

    def say(beat: Beat) -> None:
        tried.put(beat.count)
        raise ConnectionRefusedError

    with running([], say):
        assert [tried.get(timeout=LIMIT_S) for _ in range(3)] == [1, 2, 3]


def test_the_agent_leaves_although_the_bus_hangs() -> None:
    hanging, free = threading.Event(), threading.Event()

    def say(beat: Beat) -> None:
        hanging.set()
        free.wait()

    began = time.monotonic()
    with running([], say):
        assert hanging.wait(LIMIT_S)
    assert time.monotonic() - began < LIMIT_S
    free.set()


def test_news_do_not_wait_for_the_next_beat_and_do_not_flood() -> None:
    said: queue.Queue[Beat] = queue.Queue()
    with running([], said.put, interval_s=4.0) as agent:
        first = said.get(timeout=LIMIT_S)
        agent.news()
        second = said.get(timeout=LIMIT_S)
        assert 1.0 <= second.uptime_s - first.uptime_s < 4.0
        for _ in range(100):
            agent.news()
        third = said.get(timeout=LIMIT_S)
        assert 1.0 <= third.uptime_s - second.uptime_s
        assert said.empty()


def test_a_storm_of_nudges_is_a_few_looks() -> None:
    looks: queue.Queue[float] = queue.Queue()
    rounds = Rounds("stormy", lambda: looks.put(time.monotonic()), 60.0, 0.2)
    rounds.start()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        rounds.nudge()
        time.sleep(0.001)
    rounds.stop()
    assert rounds.join(LIMIT_S)
    # How far apart they are is told by their number: one alone may be late on a busy machine, and the next in time.
    assert 2 <= looks.qsize() <= 9


def test_a_look_that_fails_is_tried_again() -> None:
    looks: queue.Queue[None] = queue.Queue()

    def fail() -> None:
        looks.put(None)
        raise OSError("it is broken")

    rounds = Rounds("failing", fail, 0.01)
    rounds.start()
    for _ in range(3):
        looks.get(timeout=LIMIT_S)
    rounds.stop()
    assert rounds.join(LIMIT_S)


RUNS = Unit(UnitState.RUNS, invocation="1a")


def test_what_the_eyes_saw_is_put_together() -> None:
    record = StorageBeat("b", 7, 1.5)
    guest = Domain(DomainState.RUNNING, "", 3.0)
    told = [
        Told(services={"libvirtd": Reading.UNKNOWN, "nova-compute": Reading.UP}, units={"nova-compute": RUNS}),
        Told(storages={"s1": Reading.UP}, records={"h2": {"s1": record}}, hardware=("one",)),
        Told(storages={"s2": Reading.DOWN}, records={"h2": {"s2": record}, "h3": {"s2": record}}, hardware=("two",)),
        Told(planes={"h2": {Plane.MANAGEMENT: Reading.UP}}),
        Told(services={"libvirtd": Reading.UP}, domains={"vm": guest}),
    ]
    assert compose(WHO, 9, 5.0, 1e9, told) == Beat(
        "h1",
        WHO.boot,
        "run-1",
        9,
        5.0,
        1e9,
        services={"libvirtd": Reading.UP, "nova-compute": Reading.UP},
        storages={"s1": Reading.UP, "s2": Reading.DOWN},
        peers={
            "h2": PeerView({Plane.MANAGEMENT: Reading.UP}, {"s1": record, "s2": record}),
            "h3": PeerView({}, {"s2": record}),
        },
        domains={"vm": guest},
        hardware=("one", "two"),
        units={"nova-compute": RUNS},
    )
    assert compose(WHO, 1, 0.0, 0.0, []).domains is None
    assert compose(WHO, 1, 0.0, 0.0, [Told(domains={})]).domains == {}
