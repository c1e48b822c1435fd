# SPDX-License-Identifier: Apache-2.0
"""After the recovery: wait for the host, and take it back in one order.

Its guests went with its power; every evacuation is settled; the host is powered on (by policy, or by somebody);
nova-compute cleans its evacuated guests, which turns their migrations from done to completed; then, and only then,
forced_down is cleared, and at last the service is enabled if it was we who disabled it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf

from vmhad.guards.hosts import cut_storage, settle, word
from vmhad.guards.hosts.power_off import OF_FENCE
from vmhad.guards.hosts.retry import LOOK_AGAIN_S, RETRY_MAX_S, is_heard, stuck
from vmhad.kernel.case import Case, Move
from vmhad.kernel.cloud import ARRIVED, EVACUATION, Inventory, ServerState
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
    given_back = (*cut_storage.restored(case, now), *settle.settle(case, now, (Verb.RESTORE_STORAGE,)))
    steps = {step.id: step for step in (*case.steps, *given_back)}
    case = replace(case, steps=tuple(steps.values()))
    if not cut_storage.outstanding(case.steps):
        move = _rest(case, now)
        return replace(move, steps=(*given_back, *move.steps))
    incident, waits = case.incident, cut_storage.waits_to_be_clean(case)
    if not waits:
        held = cut_storage.is_given_back(case)
        return Move(incident.because, steps=given_back, held=held, wake_at=now + 1.0)
    said, proof = word.taken(case, now)
    may_be_proven = proof is not None or (not case.hold and (_lives(case, now) or _reads_off(case, now)))
    if incident.state is State.RECOVERED and may_be_proven:
        # Its power is read again, or it lives and has to go off.
        return Move(f"{waits}: it is fenced again", Event.PROOF_LOST, given_back)
    if incident.state is State.STUCK and "close" not in case.orders:
        move = stuck(case, now)
        return replace(move, held=move.held or waits, steps=(*given_back, *move.steps), stands_until=0.0)
    given_back += (said,) if said is not None else ()
    held = f"not closed, for {waits}" if "close" in case.orders else waits
    held += f"; {case.hold}" if case.hold else ""
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
    if cut_storage.unread_since(steps.values(), case.incident.turns[-1].at):
        changed += cut_storage.read_again(steps.values(), case, now)
        return Move("its storages are read once more before it is used", steps=tuple(changed), wake_at=now + 1.0)
    unfit = case.verdict.because if case.verdict.unfit else ""
    for verb in (Verb.LIFT_FENCE, Verb.ENABLE):
        step_id = f"{case.incident.id}/{case.incident.round}/{verb.value}"
        step = steps.get(step_id)
        if step is None and unfit and verb is Verb.ENABLE:
            return Move(case.incident.because, steps=tuple(changed), held=unfit, wake_at=now + 1.0)
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
    return _start_what_is_left(case, steps, changed, now)


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


def _start_what_is_left(case: Case, steps: dict[str, Step], changed: list[Step], now: float) -> Move:
    left = {
        step.subject: (step.args["name"], step.args["state"])
        for step in case.steps
        if step.verb is Verb.EVACUATE and step.state is not StepState.DONE
    }
    in_want = {key: one for key, one in case.in_want.items() if case.step(_evacuation_id(case, key)) is None}
    left |= {key: (one.args["name"], one.args["state"]) for key, one in in_want.items()}
    fallen = {server.id: (server.name, ServerState.ACTIVE.value) for server in case.fallen}
    enabled_at = steps[f"{case.incident.id}/{case.incident.round}/{Verb.ENABLE.value}"].ended_at
    inventory = case.inventory if case.inventory is not None and case.inventory.at >= enabled_at else None
    if inventory is None and any(_was_sent(case, one) and _restore_id(case, one) not in steps for one in left):
        because = "reading what became of evacuations that did not end"
        return Move(because, steps=tuple(changed), needs_inventory=enabled_at, wake_at=now + 1.0)
    emptied = _emptied(case, inventory) if inventory is not None else {}
    for server_id, (name, state) in sorted((left | fallen).items()):
        step_id = _restore_id(case, server_id)
        fell_again = step_id in steps and server_id in fallen and _has_fallen(case, server_id, now)
        if step_id in steps and not fell_again:
            continue
        step = case.step(step_id) or Step(step_id, case.incident.id, Verb.RESTORE_STATE, server_id)
        falls = int(step.args.get("falls", "0")) + fell_again
        args = {"name": name, "state": state, "source": "", "falls": str(falls)}
        why_not = f"it fell again after each of {falls} starts" if falls >= case.policy.instance_starts_max else ""
        if state == ServerState.ACTIVE.value and server_id not in fallen:
            why_not = why_not or emptied.get(server_id, "") or _known_reason(in_want.get(server_id))
        steps[step_id] = start(step, now, args)
        if why_not:
            steps[step_id] = replace(step, args=args, state=StepState.FAILED, ended_at=now, because=why_not)
        changed.append(steps[step_id])
    waiting = [step for step in steps.values() if step.verb is Verb.RESTORE_STATE and step.is_open]
    if waiting:
        return Move(f"{len(waiting)} VMs get their power state back", steps=tuple(changed), wake_at=now + 1.0)
    failed = [step for step in steps.values() if step.verb is Verb.RESTORE_STATE and step.state is StepState.FAILED]
    if failed:
        names = "; ".join(f"{step.args['name']}: {step.because}" for step in failed[:3])
        return Move(f"the host serves again, but {len(failed)} VMs do not: {names}", Event.EXHAUSTED, tuple(changed))
    return Move("the host serves again", Event.LIFTED, tuple(changed))


def _known_reason(step: Step | None) -> str:
    """'' or why the host's last incident did not even try to start it: that still is so."""
    is_refused = step is not None and step.verb is Verb.RESTORE_STATE and step.state is StepState.FAILED
    return step.because if step is not None and is_refused and not step.observed else ""


def _evacuation_id(case: Case, server_id: str) -> str:
    return f"{case.incident.id}/{Verb.EVACUATE.value}/{server_id}"


def _evacuation(case: Case, server_id: str) -> Step | None:
    """Of this incident, or what the last one left of it."""
    former = case.in_want.get(server_id)
    return case.step(_evacuation_id(case, server_id)) or (
        former if former is not None and former.verb is Verb.EVACUATE else None
    )


def _was_sent(case: Case, server_id: str) -> bool:
    step = _evacuation(case, server_id)
    return step is not None and bool(step.args.get("target"))


def _emptied(case: Case, inventory: Inventory) -> dict[str, str]:
    """Server id -> why it is not as active as Nova calls it. A starting nova-compute removes the guest of a server
    whose evacuation did not end, ends that as «completed», and leaves the server to the target, whatever became of it.
    Whether it runs there Nova does not know, so nothing is started here."""
    found: dict[str, str] = {}
    host = case.incident.host
    for server in inventory.servers:
        step = _evacuation(case, server.id)
        known = step.args.get("known", "").split(",") if step is not None else []
        mine = (one for one in inventory.migrations if (one.server, one.source) == (server.id, host))
        newest = next((one for one in mine if one.kind == EVACUATION and one.id not in known), None)
        is_active = (server.state, server.task_state) == (ServerState.ACTIVE, "")
        if is_active and newest is not None and newest.status in ARRIVED:
            found[server.id] = (
                f"Nova calls it active, but {host} removed its guest when it started, for its evacuation to "
                f"{newest.target} had not ended: see that it does not run there, then stop and start it"
            )
    return found


def _serves_with_want(case: Case, now: float) -> Move:
    """The host serves, and somebody has to mend a VM of it. All others are guarded on."""
    if case.verdict.judgement is Judgement.FAILED and not case.hold:
        return _fell_again(case)
    more = [server.name for server in case.fallen if _has_fallen(case, server.id, now)]
    if more and case.verdict.serves:
        return Move(f"{len(more)} more of its VMs fell: {', '.join(more[:3])}", Event.RETURNED)
    held = case.hold if case.verdict.judgement is Judgement.FAILED else ""
    because = f"{case.incident.because}; close it when they are mended"
    return Move(because, held=held, wake_at=now + LOOK_AGAIN_S, stands_until=inf)


def _has_fallen(case: Case, server_id: str, now: float) -> bool:
    """Nobody started it yet, or it fell again since: what was started just now is fallen in what was read before."""
    step = case.step(_restore_id(case, server_id))
    return step is None or (step.state is StepState.DONE and step.ended_at < now)


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


def _lives(case: Case, now: float) -> bool:
    """Its system said something since the proof, and just now."""
    since = case.incident.proof.at if case.incident.proof else case.incident.turns[-1].at
    return since < case.evidence.beat_at and now - case.evidence.beat_at <= SILENCE_S


def _is_back(case: Case, now: float) -> bool:
    """nova-compute was heard after the proof (where there is none: after the last turn), and it is not judged dead."""
    since = case.incident.proof.at if case.incident.proof else case.incident.turns[-1].at
    return is_heard(case, since, now) and case.verdict.serves


def _restore_id(case: Case, server_id: str) -> str:
    return f"{case.incident.id}/{Verb.RESTORE_STATE.value}/{server_id}"


def was_lifted(incident: Incident, steps: Iterable[Step]) -> bool:
    """The host was taken back in this round: what is left is for somebody to mend, and needs no fence before it dies
    again."""
    step_id = f"{incident.id}/{incident.round}/{Verb.LIFT_FENCE.value}"
    return any(step.id == step_id and step.state is StepState.DONE for step in steps)


def _reads_off(case: Case, now: float) -> bool:
    return case.evidence.reading(Channel.POWER, now, case.policy.channel_stale_s) is Reading.OFF


def _touched(case: Case) -> bool:
    return any(step.acts for step in case.steps if step.verb not in OF_FENCE)
