# SPDX-License-Identifier: Apache-2.0
"""What each VM of a dead host gets: an evacuation, or a plain reason why not. Each VM is planned once an incident."""

from __future__ import annotations

from dataclasses import replace

from vmhad.guards.hosts.order import marks
from vmhad.guards.hosts.settle import FAILED_ON_TARGET, LEFT, may_hold
from vmhad.kernel.case import Case
from vmhad.kernel.cloud import ARRIVED, EVACUATION, LIVE, OVER, Inventory, Server, ServerState
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.kernel.vm_resolve import policy_of

# Nova keeps a request that its dead host never read, and that host does it when it is back, wherever the VM is by then.
POWERING_ON, POWERING_OFF = "powering-on", "powering-off"
# Of a live migration: its kind and what became of it.
SPOILT = (LIVE, "error")
EVACUABLE = (ServerState.ACTIVE, ServerState.STOPPED, ServerState.ERROR)
# What to do about the others. Nobody but its user knows whether a VM may begin anew, so none is reset by vmhad.
RESET = "reset its state to active and order a retry: it boots anew"
WAYS_OUT = {
    ServerState.PAUSED: f"what it had in memory is lost; {RESET}",
    ServerState.SUSPENDED: f"what it had in memory is on a disk of its host: wait for that; or {RESET} without it",
    ServerState.RESCUED: f"{RESET}, from its own disk",
    ServerState.RESIZED: "confirm or revert its resize, or reset its state to active, and order a retry",
    ServerState.BUILDING: "it never ran: delete it and create it again",
    ServerState.SHELVED: "its user put it away: it can be unshelved when its host is back",
}


def treat(case: Case, inventory: Inventory) -> tuple[Step, ...]:
    """New evacuate steps for the servers that have none yet in this incident; those of servers that were to be left
    alone and are not any more, planned again."""
    known = {step.subject: step for step in case.steps if step.verb is Verb.EVACUATE}
    found = []
    for server in sorted(inventory.servers, key=lambda one: one.id):
        step = known.get(server.id)
        if not is_protected(case, server):
            continue
        if step is None:
            found.append(_plan(case, server, inventory))
        elif LEFT in step.args and step.state is StepState.FAILED:
            args = {key: value for key, value in step.args.items() if key != LEFT}
            because = "it is protected again"
            found.append(replace(step, state=StepState.PLANNED, attempt=0, not_before=0.0, args=args, because=because))
    return tuple(found)


def is_protected(case: Case, server: Server) -> bool:
    return not server.why_left(case.policy.opt_out_key)


def may_run_on(case: Case, server: Server, inventory: Inventory) -> tuple[str, ...]:
    """The hosts beside the dead one that may run it: both ends of every migration not known to be harmless, and those
    that were sent a request which was given up. Whoever reads such a one late may carry it out, and Nova need not have
    a record that says so: two requests share one."""
    source = case.incident.host
    ends: set[str] = set()
    for migration in inventory.migrations:
        if migration.server == server.id and migration.status not in OVER:
            ends |= {migration.source, migration.target}
    ends |= _spoilt_on(server, inventory)
    ends |= _failed_on(server, inventory)
    for step in case.steps:
        if step.verb is Verb.EVACUATE and step.subject == server.id:
            ends |= may_hold(step)
    return tuple(sorted(ends - {source, ""}))


def _spoilt_on(server: Server, inventory: Inventory) -> set[str]:
    """The target of a live migration that ended in error and left its server in ERROR: its guest may have gone over."""
    newest = next((one for one in inventory.migrations if one.server == server.id), None)
    if newest is None or server.state is not ServerState.ERROR:
        return set()
    return {newest.target} if (newest.kind, newest.status) == SPOILT else set()


def _failed_on(server: Server, inventory: Inventory) -> set[str]:
    """Targets of its evacuations that failed there since the last one that landed: they may hold a copy, whichever
    incident it was. Nova lists the newest first."""
    failed: set[str] = set()
    for move in inventory.migrations:
        if move.server == server.id and move.kind == EVACUATION:
            if move.status in ARRIVED:
                break
            if move.status == FAILED_ON_TARGET:
                failed.add(move.target)
    return failed


def _plan(case: Case, server: Server, inventory: Inventory) -> Step:
    """What Nova switched off when its host was back for a moment is off by nobody's wish. An evacuation that failed
    hides in ERROR what its user wanted: then an earlier incident's word counts."""
    has_fallen = server.id in inventory.fallen or server.id in {one.id for one in case.fallen}
    is_off = server.state is ServerState.STOPPED and server.task_state != POWERING_ON and not has_fallen
    was_off = server.state is ServerState.ERROR and case.former.get(server.id) == ServerState.STOPPED.value
    is_to_stop = is_off or was_off or server.task_state == POWERING_OFF
    wanted = ServerState.STOPPED if is_to_stop else ServerState.ACTIVE
    args = {"name": server.name, "state": wanted.value, **marks(server)}
    step_id = f"{case.incident.id}/{Verb.EVACUATE.value}/{server.id}"
    why_not = refusal(case, server)
    state = StepState.FAILED if why_not else StepState.PLANNED
    return Step(step_id, case.incident.id, Verb.EVACUATE, server.id, args, state, because=why_not)


def refusal(case: Case, server: Server) -> str:
    """'' or why it is not evacuated: asked when it is planned, and again before every start. Whose owner opted out
    before that is not planned; one who does while the VM waits is heard when the inventory is read anew."""
    if not is_protected(case, server):
        return server.why_left(case.policy.opt_out_key)
    if server.state not in EVACUABLE:
        way_out = f"; {WAYS_OUT[server.state]}" if server.state in WAYS_OUT else ""
        return f"it is {server.state.value}: Nova evacuates only active, stopped and error VMs{way_out}"
    if server.task_state == POWERING_ON:
        return "a start of it waits in the queue of its dead host: elsewhere it would run twice when that host is back"
    policy = policy_of(case.policy, server.settings)
    if not server.volume_backed and not policy.shared_ephemeral and not policy.rebuild_local_disks:
        return "its disk died with the host; policy forbids to rebuild it from its image (rebuild_local_disks)"
    return ""


def taken_by(case: Case, server: Server) -> str:
    """'' or the other incident that has it now. It may be free again soon: waited for, never taken for an end."""
    owner = case.claimed.get(server.id, case.incident.id)
    return f"it is in incident {owner}" if owner != case.incident.id else ""
