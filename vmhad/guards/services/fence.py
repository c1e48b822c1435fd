# SPDX-License-Identifier: Apache-2.0
"""From the suspicion that a service of a living host failed to the proof that it may be restarted.

There is nothing to switch off: systemd runs a service once, and ends what is left of it before it starts it anew. So
the proof is a beat made after the incident began, which says that it still is so.
"""

from __future__ import annotations

from vmhad.guards.services.judge import Row, judge, words_of
from vmhad.kernel.alone import OWNED, spent
from vmhad.kernel.beat import UnitState
from vmhad.kernel.case import Move, ServiceCase
from vmhad.kernel.incident import Event, State
from vmhad.kernel.order import CLOSED_BY_ORDER
from vmhad.kernel.proof import Proof
from vmhad.kernel.step import Answer, Observation
from vmhad.kernel.verdict import Judgement

LOOK_AGAIN_S = 1.0
# What nobody can tell for so long, or what is being started for so long, is left to others.
UNTOLD_S = 120.0


def suspect(case: ServiceCase, now: float) -> Move:
    """SUSPECTED: did it fail, and is it ours to restart?"""
    if "close" in case.orders:
        return Move(CLOSED_BY_ORDER, Event.CLOSED)
    if case.owner:
        return Move(f"{OWNED}: {case.owner}", Event.DISMISSED)
    row = judge(case.health, case.incident.service, case.policy)
    if row.judgement is Judgement.SUSPECT:
        return _wait(case, row, now)
    if row.judgement is Judgement.HEALTHY:
        return Move(left(case, row), Event.DISMISSED)
    held = _needs(case) or case.hold
    if held:
        return Move(case.incident.because, held=held, wake_at=now + LOOK_AGAIN_S)
    return Move(row.because, Event.FAILED)


def fence(case: ServiceCase, now: float) -> Move:
    """FENCING: the proof, or what speaks against it."""
    if case.owner:
        return Move(f"{OWNED}: {case.owner}", Event.WITHDRAWN)
    if "close" in case.orders:
        return Move(CLOSED_BY_ORDER, Event.WITHDRAWN)
    row = judge(case.health, case.incident.service, case.policy)
    if row.judgement is Judgement.SUSPECT:
        return _wait(case, row, now)
    if row.judgement is Judgement.HEALTHY:
        return Move(left(case, row), Event.WITHDRAWN)
    if case.health.at <= _since(case):
        return Move("its agent is heard once more before it is restarted", wake_at=now + LOOK_AGAIN_S)
    why_not = _spent(case)
    if why_not:
        return Move(why_not, Event.EXHAUSTED)
    held = _needs(case) or case.hold or _moves(case, now)
    if not held and case.under_way >= case.policy.service_restarts_max:
        held = f"restarts of services under way: {case.under_way}, as many as service_restarts_max allows"
    if held:
        return Move(case.incident.because, held=held, wake_at=now + LOOK_AGAIN_S)
    seen = Observation(case.health.at, Answer.SO, words_of(case.health), f"its systemd says {words_of(case.health)}")
    proof = Proof(case.incident.host, "service_down", case.health.at, False, case.incident.round, (seen,))
    return Move(f"proven: {row.because}", Event.PROVEN, proof=proof)


def left(case: ServiceCase, row: Row) -> str:
    return f"left alone: {row.because}; its systemd says {words_of(case.health)}" if row.wish else row.because


def _needs(case: ServiceCase) -> str:
    """'' or what comes first."""
    return f"{case.health.broken} of its host does not run, and it needs that" if case.health.broken else ""


def _moves(case: ServiceCase, now: float) -> str:
    """'' or what a restart would end half-way: Nova would not know on which of the two hosts that guest is. A live
    migration has no limit of its own, and what hangs for ever is no reason to wait for ever."""
    unit, most_s = case.health.unit, case.policy.evacuate_deadline_s
    runs = unit is not None and unit.state is UnitState.RUNS
    if not case.leaving or not runs or now >= case.incident.opened_at + most_s:
        return ""
    names = ", ".join(case.leaving)
    return f"{names} is just moving away: it is restarted then, or after evacuate_deadline_s = {most_s:g} s"


def _since(case: ServiceCase) -> float:
    return case.incident.turns[-1].at if case.incident.round > 1 else case.incident.opened_at


def _wait(case: ServiceCase, row: Row, now: float) -> Move:
    if now > case.incident.turns[-1].at + UNTOLD_S:
        event = Event.DISMISSED if case.incident.state is State.SUSPECTED else Event.WITHDRAWN
        return Move(f"left alone: {row.because}", event)
    return Move(case.incident.because, held=row.because, wake_at=now + LOOK_AGAIN_S)


def _spent(case: ServiceCase) -> str:
    return spent(case.incident, case.starts, case.policy.service_starts_max, case.policy.service_window_s)
