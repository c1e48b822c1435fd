# SPDX-License-Identifier: Apache-2.0
"""What the guards of all that fails alone on a living host share: a VM or a service, restarted where it is.

Its host's incident comes first, an operator's order next; a restart is concluded by a look at what it left, and tried
so often in a window.
"""

from __future__ import annotations

from dataclasses import replace

from vmhad.kernel.case import Move
from vmhad.kernel.incident import Event, Incident, State
from vmhad.kernel.step import Answer, Step, StepState

OWNED = "its host's incident has it"


def concluded(step: Step, did: str, now: float, *, call_limit_s: float, limit_s: float, look_again_s: float) -> Move:
    """What the newest look says of a STARTED step. did: what it is, in the past. call_limit_s: so long after a call of
    which nothing is seen it was lost on its way. limit_s: how long all of it may take."""
    newest = step.observed[-1]
    if newest.answer is Answer.SO:
        done = replace(step, state=StepState.DONE, ended_at=now, because=newest.text)
        return Move(newest.text, Event.RECOVERED, (done,))
    if newest.answer is Answer.FAILED:
        return Move(newest.text, Event.PROOF_LOST, (failed(step, newest.text, now),))
    was_lost = newest.answer is Answer.NOT_SO and step.acts and newest.at > step.acted_at + call_limit_s
    if was_lost or now > step.started_at + limit_s:
        why = f"{did} in vain: {newest.text}" if was_lost else f"not finished in time: {newest.text}"
        return Move(why, Event.PROOF_LOST, (failed(step, why, now),))
    return Move(newest.text, wake_at=now + look_again_s)


def failed(step: Step, because: str, now: float) -> Step:
    return replace(step, state=StepState.FAILED, ended_at=now, because=because)


def counted_from(incident: Incident) -> float:
    """When its tries began to count: an order to try again goes past what was tried before it."""
    return incident.turns[_first_counted(incident)].at


def spent(incident: Incident, starts: int, most: int, window_s: float, resumed: int = 0) -> str:
    """'' or why it is not tried again. starts: within window_s. resumed: of the tries that count, those that were no
    restart."""
    first = _first_counted(incident)
    if starts >= most and incident.turns[first].state is not State.STUCK:
        return f"it was restarted {starts} times in {window_s / 60:g} minutes and failed each time"
    tries = sum(one.state is State.RECOVERING for one in incident.turns[first:]) - resumed
    return f"tried {tries} times: {incident.because}" if tries >= most else ""


def _first_counted(incident: Incident) -> int:
    stuck = [index for index, one in enumerate(incident.turns) if one.state is State.STUCK]
    return stuck[-1] if stuck else 0
