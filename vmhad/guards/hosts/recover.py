# SPDX-License-Identifier: Apache-2.0
"""From the proof to every protected VM running elsewhere.

Order: Nova is told (force_down) once the proof is held, never before, because from then on nova-api deletes VMs of
that host locally; then disable, which would block for 60 s the other way round; then the evacuations, bounded in total
and per target; and each VM gets its former power state back.
"""

from __future__ import annotations

from dataclasses import replace

from vmhad.guards.hosts import settle
from vmhad.guards.hosts.board import NEEDS, Board, board, needs_of
from vmhad.guards.hosts.covers import read_before, uncovered
from vmhad.guards.hosts.cut_storage import ROUND, is_open, last
from vmhad.guards.hosts.fence import go_on, is_going_on
from vmhad.guards.hosts.order import UNREADY, Order
from vmhad.guards.hosts.place import in_order, place, take, waits_for_group
from vmhad.guards.hosts.treat import is_protected, may_run_on, refusal, taken_by, treat
from vmhad.kernel.case import Case, Move
from vmhad.kernel.cloud import OUR_REASON, Inventory, Server
from vmhad.kernel.incident import Event
from vmhad.kernel.step import Step, StepState, Verb, start

LOOK_AGAIN_S = 1.0
INVENTORY_OLD_S = 10.0
# A reading that is due every INVENTORY_OLD_S, and takes its time.
GROUPS_OLD_S = 2 * INVENTORY_OLD_S
# The argument of an evacuation that was not begun because the proof does not hold for its VM.
BARE = "bare"
OF_VMS = (Verb.EVACUATE, Verb.RESTORE_STATE)
OF_RECOVERY = (Verb.FORCE_DOWN, Verb.DISABLE, *OF_VMS)


def recover(case: Case, now: float) -> Move:
    """RECOVERING: the next steps, or the end of it; beside them the levels of its fence that were not proven first."""
    of_fence, proof = go_on(case, now)
    if not of_fence and proof is None:
        return _recover(case, now)
    before = case
    case = _with(replace(case, incident=replace(case.incident, proof=proof or case.incident.proof)), of_fence)
    move = _recover(case, now)
    if move.event is not None:
        of_fence = tuple(_not_begun(before, one, now) for one in of_fence)
    return replace(move, steps=(*of_fence, *move.steps), proof=proof)


def _not_begun(case: Case, step: Step, now: float) -> Step:
    """What the fence would try once more just when the recovery is over, which nobody would go on with, is over too."""
    was = case.step(step.id)
    if was is None or step.state is not StepState.STARTED or step.attempt == was.attempt:
        return step
    return replace(was, state=StepState.FAILED, ended_at=now, because=last(was))


def _recover(case: Case, now: float) -> Move:
    if settle.proof_was_refused(case):
        return Move(
            "its proof did not hold just before an act: it is proven again first",
            Event.PROOF_LOST,
            settle.unstarted(case),
        )
    down = _host_step(case, Verb.FORCE_DOWN)
    if down is not None and down.state is StepState.FAILED and down.attempt >= case.policy.evacuate_attempts_max:
        return Move(f"Nova does not take the host's forced_down: {down.because}", Event.EXHAUSTED)
    if down is None or down.state in (StepState.FAILED, StepState.PLANNED):
        step = _begin(case, Verb.FORCE_DOWN, now, down, read_before(case, ()))
        return Move("Nova is told: forced down", steps=(step,), wake_at=now + LOOK_AGAIN_S)
    if down.state is StepState.STARTED:
        return _settle_one(case, down, now)
    changed = settle.refused_elsewhere(case, now)
    changed += settle.settle(_with(case, changed), now, OF_RECOVERY)
    case = _with(case, changed)
    changed += (_disable(case, now),) if _host_step(case, Verb.DISABLE) is None else ()
    inventory = case.inventory
    if inventory is None or inventory.at < down.ended_at:
        return Move(
            "reading its VMs, groups and the room elsewhere",
            steps=changed,
            needs_inventory=down.ended_at,
            wake_at=now + LOOK_AGAIN_S,
        )
    planned = treat(case, inventory)
    case = _with(case, planned)
    started = _starts(case, inventory, now)
    case = _with(case, started)
    latest = {step.id: step for step in (*changed, *planned, *started)}
    move = _end(case, inventory, tuple(latest.values()), now)
    return replace(move, asks=Order(case, now).asks(inventory))


def _settle_one(case: Case, down: Step, now: float) -> Move:
    changed = tuple(step for step in settle.settle(case, now, OF_RECOVERY) if step.id == down.id)
    because = changed[0].because if changed else "Nova is told: forced down"
    wake_at = now + (0.0 if changed else LOOK_AGAIN_S)
    return Move(because, steps=changed, wake_at=wake_at)


def _starts(case: Case, inventory: Inventory, now: float) -> tuple[Step, ...]:
    """The evacuations that may begin now; each one placed with all before it on the board."""
    steps = {step.subject: step for step in case.steps if step.verb is Verb.EVACUATE}
    servers = {server.id: server for server in inventory.servers}
    waiting = (step for step in steps.values() if step.state is StepState.PLANNED)
    if all(step.subject in servers and _rests(step, case, now) for step in waiting):
        return ()
    changed: list[Step] = []
    at, order = board(case, inventory, steps), Order(case, now)
    for server_id in in_order(steps, at):
        step = steps[server_id]
        if step.state is StepState.PLANNED and server_id not in servers:
            steps[server_id] = replace(step, state=StepState.DONE, ended_at=now, because="gone: it left the host")
            changed.append(steps[server_id])
            changed.append(settle.restore_state(case, steps[server_id], now))
            at = board(case, inventory, steps)
        if steps[server_id].state is not StepState.PLANNED or _rests(step, case, now):
            continue
        if _is_in_group(server_id, inventory) and inventory.at < now - GROUPS_OLD_S:
            continue
        if _is_enough_at_once(at):
            break
        moved = _start_one(servers[server_id], step, at, order, now)
        if moved != step:
            steps[server_id] = moved
            changed.append(moved)
        if moved.state is StepState.STARTED and server_id not in at.placed:
            take(servers[server_id], moved.args["target"], at)
        elif moved.state is not StepState.PLANNED:
            at = board(case, inventory, steps)
    return tuple(changed)


def _rests(step: Step, case: Case, now: float) -> bool:
    """Until it is tried again; what awaits the proof of a host goes on as soon as that is held, while the host may not
    have been switched on again and carry out what was left there."""
    return step.not_before > now and step.args.get(settle.AWAITS, "") not in case.proofs


def _is_in_group(server_id: str, inventory: Inventory) -> bool:
    """Where its members are says the cloud as it was read; a member may since have come from a host whose incident is
    closed. So what is in a group is started on a fresh reading only."""
    return any(server_id in group.members for group in inventory.groups)


def _is_enough_at_once(at: Board) -> bool:
    policy = at.case.policy
    return sum(at.in_flight.values()) >= policy.evacuations_max or at.unsent >= policy.evacuation_requests_max


def _start_one(server: Server, step: Step, at: Board, order: Order, now: float) -> Step:
    case, waited = at.case, step
    ended = (settle.AWAITS, settle.LEFT, BARE)
    step = replace(step, args={key: value for key, value in step.args.items() if key not in ended})
    why_not = refusal(case, server)
    if why_not:
        return settle.failed(step, why_not, now, *([] if is_protected(case, server) else [settle.LEFT]))
    bare = uncovered(case, server)
    if bare and (is_going_on(case) or is_open(case)):
        return replace(waited, because=f"{bare}: it waits for the rest of the fence")
    if bare:
        return settle.failed(step, f"{bare}, and its host is not proven off", now, BARE)
    taken = taken_by(case, server)
    if taken:
        return settle.later(case, replace(step, attempt=step.attempt + 1), taken, now)
    beside = case.beside.get(server.id, "")
    if beside:
        because = f"{beside} says that it has its guest"
        return settle.later(case, replace(step, attempt=step.attempt + 1), because, now)
    unread = settle.left_unread(case, step, at.inventory.migrations)
    if len(unread) > 1:
        hosts = " and ".join(dict.fromkeys(unread))
        because = f"requests for it wait on {hosts}: with one more it may run twice when they are read"
        return settle.later(case, replace(step, attempt=step.attempt + 1), because, now)
    others = may_run_on(case, server, at.inventory)
    unproven = [host for host in others if host not in case.proofs]
    if unproven and unproven != [step.args.get("target", unproven[0])]:
        because = f"it may run on {unproven[0]}, which is not proven off"
        return settle.later(case, _awaiting(unproven[0], step), because, now)
    turn = order.waits(server) or waits_for_group(server, at)
    if turn:
        return replace(waited, because=turn)
    found = place(server, step, at, unproven[0] if unproven else "")
    if found.final:
        return replace(step, state=StepState.FAILED, because=found.because, ended_at=now)
    if not found.target:
        if found.soon:
            return replace(waited, because=found.because)
        waits = _awaiting(unproven[0], step) if unproven else replace(step, attempt=step.attempt + 1)
        return settle.later(case, waits, found.because, now)
    args = dict(step.args)
    args = {key: value for key, value in args.items() if not key.startswith("proof_") and key != UNREADY}
    args |= {UNREADY: late} if (late := order.overdue(server)) else {}
    args.update(target=found.target, force="yes" if found.force else "")
    args[NEEDS] = needs_of(server)
    args[ROUND] = str(case.incident.round)
    args.update(read_before(case, set(others) - set(unproven), server))
    args.update(settle.known_migrations(server.id, at.inventory.migrations, step))
    return start(step, now, args)


def _awaiting(host: str, step: Step) -> Step:
    return replace(step, attempt=step.attempt + 1, args={**step.args, settle.AWAITS: host})


def _end(case: Case, inventory: Inventory, steps: tuple[Step, ...], now: float) -> Move:
    of_vms = [step for step in case.steps if step.verb in OF_VMS]
    evacuations = [step for step in of_vms if step.verb is Verb.EVACUATE]
    done = sum(step.state is StepState.DONE for step in evacuations)
    because = f"{done} of {len(evacuations)} VMs evacuated"
    of_round = {_host_step_id(case, verb) for verb in (Verb.FORCE_DOWN, Verb.DISABLE)}
    if any(step.is_open for step in case.steps if step.verb in OF_VMS or step.id in of_round):
        # Not those that only wait for their turn to be asked for, unless the groups' members count.
        planned = [step for step in evacuations if step.state is StepState.PLANNED]
        waiting = any(step.because or _is_in_group(step.subject, inventory) for step in planned)
        fresh = now - INVENTORY_OLD_S if waiting else 0.0
        return Move(because, steps=steps, needs_inventory=fresh, wake_at=now + LOOK_AGAIN_S)
    if is_going_on(case):
        return Move(f"{because}; its power is still to be proven off", steps=steps, wake_at=now + LOOK_AGAIN_S)
    last_end = max((step.ended_at for step in of_vms), default=0.0)
    if inventory.at < last_end:
        return Move(because, steps=steps, needs_inventory=last_end, wake_at=now + LOOK_AGAIN_S)
    mine = [step for step in evacuations if not _was_left(step)]
    failed = [step for step in of_vms if step.state is StepState.FAILED and (step in mine or step not in evacuations)]
    if failed:
        names = "; ".join(f"{step.args.get('name', step.subject)}: {step.because}" for step in failed[:3])
        return Move(f"{len(failed)} of {len(mine)} VMs are not recovered: {names}", Event.EXHAUSTED, steps)
    return Move(f"all {len(mine)} VMs run elsewhere{_left_alone(case, inventory)}", Event.RECOVERED, steps)


def _was_left(step: Step) -> bool:
    """It is to be left alone since it was planned, and nothing of it may arrive anywhere: nothing is tried again."""
    return step.state is StepState.FAILED and bool(step.args.get(settle.LEFT)) and not settle.may_hold(step)


def _left_alone(case: Case, inventory: Inventory) -> str:
    """'' or who else was there: whatever is not done is told."""
    told: dict[str, list[str]] = {}
    for one in sorted(inventory.servers, key=lambda one: one.name):
        if why_left := one.why_left(case.policy.opt_out_key):
            told.setdefault(why_left, []).append(one.name)
    said = (f"; {', '.join(names[:3])}{', ...' * (len(names) > 3)}: {why}" for why, names in sorted(told.items()))
    return "".join(said)


def _disable(case: Case, now: float) -> Step:
    return _begin(case, Verb.DISABLE, now, None, {"reason": f"{OUR_REASON}, incident {case.incident.id}"})


def _host_step(case: Case, verb: Verb) -> Step | None:
    return case.step(_host_step_id(case, verb))


def _host_step_id(case: Case, verb: Verb) -> str:
    """One a round: what was lifted since, or undone by somebody, is done again."""
    return f"{case.incident.id}/{case.incident.round}/{verb.value}"


def _begin(case: Case, verb: Verb, now: float, old: Step | None, args: dict[str, str]) -> Step:
    step = old or Step(_host_step_id(case, verb), case.incident.id, verb, case.incident.host)
    return start(step, now, args)


def _with(case: Case, changed: tuple[Step, ...]) -> Case:
    if not changed:
        return case
    steps = {step.id: step for step in case.steps}
    steps.update((step.id, step) for step in changed)
    return replace(case, steps=tuple(steps.values()))
