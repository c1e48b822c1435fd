# SPDX-License-Identifier: Apache-2.0
"""After the recovery: wait for the host, and take it back in one order.

Its guests went with its power, or can be left on it no more; every evacuation is settled; its storages are given back;
the host is powered on (by policy, or by somebody);
nova-compute cleans its evacuated guests, which turns their migrations from done to completed; then, and only then,
forced_down is cleared, and at last the service is enabled if it was we who disabled it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf

from vmhad.guards.hosts import cut_storage, power_off, settle, word
from vmhad.guards.hosts.leftover import has_fallen, start_what_is_left
from vmhad.guards.hosts.power_off import OF_FENCE
from vmhad.guards.hosts.retry import LOOK_AGAIN_S, RETRY_MAX_S, is_heard, pause_of, stuck
from vmhad.kernel.case import Case, Move
from vmhad.kernel.evidence import SILENCE_S
from vmhad.kernel.incident import Event, Incident, State
from vmhad.kernel.order import CLOSED_BY_ORDER
from vmhad.kernel.policy import AfterFence
from vmhad.kernel.signal import Channel, Reading
from vmhad.kernel.step import Answer, Step, StepState, Verb, start
from vmhad.kernel.verdict import Judgement

ARRIVALS_S = 30.0
FELL_AGAIN = "it fell again, which is a new incident"
OF_RETURN = (Verb.RESTORE_STORAGE, Verb.LIFT_FENCE, Verb.ENABLE, Verb.RESTORE_STATE)


def rest(case: Case, now: float) -> Move:
    """STUCK and RECOVERED: go on when the host is back, when what was missing may have come, or when ordered to.

    Of the evidence it asks two things only: when its nova-compute was heard last, and what its BMC says now.
    """
    if any(one.verb is Verb.CUT_STORAGE for one in case.steps):
        return _rest_of_cut(case, now)
    return _rest(case, now)


def _rest_of_cut(case: Case, now: float) -> Move:
    """Its storages are given back first, as soon as none of its old guests can be left. Before that it is not taken
    back, whoever hears it, and its incident is not closed."""
    settled = settle.settle(case, now, (Verb.RESTORE_STORAGE,))
    given_back = tuple({one.id: one for one in (*settled, *cut_storage.restored(_with(case, settled), now))}.values())
    case = _with(case, given_back)
    if not cut_storage.outstanding(case.steps):
        move = _rest(case, now)
        return replace(move, steps=(*given_back, *move.steps))
    if "close" in case.orders and cut_storage.left_the_topology(case):
        return Move(CLOSED_BY_ORDER, Event.CLOSED)
    incident, waits = case.incident, cut_storage.waits_to_be_clean(case, now)
    if not waits:
        held = cut_storage.is_given_back(case)
        return Move(incident.because, steps=given_back, held=held, wake_at=now + 1.0)
    said, proof = word.taken(case, now)
    other, is_rested = power_off.hit(case), now >= incident.turns[-1].at + pause_of(case)
    may_be_proven = proof is not None or is_rested and not (case.hold or other) and _is_to_go_off(case, now)
    if incident.state is State.RECOVERED and may_be_proven:
        return Move(f"{waits}: it is fenced again", Event.PROOF_LOST, given_back)
    waits = f"not closed, for {waits}" if "close" in case.orders else waits
    if incident.state is State.STUCK:
        move = stuck(case, now)
        return replace(move, held=move.held or waits, steps=(*given_back, *move.steps), stands_until=0.0)
    given_back += (said,) if said is not None else ()
    waits += f"; {other} went off right after power_off of {incident.host}: whose BMC is this?" if other else ""
    held = f"{waits}; {case.hold}" if case.hold else waits
    return Move(incident.because, steps=given_back, held=held, wake_at=now + LOOK_AGAIN_S)


def _rest(case: Case, now: float) -> Move:
    incident = case.incident
    if "close" in case.orders:
        return Move(CLOSED_BY_ORDER, Event.CLOSED)
    if incident.state is State.STUCK and was_lifted(incident, case.steps):
        return _serves_with_want(case, now)
    if incident.state is State.STUCK and _waits_for_cleaning(case, now):
        return Move(incident.because, wake_at=now + LOOK_AGAIN_S)
    if _is_back(case, now):
        if incident.proof is None and not _touched(case) and not case.in_want:
            return Move("the host lives and was never fenced", Event.WITHDRAWN)
        return Move("nova-compute reports again", Event.RETURNED)
    if incident.state is State.STUCK:
        return stuck(case, now)
    if incident.proof is not None and is_heard(case, incident.proof.at, now) and _reads_off(case, now):
        return Move("nova-compute was heard after its proof although its BMC says OFF: that BMC lies", Event.PROOF_LOST)
    return _recovered(case, now)


def lift(case: Case, now: float) -> Move:
    """LIFTING: clear forced_down, enable, start what is left on the host and was not stopped by its user. A host that
    lives and is fit for no VM is not enabled; what it is waited for is said."""
    if "close" in case.orders:
        return Move(CLOSED_BY_ORDER, Event.CLOSED)
    if case.verdict.judgement is Judgement.FAILED:
        return _fell_again(case)
    changed: list[Step] = [*settle.settle(case, now, OF_RETURN), *_arrived(case, now)]
    steps = {step.id: step for step in (*case.steps, *changed)}
    unfit = case.verdict.because if case.verdict.unfit else ""
    unread = cut_storage.unread_since(replace(case, steps=tuple(steps.values())), case.incident.turns[-1].at)
    if unread:
        changed += cut_storage.read_again(unread, case, now)
        why = "; ".join(filter(None, map(cut_storage.trouble, unread)))
        held = f"its storages are read once more before it is used: {why}" if why else unfit
        return Move(case.incident.because, steps=tuple(changed), held=held, wake_at=now + 1.0)
    for verb in (Verb.LIFT_FENCE, Verb.ENABLE):
        step_id = f"{case.incident.id}/{case.incident.round}/{verb.value}"
        step = steps.get(step_id)
        if step is None and unfit and verb is Verb.ENABLE:
            return Move(case.incident.because, steps=tuple(changed), held=unfit, wake_at=now + 1.0)
        if step is None and verb is Verb.ENABLE and (held := _quarantine(case, steps, now)):
            return start_what_is_left(case, steps, changed, now, held)
        if step is None:
            fresh = start(Step(step_id, case.incident.id, verb, case.incident.host), now)
            return Move(f"{verb.value} is sent", steps=(*changed, fresh), wake_at=now + 1.0)
        if step.is_open:
            text = step.observed[-1].text if step.observed else "no answer yet"
            needs = _needs_inventory(case, now)
            because = f"{verb.value}: {text}"
            return Move(because, steps=tuple(changed), held=unfit, needs_inventory=needs, wake_at=now + 1.0)
        if step.state is StepState.FAILED and _is_to_clean(case, step):
            because = f"it is not taken back: {step.observed[-1].text}; restart its nova-compute"
            return Move(because, Event.EXHAUSTED, tuple(changed))
        if step.state is StepState.FAILED:
            return Move(
                f"{verb.value} failed: {step.because}", steps=(*changed, start(step, now)), wake_at=now + LOOK_AGAIN_S
            )
    return start_what_is_left(case, steps, changed, now)


def _quarantine(case: Case, steps: dict[str, Step], now: float) -> str:
    """'' or why it receives no VMs yet: a host that fails again and again would take them down with it each time."""
    policy, most = case.policy, case.policy.quarantine_fences
    taken_back = steps[f"{case.incident.id}/{case.incident.round}/{Verb.LIFT_FENCE.value}"].ended_at
    if not most or case.fences_lately < most or now >= taken_back + policy.quarantine_s:
        return ""
    within = f"{case.fences_lately} times within {policy.quarantine_window_s:g} s"
    return f"quarantine: it was fenced {within}, and stays disabled until it was well for {policy.quarantine_s:g} s"


def _on_their_way(case: Case) -> list[Step]:
    """Evacuations that the recovery left STARTED when the host came back."""
    return [step for step in case.steps if step.verb is Verb.EVACUATE and step.state is StepState.STARTED]


def _needs_inventory(case: Case, now: float) -> float:
    """Who is on its way may arrive while the host is taken back, which may take long."""
    return max(case.incident.turns[-1].at, now - ARRIVALS_S) if _on_their_way(case) else 0.0


def _arrived(case: Case, now: float) -> list[Step]:
    """Those that have left the host, and what each is to get now, wherever it is: it does not wait for its old host."""
    inventory = case.inventory
    if inventory is None or inventory.at < case.incident.turns[-1].at:
        return []
    here = {server.id for server in inventory.servers}
    found: list[Step] = []
    for step in _on_their_way(case):
        if step.subject not in here:
            done = replace(step, state=StepState.DONE, ended_at=now, because="it has left the host")
            found += [done, settle.restore_state(case, done, now)]
    return found


def _fell_again(case: Case) -> Move:
    return Move(f"{FELL_AGAIN}: {case.verdict.because}", Event.FELL_AGAIN)


def _is_to_clean(case: Case, step: Step) -> bool:
    """Its nova-compute did not clean up in time, since the host came back last: one that started before an evacuation
    was done never looks for its guest again."""
    was_waited_for = bool(step.observed) and step.observed[-1].answer is Answer.NOT_YET
    return was_waited_for and step.ended_at >= case.incident.turns[-1].at


def _waits_for_cleaning(case: Case, now: float) -> bool:
    """Until it is looked at again whether somebody restarted it. A host that died meanwhile is not waited for."""
    step = case.step(f"{case.incident.id}/{case.incident.round}/{Verb.LIFT_FENCE.value}")
    has_failed = step is not None and step.state is StepState.FAILED
    is_dead = case.verdict.judgement is Judgement.FAILED
    return has_failed and not is_dead and now < case.incident.turns[-1].at + RETRY_MAX_S


def _serves_with_want(case: Case, now: float) -> Move:
    """The host serves, and somebody has to mend a VM of it. All others are guarded on."""
    if case.verdict.judgement is Judgement.FAILED and not case.hold:
        return _fell_again(case)
    more = [server.name for server in case.fallen if has_fallen(case, server.id, now)]
    if more and case.verdict.serves:
        return Move(f"{len(more)} more of its VMs fell: {', '.join(more[:3])}", Event.RETURNED)
    held = case.hold if case.verdict.judgement is Judgement.FAILED else ""
    because = f"{case.incident.because}; close it when they are mended"
    return Move(because, held=held, wake_at=now + LOOK_AGAIN_S, stands_until=inf)


def _recovered(case: Case, now: float) -> Move:
    incident = case.incident
    if case.policy.after_fence is AfterFence.POWER_ON:
        step_id = f"{incident.id}/{incident.round}/{Verb.POWER_ON.value}"
        step = case.step(step_id)
        waits = _needed_off(case) if step is None else ""
        if waits:
            return Move(incident.because, held=waits, wake_at=now + LOOK_AGAIN_S)
        if step is None:
            fresh = start(Step(step_id, incident.id, Verb.POWER_ON, incident.host), now)
            return Move(incident.because, steps=(fresh,), wake_at=now + LOOK_AGAIN_S)
        moved = settle.settle(case, now, (Verb.POWER_ON,))
        stands_until = 0.0 if any(one.state is StepState.STARTED for one in case.steps) else inf
        return Move(incident.because, steps=moved, wake_at=now + LOOK_AGAIN_S, stands_until=stands_until)
    return Move(incident.because, wake_at=now + LOOK_AGAIN_S, stands_until=inf)


def _needed_off(case: Case) -> str:
    """'' or who goes elsewhere once this host is proven off: on again it would carry out what was left there."""
    for step in case.elsewhere:
        awaits = step.state is StepState.PLANNED and step.args.get(settle.AWAITS) == case.incident.host
        if awaits and step.incident not in case.idle:
            return f"{step.args['name']} was to come here: it is switched on when that runs elsewhere"
    return ""


def _is_to_go_off(case: Case, now: float) -> bool:
    """It is cut off, and reads off by now; or its system said something since the proof, and just now. Then its old
    guests may be there. One that counts as failed although it lives is cut off for that, and waits for its BMC."""
    since = case.incident.proof.at if case.incident.proof else case.incident.turns[-1].at
    lives = since < case.evidence.beat_at and now - case.evidence.beat_at <= SILENCE_S
    power = case.evidence.reading(Channel.POWER, now, case.policy.channel_stale_s)
    can_be = power is not Reading.UNKNOWN or case.verdict.judgement is not Judgement.FAILED
    return power is Reading.OFF or (lives and can_be)


def _is_back(case: Case, now: float) -> bool:
    """nova-compute was heard after the proof (where there is none: after the last turn), and it is not judged dead."""
    since = case.incident.proof.at if case.incident.proof else case.incident.turns[-1].at
    return is_heard(case, since, now) and case.verdict.serves


def was_lifted(incident: Incident, steps: Iterable[Step]) -> bool:
    """The host was taken back in this round: what is left is for somebody to mend, and needs no fence before it dies
    again."""
    step_id = f"{incident.id}/{incident.round}/{Verb.LIFT_FENCE.value}"
    return any(step.id == step_id and step.state is StepState.DONE for step in steps)


def _reads_off(case: Case, now: float) -> bool:
    return case.evidence.reading(Channel.POWER, now, case.policy.channel_stale_s) is Reading.OFF


def _touched(case: Case) -> bool:
    return any(step.acts for step in case.steps if step.verb not in OF_FENCE)


def _with(case: Case, changed: tuple[Step, ...]) -> Case:
    steps = {step.id: step for step in (*case.steps, *changed)}
    return replace(case, steps=tuple(steps.values()))
