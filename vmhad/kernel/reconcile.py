# SPDX-License-Identifier: Apache-2.0
"""The heart: one incident and what is known -> what to write and do next. A function of values.

Reconciling twice with the same input changes nothing the second time. Every guard is asked through the same questions;
the rule that nothing is recovered without a held proof is kept here, once, for all of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, TypeVar

from vmhad.kernel import incident as life
from vmhad.kernel.case import Decision, Move
from vmhad.kernel.incident import Event, Incident, State
from vmhad.kernel.proof import Proof, holds
from vmhad.kernel.step import Step

# The longest way through the table in one go is SUSPECTED, FENCING, RECOVERING, RECOVERED.
MOVES_MAX = 4
LOOK_AGAIN_S = 60.0


class Subject(Protocol):
    """A case of any kind: what the kernel itself asks of it. life_at: the newest sign that what failed lives."""

    @property
    def incident(self) -> Incident: ...

    @property
    def life_at(self) -> float: ...

    def after(self: C, incident: Incident, moved: tuple[Step, ...], proof: Proof | None) -> C: ...


C = TypeVar("C", bound=Subject)
T_contra = TypeVar("T_contra", contravariant=True)


class Guard(Protocol[T_contra]):
    """judge lives beside it; these answer for one state each. All pure."""

    def suspect(self, case: T_contra, now: float) -> Move: ...

    def fence(self, case: T_contra, now: float) -> Move: ...

    def recover(self, case: T_contra, now: float) -> Move: ...

    def rest(self, case: T_contra, now: float) -> Move:
        """STUCK and RECOVERED: is there a reason to go on?"""

    def lift(self, case: T_contra, now: float) -> Move: ...


def reconcile(case: C, guard: Guard[C], now: float) -> Decision:
    """Runs the incident as far as it goes without new knowledge."""
    changed: dict[str, Step] = {}
    before = case.incident
    move = Move(case.incident.because)
    for _ in range(MOVES_MAX):
        if not case.incident.is_open:
            break
        move = _ask(case, guard, now)
        changed.update((step.id, step) for step in move.steps)
        case = _after(case, move, now)
        if move.event is None:
            break
    wake_at = move.wake_at or now + LOOK_AGAIN_S
    if case.incident is before and before.wake_at > 0.0 and not changed:
        # A new time to look again is no news.
        return Decision(before, (), move.because, wake_at, move.needs_inventory, move.stands_until, move.asks)
    incident = replace(case.incident, wake_at=wake_at if case.incident.is_open else 0.0)
    stands_until = 0.0 if changed or case.incident is not before else move.stands_until
    steps = tuple(changed.values())
    return Decision(incident, steps, move.because, wake_at, move.needs_inventory, stands_until, move.asks)


def _ask(case: C, guard: Guard[C], now: float) -> Move:
    state = case.incident.state
    if state is State.SUSPECTED:
        return guard.suspect(case, now)
    if state is State.FENCING:
        return guard.fence(case, now)
    if state is State.RECOVERING:
        if not holds(case.incident.proof, case.incident.round, case.life_at):
            return Move("a sign of life came after its proof: it is proven again first", Event.PROOF_LOST)
        return guard.recover(case, now)
    if state is State.DRAINING:
        # Nothing was cut, and so there is nothing to prove: what lives is moved alive.
        return guard.recover(case, now)
    if state is State.LIFTING:
        return guard.lift(case, now)
    return guard.rest(case, now)


def _after(case: C, move: Move, now: float) -> C:
    incident = case.incident
    if move.event is None and not move.steps and move.proof is None and move.held == incident.held:
        return case
    if move.proof is not None:
        incident = replace(incident, proof=move.proof)
    if move.event is not None:
        incident = life.turn(incident, move.event, now, move.because)
    if move.held != incident.held:
        incident = replace(incident, held=move.held)
    return case.after(incident, move.steps, move.proof)
