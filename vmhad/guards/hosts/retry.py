# SPDX-License-Identifier: Apache-2.0
"""STUCK: when what was missing may be there, and all is tried again.

Rule kept: nothing is tried in vain. There is somebody to ask who may answer otherwise than before, or an order.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf

from vmhad.guards.hosts import cut_storage, self_fenced, word
from vmhad.guards.hosts.judge import ROUNDING_S
from vmhad.guards.hosts.power_off import FELL_WITH_IT
from vmhad.guards.hosts.recover import BARE
from vmhad.guards.hosts.settle import LEFT
from vmhad.kernel.case import Case, Move
from vmhad.kernel.evidence import SILENCE_S
from vmhad.kernel.incident import Event
from vmhad.kernel.signal import Channel, Reading
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.kernel.verdict import Judgement

AGAIN = "what was missing may be there now: tried again"
LOOK_AGAIN_S = 5.0
RETRY_MAX_S = 600.0


def stuck(case: Case, now: float) -> Move:
    """Tries again after a pause that doubles, provided that there is a BMC to ask, or a storage that may take a cut by
    now; else by order only."""
    incident = case.incident
    since = incident.turns[-1].at
    pause_s = pause_of(case)
    power = case.evidence.reading(Channel.POWER, now, case.policy.channel_stale_s)
    rests = partial(Move, wake_at=now + LOOK_AGAIN_S, stands_until=_power_stands_until(case, power))
    said, proof = word.taken(case, now)
    if "retry" in case.orders or proof is not None:
        return Move("ordered to try again", Event.RETRIED, _replanned(case))
    if said is not None:
        return Move(incident.because, steps=(said,), held=said.because, wake_at=now + LOOK_AGAIN_S)
    if not _is_proven(case) and self_fenced.proof(case, now) is not None:
        return Move(AGAIN, Event.RETRIED, _replanned(case))
    if power is Reading.ON and incident.proof is not None and not _may_be_proven_better(case, now):
        held = "it was switched on again: waits for its nova-compute, or for an order (retry)"
        return rests(incident.because, held=held)
    if power is Reading.UNKNOWN and not _may_be_cut_off(case):
        return rests(incident.because)
    if any(FELL_WITH_IT in step.args for step in case.steps):
        return rests(f"{incident.because}; only an order (retry) goes on from here")
    if _is_proven(case) and not any(_may_go_better(case, step) for step in case.steps):
        return rests(incident.because)
    if now < since + pause_s:
        until = min(since + pause_s, _power_stands_until(case, power))
        return rests(incident.because, held=case.hold, stands_until=until)
    if case.hold:
        return rests(incident.because, held=case.hold)
    is_well = case.verdict.serves or (case.verdict.lives and case.verdict.judgement is not Judgement.FAILED)
    if incident.proof is None and is_well and not cut_storage.waits_to_be_clean(case, now):
        held = f"{case.verdict.because}: its next heartbeat, or its death, decides"
        return rests(incident.because, held=held)
    return Move(AGAIN, Event.RETRIED, _replanned(case))


def pause_of(case: Case) -> float:
    """How long it rests before it is fenced again by itself."""
    return min(case.policy.fence_retry_s * 2.0 ** max(0, case.incident.round - 1), RETRY_MAX_S)


def _may_be_proven_better(case: Case, now: float) -> bool:
    """It was only cut off, and a VM waits for more than that; or it is heard, and its old guests may be there. Else its
    power is not touched again: who switched it on may be about to mend it."""
    proof = case.incident.proof
    if proof is None or proof.is_whole:
        return False
    return any(BARE in step.args for step in case.steps) or is_heard(case, proof.at, now)


def _may_be_cut_off(case: Case) -> bool:
    """A storage did not show that it is, and what it would show would prove something."""
    is_dead = case.verdict.judgement is Judgement.FAILED
    return is_dead and case.policy.storage_only_proof and cut_storage.was_in_vain(case)


def _is_proven(case: Case) -> bool:
    """It was proven off in this round, and what is missing is missing since. An older proof was lost, and is what is
    missing."""
    proof = case.incident.proof
    return proof is not None and proof.is_whole and proof.round == case.incident.round


def _power_stands_until(case: Case, power: Reading) -> float:
    """What its BMC said is believed until it is stale; that nothing is known of it stands until something is."""
    if power is Reading.UNKNOWN:
        return inf
    return case.evidence.seen[Channel.POWER].at + case.policy.channel_stale_s - ROUNDING_S


def _may_go_better(case: Case, step: Step) -> bool:
    """A VM that was tried in vain may be tried again, so may what Nova did not take in this round; one that was never
    tried, or is to be left alone, needs another policy, or an order."""
    of_vms = step.verb in (Verb.EVACUATE, Verb.RESTORE_STATE)
    told_nova = step.id == f"{case.incident.id}/{case.incident.round}/{Verb.FORCE_DOWN.value}"
    has_failed = step.state is StepState.FAILED and step.attempt > 0
    return (of_vms or told_nova) and has_failed and LEFT not in step.args


def _replanned(case: Case) -> tuple[Step, ...]:
    return tuple(
        replace(step, state=StepState.PLANNED, attempt=0, not_before=0.0)
        for step in case.steps
        if step.verb is Verb.EVACUATE and step.state is StepState.FAILED
    )


def is_heard(case: Case, since: float, now: float) -> bool:
    """Since then, and now. The proof of another engine's time has no time of ours (it is 0.0), and its host may have
    been heard by us before it died."""
    return since < case.evidence.heard_at and now - case.evidence.heard_at <= SILENCE_S
