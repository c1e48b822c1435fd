# SPDX-License-Identifier: Apache-2.0
"""What is left on a host that was taken back: VMs that did not get away, and that nobody stopped, run again there."""

from __future__ import annotations

from dataclasses import replace

from vmhad.guards.hosts.settle import LEFT
from vmhad.kernel.case import Case, Move
from vmhad.kernel.cloud import ARRIVED, EVACUATION, Inventory, ServerState
from vmhad.kernel.incident import Event
from vmhad.kernel.step import Step, StepState, Verb, start
from vmhad.kernel.vm_resolve import policy_of


def start_what_is_left(
    case: Case, steps: dict[str, Step], changed: list[Step], now: float, quarantine: str = ""
) -> Move:
    """quarantine: '' or why the host is not enabled yet; what is on it does not wait for that."""
    left = {
        step.subject: (step.args["name"], step.args["state"])
        for step in case.steps
        if step.verb is Verb.EVACUATE and step.state is not StepState.DONE and LEFT not in step.args
    }
    in_want = {
        key: one
        for key, one in case.in_want.items()
        if case.step(_evacuation_id(case, key)) is None and LEFT not in one.args
    }
    left |= {key: (one.args["name"], one.args["state"]) for key, one in in_want.items()}
    fallen = {server.id: (server.name, ServerState.ACTIVE.value) for server in case.fallen}
    starts_max = {one.id: policy_of(case.policy, one.settings).instance_starts_max for one in case.fallen}
    enabled_at = _taken_back_at(case, steps)
    inventory = case.inventory if case.inventory is not None and case.inventory.at >= enabled_at else None
    if inventory is None and any(_was_sent(case, one) and _restore_id(case, one) not in steps for one in left):
        because = "reading what became of evacuations that did not end"
        return Move(because, steps=tuple(changed), held=quarantine, needs_inventory=enabled_at, wake_at=now + 1.0)
    emptied = _emptied(case, inventory) if inventory is not None else {}
    for server_id, (name, state) in sorted((left | fallen).items()):
        step_id = _restore_id(case, server_id)
        fell_again = step_id in steps and server_id in fallen and has_fallen(case, server_id, now)
        if step_id in steps and not fell_again:
            continue
        step = case.step(step_id) or Step(step_id, case.incident.id, Verb.RESTORE_STATE, server_id)
        falls = int(step.args.get("falls", "0")) + fell_again
        args = {"name": name, "state": state, "source": "", "falls": str(falls)}
        is_spent = falls >= starts_max.get(server_id, case.policy.instance_starts_max)
        why_not = f"it fell again after each of {falls} starts" if is_spent else ""
        if state == ServerState.ACTIVE.value and server_id not in fallen:
            why_not = why_not or emptied.get(server_id, "") or _known_reason(in_want.get(server_id))
        steps[step_id] = start(step, now, args)
        if why_not:
            steps[step_id] = replace(step, args=args, state=StepState.FAILED, ended_at=now, because=why_not)
        changed.append(steps[step_id])
    waiting = [step for step in steps.values() if step.verb is Verb.RESTORE_STATE and step.is_open]
    if waiting:
        because = f"{len(waiting)} VMs get their power state back"
        return Move(because, steps=tuple(changed), held=quarantine, wake_at=now + 1.0)
    if quarantine:
        return Move(case.incident.because, steps=tuple(changed), held=quarantine, wake_at=now + 1.0)
    failed = [step for step in steps.values() if step.verb is Verb.RESTORE_STATE and step.state is StepState.FAILED]
    if failed:
        names = "; ".join(f"{step.args['name']}: {step.because}" for step in failed[:3])
        return Move(f"the host serves again, but {len(failed)} VMs do not: {names}", Event.EXHAUSTED, tuple(changed))
    return Move("the host serves again", Event.LIFTED, tuple(changed))


def _taken_back_at(case: Case, steps: dict[str, Step]) -> float:
    """When it was enabled; in quarantine, when its forced_down was cleared."""
    of_round = (f"{case.incident.id}/{case.incident.round}/{verb.value}" for verb in (Verb.ENABLE, Verb.LIFT_FENCE))
    return next(steps[one].ended_at for one in of_round if one in steps)


def has_fallen(case: Case, server_id: str, now: float) -> bool:
    """Nobody started it yet, or it fell again since: what was started just now is fallen in what was read before."""
    step = case.step(_restore_id(case, server_id))
    return step is None or (step.state is StepState.DONE and step.ended_at < now)


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


def _restore_id(case: Case, server_id: str) -> str:
    return f"{case.incident.id}/{Verb.RESTORE_STATE.value}/{server_id}"
