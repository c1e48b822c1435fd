# SPDX-License-Identifier: Apache-2.0
"""The restart of a VM on its own host, and what is thought of it afterwards.

Its user comes first: who acted on it after the last look before the restart keeps what they wanted. A restart that
crossed a user's stop on its way is taken back.
"""

from __future__ import annotations

from dataclasses import replace

from vmhad.guards.instances.fence import LOOK_AGAIN_S
from vmhad.guards.instances.judge import Nova, is_resumed, judge, nova_of
from vmhad.kernel.alone import OWNED, concluded, failed
from vmhad.kernel.case import Move, VmCase
from vmhad.kernel.cloud import ServerState
from vmhad.kernel.incident import Event, State
from vmhad.kernel.order import CLOSED_BY_ORDER
from vmhad.kernel.step import Answer, Step, StepState, Verb, start
from vmhad.kernel.verdict import Judgement

# Nova has a task or an action before it answers; so long after a call without one it was lost on its way.
CALL_LIMIT_S = 15.0
RESTART_LIMIT_S = 180.0
STUCK_LOOK_S = 30.0
STOPS_MAX = 4
# What a look says of a user whose stop a restart of ours crossed on its way.
CROSSED = "crossed"


def recover(case: VmCase, now: float) -> Move:
    """RECOVERING: one restart, or one resumption, a round."""
    if case.owner:
        return Move(f"{OWNED}: {case.owner}", Event.PROOF_LOST)
    back = case.step(_step_id(case, Verb.RESTORE_STATE))
    if back is not None:
        return _given_back(back, now)
    step = case.step(_step_id(case, Verb.RESTART)) or case.step(_step_id(case, Verb.RESUME))
    if step is None and (case.beside or not judge(case).remedy):
        # Another engine proved it, and what it saw is not ours; or another host says since that it has the guest.
        return Move("looked at again before it is restarted", Event.PROOF_LOST)
    if step is None and is_resumed(case):
        return Move(f"resumed on {case.incident.host}", steps=(_resume(case, now),), wake_at=now + LOOK_AGAIN_S)
    if step is None:
        return Move(f"restarted on {case.incident.host}", steps=(_restart(case, now),), wake_at=now + LOOK_AGAIN_S)
    if step.state is not StepState.STARTED:
        return Move(step.because, Event.PROOF_LOST)
    if not step.observed:
        return Move("no answer yet", wake_at=now + LOOK_AGAIN_S)
    return _concluded(case, step, now)


def rest(case: VmCase, now: float) -> Move:
    """RECOVERED: it is over. STUCK: until it runs, until somebody takes it in hand, or until an order."""
    if "close" in case.orders:
        return Move(CLOSED_BY_ORDER, Event.CLOSED)
    if case.incident.state is State.RECOVERED:
        return Move(case.incident.because, Event.CLOSED)
    if case.owner:
        return Move(f"{OWNED}: {case.owner}", Event.WITHDRAWN)
    if "retry" in case.orders:
        return Move("ordered to try again", Event.RETRIED)
    # A reading is asked for again only after a while.
    since = max(case.incident.turns[-1].at, now - STUCK_LOOK_S)
    if case.standing is None or case.standing.at < since:
        return Move(case.incident.because, needs_inventory=since, wake_at=now + STUCK_LOOK_S)
    row = judge(case)
    back = case.step(_step_id(case, Verb.RESTORE_STATE))
    if back is not None and nova_of(case.standing, case.incident.host) is Nova.ACTIVE:
        return Move(case.incident.because, wake_at=now + STUCK_LOOK_S)
    if row.judgement is Judgement.HEALTHY and case.verdict.serves:
        return Move(f"over without us: {row.because}", Event.WITHDRAWN)
    return Move(case.incident.because, wake_at=now + STUCK_LOOK_S)


def lift(case: VmCase, now: float) -> Move:
    """Nothing of a VM is lifted: what comes back is its host."""
    raise AssertionError(f"incident {case.incident.id} of a VM is {case.incident.state.value}")


def _step_id(case: VmCase, verb: Verb) -> str:
    return f"{case.incident.id}/{case.incident.round}/{verb.value}"


def _restart(case: VmCase, now: float) -> Step:
    args = _known(case) | {"how": judge(case).remedy.value}
    return start(Step(_step_id(case, Verb.RESTART), case.incident.id, Verb.RESTART, case.incident.vm), now, args)


def _resume(case: VmCase, now: float) -> Step:
    return start(Step(_step_id(case, Verb.RESUME), case.incident.id, Verb.RESUME, case.incident.vm), now, _known(case))


def _known(case: VmCase) -> dict[str, str]:
    """known: the newest action when it was proven. What comes after it, and is not ours, is its user's."""
    actions = case.standing.actions if case.standing else ()
    known = actions[0].id if actions else ""
    return {"name": case.incident.vm_name, "host": case.incident.host, "known": known}


def _concluded(case: VmCase, step: Step, now: float) -> Move:
    newest = step.observed[-1]
    if newest.answer is Answer.FAILED and newest.reading == CROSSED:
        steps = (failed(step, newest.text, now), _give_back(case, now))
        return Move(newest.text, steps=steps, wake_at=now + LOOK_AGAIN_S)
    return concluded(
        step,
        "resumed" if step.verb is Verb.RESUME else "restarted",
        now,
        call_limit_s=CALL_LIMIT_S,
        limit_s=RESTART_LIMIT_S,
        look_again_s=LOOK_AGAIN_S,
    )


def _give_back(case: VmCase, now: float) -> Step:
    args = {"name": case.incident.vm_name, "state": ServerState.STOPPED.value, "source": "", "target": ""}
    step_id = _step_id(case, Verb.RESTORE_STATE)
    return start(Step(step_id, case.incident.id, Verb.RESTORE_STATE, case.incident.vm), now, args)


def _given_back(step: Step, now: float) -> Move:
    newest = step.observed[-1] if step.observed else None
    if newest is not None and newest.answer is Answer.SO:
        done = replace(step, state=StepState.DONE, ended_at=now, because=newest.text)
        return Move(f"stopped again, as its user wanted: {newest.text}", Event.RECOVERED, (done,))
    because = "its user stopped it meanwhile: it is stopped again"
    if newest is None or now <= max(step.started_at, step.acted_at) + CALL_LIMIT_S:
        return Move(because, wake_at=now + LOOK_AGAIN_S)
    if step.attempt < STOPS_MAX:
        return Move(because, steps=(start(step, now),), wake_at=now + LOOK_AGAIN_S)
    given_up = failed(step, newest.text, now)
    return Move(f"its user's stop could not be restored: {newest.text}", Event.EXHAUSTED, (given_up,))
