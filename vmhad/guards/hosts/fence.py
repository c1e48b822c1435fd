# SPDX-License-Identifier: Apache-2.0
"""From «it is dead» to «it is proven to run nothing, or to write nothing».

The levels: its power and its shared storages, side by side or one after the other as policy says; its own watchdog, by
a policy that trusts it; an operator's word at any time. The first proof wins, the others go on beside the recovery, and
what was begun is completed. That a host writes a dump of its panicked kernel may put off the first act, and proves
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf

from vmhad.guards.hosts import cut_storage, power_off, self_fenced, word
from vmhad.guards.hosts.columns import has_panicked
from vmhad.guards.hosts.power_off import FELL_WITH_IT
from vmhad.kernel.beat import DUMP_HEARD_S
from vmhad.kernel.case import Case, Move
from vmhad.kernel.incident import Event
from vmhad.kernel.order import CLOSED_BY_ORDER
from vmhad.kernel.proof import Proof
from vmhad.kernel.signal import Channel
from vmhad.kernel.step import Step, StepState
from vmhad.kernel.verdict import Judgement

LOOK_AGAIN_S = 5.0


def suspect(case: Case, now: float) -> Move:
    """SUSPECTED: dismiss, hold with a reason, or begin the fence. The verdict says all that counts of the evidence."""
    verdict = case.verdict
    if "close" in case.orders:
        return Move(CLOSED_BY_ORDER, Event.CLOSED)
    if verdict.serves:
        if case.fallen:
            return Move(f"it is back without {len(case.fallen)} of its VMs", Event.RETURNED)
        if case.in_want:
            return Move(f"it is back, and {len(case.in_want)} of its VMs are still in want", Event.RETURNED)
        return Move(verdict.because, Event.DISMISSED)
    said, proof = word.taken(case, now)
    if said is not None:
        # Taken it is a proof, and so belongs to the fence.
        steps, event = ((), Event.FAILED) if proof is not None else ((said,), None)
        return Move(said.because, event, steps, held="" if event else said.because, wake_at=now + LOOK_AGAIN_S)
    if verdict.judgement is not Judgement.FAILED:
        return Move(verdict.because, held=verdict.because, wake_at=now + LOOK_AGAIN_S, stands_until=inf)
    if case.hold:
        return Move(verdict.because, held=case.hold, wake_at=now + LOOK_AGAIN_S, stands_until=inf)
    if now < (until := _dump_until(case, now)):
        held = f"it writes a dump of its panicked kernel; kdump_wait_s = {case.policy.kdump_wait_s:g} s waits for that"
        return Move(verdict.because, held=held, wake_at=min(until, now + LOOK_AGAIN_S), stands_until=until)
    return Move(verdict.because, Event.FAILED)


def _dump_until(case: Case, now: float) -> float:
    """Until when its dump is waited for, unless another message of it comes; 0.0 if it is not. Off, it writes none."""
    if case.verdict.is_off or not case.policy.kdump_wait_s or not has_panicked(case.evidence, case.policy, now):
        return 0.0
    said = case.evidence.seen[Channel.DUMP]
    return min(said.first_at + case.policy.kdump_wait_s, said.at + DUMP_HEARD_S)


def fence(case: Case, now: float) -> Move:
    """FENCING: all levels that are due, until one of them proves it; what is missing when none can."""
    said, proof = word.taken(case, now)
    case = _with(case, (said,) if said else ())
    if proof is not None:
        steps = (*_kept(said), *_given_up(case, now, "an operator says that it is down"))
        return Move(f"proven: {proof.observed[0].text}", Event.PROVEN, steps, proof)
    cuts = cut_storage.go_on(case, power_off.the_step(case), now)
    case = _with(case, cuts)
    move = power_off.prove(case, now)
    steps = (*_kept(said), *cuts, *move.steps)
    if move.event in (None, Event.EXHAUSTED) and not _hit_another(move.steps):
        if (reset := self_fenced.proof(case, now)) is not None:
            given_up = _given_up(_with(case, move.steps), now, "its watchdog has reset it")
            return Move(f"proven: {reset.observed[0].text}", Event.PROVEN, (*steps, *given_up), reset)
        by_storage = cut_storage.proof(case, now)
        if by_storage is not None:
            where = ", ".join(by_storage.backends)
            return Move(f"proven: cut off from {where}", Event.PROVEN, steps, by_storage)
        if move.event is Event.EXHAUSTED and cut_storage.is_open(case):
            return Move(f"{move.because}; its storages are still being cut", steps=steps, wake_at=now + 1.0)
        if move.event is Event.EXHAUSTED:
            return replace(move, because=f"{move.because}{cut_storage.missing(case)}", steps=steps)
    return replace(move, steps=steps)


def go_on(case: Case, now: float) -> tuple[tuple[Step, ...], Proof | None]:
    """RECOVERING: what becomes of the levels that were not proven first. A proof that is better than the held one:
    of the whole host, or of more of its storages."""
    held = case.incident.proof
    power = power_off.the_step(case)
    steps = cut_storage.go_on(case, power, now) if cut_storage.is_open(case) else ()
    if held is None or held.is_whole:
        return steps, None
    said, proof = word.taken(case, now)
    steps = (*_kept(said), *steps)
    case = _with(case, steps)
    if proof is not None:
        return (*steps, *_given_up(case, now, "an operator says that it is down")), proof
    if (reset := self_fenced.proof(case, now)) is not None:
        return (*steps, *_given_up(case, now, "its watchdog has reset it")), reset
    if power is not None and power.state is StepState.STARTED:
        move = power_off.prove(case, now)
        steps = (*steps, *move.steps)
        if move.proof is not None:
            return steps, move.proof
    by_storage = cut_storage.proof(case, now)
    return steps, by_storage if by_storage is not None and by_storage.backends != held.backends else None


def is_going_on(case: Case) -> bool:
    """The whole host may still be proven in this round."""
    step = power_off.the_step(case)
    return step is not None and step.state is StepState.STARTED


def _given_up(case: Case, now: float, because: str) -> tuple[Step, ...]:
    step = power_off.the_step(case)
    if step is None or step.state is not StepState.STARTED:
        return ()
    return (replace(step, state=StepState.FAILED, ended_at=now, because=because),)


def _hit_another(steps: Iterable[Step]) -> bool:
    return any(FELL_WITH_IT in step.args for step in steps)


def _kept(said: Step | None) -> tuple[Step, ...]:
    return (said,) if said is not None else ()


def _with(case: Case, changed: tuple[Step, ...]) -> Case:
    if not changed:
        return case
    steps = {step.id: step for step in case.steps}
    steps.update((step.id, step) for step in changed)
    return replace(case, steps=tuple(steps.values()))
