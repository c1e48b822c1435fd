# SPDX-License-Identifier: Apache-2.0
"""The last level of a fence: an operator says that the host is down.

Rule kept: it is held against what is seen. Whoever says so of a host that is heard, or has power, is mistaken, and is
told so; the order is used up either way, for what it rests on is true at one time.
"""

from __future__ import annotations

from dataclasses import replace

from vmhad.kernel.case import Case
from vmhad.kernel.evidence import SILENCE_S
from vmhad.kernel.proof import WORD, Proof
from vmhad.kernel.signal import Channel, Reading
from vmhad.kernel.step import Answer, Observation, Step, StepState, Verb


def taken(case: Case, now: float) -> tuple[Step | None, Proof | None]:
    """What becomes of the operator's word in this round: the step that keeps it, and the proof that it is; (None, None)
    where nobody said anything."""
    if case.word is None:
        return None, None
    said = f"{case.word.by} says that it is down: {case.word.why}"
    step_id = f"{case.incident.id}/{case.incident.round}/{Verb.CONFIRM_DOWN.value}/{case.word.id}"
    args = {"by": case.word.by, "why": case.word.why}
    seen = Observation(now, Answer.SO, "down", said)
    step = Step(step_id, case.incident.id, Verb.CONFIRM_DOWN, case.incident.host, args, ended_at=now, observed=(seen,))
    if mistaken := belied(case, now):
        return replace(step, state=StepState.FAILED, because=f"not taken, for {mistaken}; {said}"), None
    proof = Proof(case.incident.host, WORD, now, False, case.incident.round, (seen,))
    return replace(step, state=StepState.DONE, because=said), proof


def belied(case: Case, now: float) -> str:
    """'' or what speaks against an operator who says that the host is down."""
    if case.evidence.reading(Channel.POWER, now, case.policy.channel_stale_s) is Reading.ON:
        return "its power reads ON"
    if case.verdict.serves or now - case.evidence.beat_at < SILENCE_S:
        return "it is heard"
    return ""
