# SPDX-License-Identifier: Apache-2.0
"""What every Membership behind the port does: the same cases on the simulated ring, on tooz over files and over etcd.

| what                                                                        | case                                |
|-----------------------------------------------------------------------------|-------------------------------------|
| an engine alone owns everything, from its first beat                        | test_alone_it_owns_all              |
| engines that see each other share everything, each segment once             | test_they_share                     |
| what an engine that died had is taken over, within a lease                  | test_the_dead_are_replaced          |
| one that hangs drops out; by its own view, grown old, it owns everything:   | test_one_that_hangs_drops_out_and_  |
|   a hint may contradict itself; when it goes on it is a member again        |   comes_back                        |
| who cannot see the ring owns everything, and neither beat nor question      | test_without_a_ring_all_is_owned    |
|   raises or waits long                                                      |                                     |

Not alike, to the worse: when an engine leaves, tooz's ring moves its segments only, the simulated one deals all anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest
from loopback import free_port

from vmhad.drivers.membership.tooz_ring import ToozMembership
from vmhad.ports import Membership
from vmhad.sim.clock import Agenda
from vmhad.sim.life import Life
from vmhad.sim.membership import Ring, SimMembership

SEGMENTS = [f"segment-{number}" for number in range(40)]


class Bench(Protocol):
    """Engines that beat as time passes, unless they hang or are dead. lease_s: who was not heard of longer is none."""

    lease_s: float

    def join(self, name: str) -> Membership: ...

    def hang(self, name: str) -> None:
        """Its deciding thread stops until go_on()."""

    def go_on(self, name: str) -> None: ...

    def die(self, name: str) -> None:
        """The process, without a word."""

    def cut_off(self) -> None:
        """From now on nobody sees the ring."""

    def rest(self, seconds: float) -> None: ...


class SimBench:
    lease_s = 10.0

    def __init__(self) -> None:
        self._agenda = Agenda()
        self._ring = Ring(self._agenda)
        self._lives: dict[str, Life] = {}

    def join(self, name: str) -> Membership:
        self._lives[name] = Life(self._agenda, name)
        return SimMembership(self._ring, self._lives[name])

    def hang(self, name: str) -> None:
        self._lives[name].freeze(1e6)

    def go_on(self, name: str) -> None:
        """A simulated process wakes at a time that is known before; a new life of that name is the same to the ring."""
        self._lives[name].kill()
        self.join(name)

    def die(self, name: str) -> None:
        self._lives[name].kill()

    def cut_off(self) -> None:
        self._ring.unseen_until = self._agenda.now + 1e6

    def rest(self, seconds: float) -> None:
        until = self._agenda.now + seconds
        while self._agenda.step(until):
            pass


class ToozBench:
    lease_s = 2.0

    def __init__(self, url: str, group: str) -> None:
        self._url, self._group = url, group
        self._joined: dict[str, ToozMembership] = {}
        self._still: set[str] = set()

    def join(self, name: str) -> Membership:
        group = f"group-of-{self._group}"
        self._joined[name] = ToozMembership(self._url, name.encode(), group, lease_s=self.lease_s, call_timeout_s=1.0)
        self._joined[name].beat()
        return self._joined[name]

    def hang(self, name: str) -> None:
        self._still.add(name)

    def go_on(self, name: str) -> None:
        self._still.discard(name)

    die = hang

    def cut_off(self) -> None:
        self._url = f"etcd3+http://127.0.0.1:{free_port()}"

    def rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for name in self._joined.keys() - self._still:
                self._joined[name].beat()
            time.sleep(0.05)

    def end(self) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ToozMembership.stop, self._joined.values()))


@pytest.fixture(params=["sim", "file", "etcd"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "sim":
        yield SimBench()
        return
    over_etcd = request.param == "etcd"
    url = f"etcd3+http://{request.getfixturevalue('etcd')}" if over_etcd else f"file://{tmp_path}/members"
    begun = ToozBench(url, request.node.name)
    yield begun
    begun.end()


def owned(member: Membership) -> set[str]:
    return {segment for segment in SEGMENTS if member.should_own(segment)}


def settled(bench: Bench) -> None:
    bench.rest(bench.lease_s / 2)


def share(members: list[Membership]) -> None:
    """Everything has an owner, and one only."""
    shares = [owned(member) for member in members]
    assert set.union(*shares) == set(SEGMENTS)
    assert sum(map(len, shares)) == len(SEGMENTS) and all(shares)


def test_alone_it_owns_all(bench: Bench) -> None:
    one = bench.join("one")
    assert owned(one) == set(SEGMENTS)
    settled(bench)
    assert owned(one) == set(SEGMENTS)


def test_they_share(bench: Bench) -> None:
    engines = [bench.join(name) for name in ("a", "b", "c")]
    settled(bench)
    share(engines)


def test_the_dead_are_replaced(bench: Bench) -> None:
    engines = [bench.join(name) for name in ("a", "b", "c")]
    settled(bench)
    bench.die("c")
    bench.rest(bench.lease_s * 2.5)
    share(engines[:2])


def test_one_that_hangs_drops_out_and_comes_back(bench: Bench) -> None:
    alive, hung = bench.join("alive"), bench.join("hung")
    settled(bench)
    share([alive, hung])
    bench.hang("hung")
    bench.rest(bench.lease_s * 2.5)
    assert owned(alive) == set(SEGMENTS)
    assert owned(hung) == set(SEGMENTS), "it cannot tell"
    bench.go_on("hung")
    settled(bench)
    share([alive, hung])


def test_without_a_ring_all_is_owned(bench: Bench) -> None:
    bench.cut_off()
    began = time.monotonic()
    lost = bench.join("lost")
    for _ in range(20):
        lost.beat()
    assert owned(lost) == set(SEGMENTS)
    assert time.monotonic() - began < 1.5
