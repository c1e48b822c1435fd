# SPDX-License-Identifier: Apache-2.0
"""What a Hands behind the port does: ONE list of cases for every world.

tests/ports/test_hands_contract.py runs CASES over a real RabbitMQ with signed orders, and on the simulated agents.

| what                                                                     | case                        |
|--------------------------------------------------------------------------|-----------------------------|
| an order is done on its host, once, and on no other                      | done_where_it_was_meant     |
| what the agent declines is Refused, in its words, and nothing is changed | refused                     |
| a restart of a service that was started anew since is Refused            | another_start_runs          |
| an agent that is gone, or hangs: Unanswered, within the limit            | agent_gone, agent_hangs     |
| an answer that is lost: Unanswered, though it was done                   | answer_lost                 |
| a host that there is not is Refused                                      | no_such_host                |
| a bus that is away: Unanswered, within the limit; it comes back          | bus_away_and_back           |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pytest

from vmhad.ports import Hands, Refused, Unanswered

# Two guests of h1: one that an I/O error paused, one that its user did.
FROZEN, PAUSED = "6a1b3c00-0000-4000-8000-000000000001", "6a1b3c00-0000-4000-8000-000000000002"


class Bench(Protocol):
    """A bus, the hosts h1 and h2 with an agent each, and an engine's hands. limit_s: of one call."""

    hands: Hands
    limit_s: float

    def done(self, host: str) -> list[str]:
        """What was done there by order, sorted: «restart nova-compute», «resume ID»."""

    def known(self, host: str) -> str:
        """Which start of nova-compute runs there."""

    def starts_anew(self, host: str) -> None:
        """Somebody there restarts nova-compute."""

    def stop_agent(self, host: str) -> None: ...

    def start_agent(self, host: str) -> None: ...

    def hang_agent(self, host: str) -> None: ...

    def lose_answers(self, host: str) -> None: ...

    def go_away(self) -> None: ...

    def come_back(self) -> None: ...

    def took_s(self, call: Callable[[], None]) -> float:
        """How long the call took, whatever it raised."""


@dataclass(frozen=True)
class Case:
    name: str
    run: Callable[[Bench], None]


CASES: list[Case] = []


def case(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
    CASES.append(Case(run.__name__, run))
    return run


@case
def done_where_it_was_meant(bench: Bench) -> None:
    bench.hands.resume_guest("h1", FROZEN)
    bench.hands.restart_service("h1", "nova-compute", bench.known("h1"))
    assert bench.done("h1") == ["restart nova-compute", f"resume {FROZEN}"]
    assert bench.done("h2") == []


@case
def refused(bench: Bench) -> None:
    with pytest.raises(Refused, match="paused"):
        bench.hands.resume_guest("h1", PAUSED)
    with pytest.raises(Refused):
        bench.hands.restart_service("h1", "cron", bench.known("h1"))
    assert bench.done("h1") == []


@case
def another_start_runs(bench: Bench) -> None:
    known = bench.known("h1")
    bench.starts_anew("h1")
    with pytest.raises(Refused, match="another start"):
        bench.hands.restart_service("h1", "nova-compute", known)
    assert bench.done("h1") == []


def _unanswered(bench: Bench) -> float:
    def call() -> None:
        with pytest.raises(Unanswered):
            bench.hands.resume_guest("h1", FROZEN)

    return bench.took_s(call)


@case
def agent_gone(bench: Bench) -> None:
    bench.stop_agent("h1")
    assert _unanswered(bench) <= bench.limit_s + 0.5
    bench.start_agent("h1")
    bench.hands.resume_guest("h1", FROZEN)
    assert bench.done("h1") == [f"resume {FROZEN}"]


@case
def agent_hangs(bench: Bench) -> None:
    bench.hang_agent("h1")
    assert _unanswered(bench) <= bench.limit_s + 0.5
    bench.hands.restart_service("h2", "nova-compute", bench.known("h2"))
    assert bench.done("h2") == ["restart nova-compute"]


@case
def answer_lost(bench: Bench) -> None:
    bench.lose_answers("h1")
    assert _unanswered(bench) <= bench.limit_s + 0.5
    assert bench.done("h1") == [f"resume {FROZEN}"]


@case
def no_such_host(bench: Bench) -> None:
    with pytest.raises(Refused, match="h9"):
        bench.hands.resume_guest("h9", FROZEN)


@case
def bus_away_and_back(bench: Bench) -> None:
    bench.hands.resume_guest("h1", FROZEN)
    bench.go_away()
    assert _unanswered(bench) <= bench.limit_s + 0.5
    bench.come_back()
    bench.hands.restart_service("h1", "nova-compute", bench.known("h1"))
    assert bench.done("h1") == ["restart nova-compute", f"resume {FROZEN}"]
