# SPDX-License-Identifier: Apache-2.0
"""What a Nudges behind the port does: ONE list of cases for every world.

tests/ports/test_nudges_contract.py runs CASES on the simulated queue, tests/cloud/test_nudges_contract_on_lab.py over a
real RabbitMQ. Lost, doubled, late and forged nudges are allowed by the port; what it may not do is raise, block, or
believe.

| what                                                                      | case                      |
|---------------------------------------------------------------------------|---------------------------|
| a change is heard of, and wakes                                           | heard_and_woken           |
| doubled ones are one; another subject is another                          | one_a_subject             |
| read takes them: they are not there twice                                 | read_takes                |
| two engines on one queue: each nudge reaches one of them                  | shared_by_two             |
| a forged one is a nudge like any other, and does not spoil the next       | forged                    |
| a bus that is away: nothing, at once                                      | bus_away                  |
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vmhad.ports import Nudge, Nudges


class Bench(Protocol):
    """A message bus that Nova writes to. woken: how often an engine was."""

    woken: int

    def engine(self) -> Nudges:
        """Another engine that listens."""

    def say(self, host: str, server: str, event: str) -> None:
        """Nova notifies of an event about a server, or about a host where server is ''."""

    def garbage(self) -> None:
        """Somebody else notifies of what no Nova would."""

    def go_away(self) -> None:
        """Engines made from now on have no bus to listen to, and nothing that was said comes to them."""

    def wait(self, what: str, holds: Callable[[], bool]) -> None: ...


@dataclass(frozen=True)
class Case:
    name: str
    run: Callable[[Bench], None]


CASES: list[Case] = []


def case(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
    CASES.append(Case(run.__name__, run))
    return run


class Ear:
    """All that one engine has heard."""

    def __init__(self, bench: Bench, nudges: Nudges) -> None:
        self._bench, self._nudges = bench, nudges
        self.heard: list[Nudge] = []

    def hears(self, host: str, server: str = "") -> bool:
        self.heard.extend(self._nudges.read())
        return any((one.host, one.server) == (host, server) for one in self.heard)

    def until(self, host: str, server: str = "") -> None:
        self._bench.wait(f"a nudge about {host} {server}", lambda: self.hears(host, server))


@case
def heard_and_woken(bench: Bench) -> None:
    ear = Ear(bench, bench.engine())
    bench.say("h1", "", "service.update")
    ear.until("h1")
    assert bench.woken
    bench.say("h1", "vm", "instance.rebuild.end")
    ear.until("h1", "vm")


@case
def one_a_subject(bench: Bench) -> None:
    nudges = bench.engine()
    before = bench.woken
    for _ in range(3):
        bench.say("h1", "vm", "instance.rebuild.start")
    bench.say("h1", "vm", "instance.rebuild.end")
    bench.say("h2", "", "service.update")
    bench.wait("all five have come", lambda: bench.woken >= before + 5)
    heard = tuple(nudges.read())
    assert {(one.host, one.server) for one in heard} == {("h1", "vm"), ("h2", "")}
    assert len(heard) == 2
    assert next(one for one in heard if one.server).why == "instance.rebuild.end", "the newest"


@case
def read_takes(bench: Bench) -> None:
    nudges = bench.engine()
    before = bench.woken
    bench.say("h1", "", "service.update")
    bench.wait("it has come", lambda: bench.woken > before)
    assert len(tuple(nudges.read())) == 1
    assert tuple(nudges.read()) == ()


@case
def shared_by_two(bench: Bench) -> None:
    one, other = Ear(bench, bench.engine()), Ear(bench, bench.engine())
    hosts = [f"host-{number}" for number in range(12)]
    for host in hosts:
        bench.say(host, "", "service.update")
    bench.wait("each was heard by one", lambda: all([one.hears(host) or other.hears(host) for host in hosts]))
    assert len(one.heard) + len(other.heard) == len(hosts)


@case
def forged(bench: Bench) -> None:
    ear = Ear(bench, bench.engine())
    bench.garbage()
    bench.say("nosuchhost", "", "service.update")
    ear.until("nosuchhost")
    bench.say("h1", "", "service.update")
    ear.until("h1")
    assert {one.host for one in ear.heard} == {"nosuchhost", "h1"}


@case
def bus_away(bench: Bench) -> None:
    bench.go_away()
    began = time.monotonic()
    nudges = bench.engine()
    bench.say("h1", "", "service.update")
    assert tuple(nudges.read()) == ()
    assert time.monotonic() - began < 1.0
