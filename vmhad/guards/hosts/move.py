# SPDX-License-Identifier: Apache-2.0
"""The VMs of a host that lives, moved away alive: which may go, where to, how many at a time, and what came of it.

Rules kept here: a VM runs on where it is until Nova has brought it elsewhere, so nothing is cut and nothing is forced;
targets are chosen as for evacuations, and validated by Nova's scheduler; one VM that a live migration left in error
ends the moving of all, until an operator has looked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vmhad.guards.hosts import settle
from vmhad.guards.hosts.board import Board, board
from vmhad.guards.hosts.place import in_order, place, waits_for_group
from vmhad.guards.hosts.treat import taken_by
from vmhad.kernel.case import Case, DrainCase
from vmhad.kernel.cloud import LIVE, OVER, Inventory, Server, ServerState
from vmhad.kernel.step import Answer, Step, StepState, Verb, start

# The reading of a server that Nova calls in error after its live migration; its guest may well run on.
SPOILT = "spoilt"
RUNS = (ServerState.ACTIVE, ServerState.PAUSED)
# A VM that its user, or Nova, is busy with is looked at again after so long.
BUSY_S = 10.0


def moves(case: DrainCase) -> tuple[Step, ...]:
    return tuple(step for step in case.steps if step.verb is Verb.LIVE_MIGRATE)


def settled(case: DrainCase, now: float) -> tuple[Step, ...]:
    """The moves that their newest observation changes. One that is under way has no deadline: Nova ends it, or it
    arrives; given up here it would go on all the same."""
    started = (step for step in moves(case) if step.state is StepState.STARTED and step.observed)
    concluded = ((step, _conclude(case.case, step, now)) for step in started)
    return tuple(after for before, after in concluded if after != before)


def _conclude(case: Case, step: Step, now: float) -> Step:
    newest = step.observed[-1]
    if newest.answer is Answer.SO:
        return replace(step, state=StepState.DONE, ended_at=now, because=newest.text)
    if newest.answer is Answer.FAILED and newest.reading == SPOILT:
        because = f"Nova calls it in error after its live migration: {newest.text}"
        return replace(step, state=StepState.FAILED, args={**step.args, SPOILT: "yes"}, ended_at=now, because=because)
    if newest.answer is Answer.FAILED:
        known = {*step.args["known"].split(","), newest.reading.partition(" ")[0]} - {""}
        failed_on = {*step.args.get("failed_on", "").split(","), step.args["target"]} - {""}
        args = {**step.args, "known": ",".join(sorted(known)), "failed_on": ",".join(sorted(failed_on))}
        return settle.later(case, replace(step, args=args), newest.text, now)
    if newest.answer is Answer.NOT_SO and step.acts and newest.at > step.acted_at + settle.CALL_LIMIT_S:
        return settle.later(case, step, "Nova makes no record of its live migration", now)
    return step


def let_go(case: DrainCase, now: float) -> tuple[Step, ...]:
    """What is under way ends by itself, or the host's own incident has it: its fence covers both ends of it."""
    because = "let go: its host may have failed, whose own incident has its VMs then"
    return tuple(
        replace(step, state=StepState.FAILED, ended_at=now, because=because)
        for step in moves(case)
        if step.state is StepState.STARTED
    )


def planned_again(case: DrainCase) -> tuple[Step, ...]:
    """Everything that did not go, as if it had not been tried; where it failed is not forgotten."""
    return tuple(
        replace(step, state=StepState.PLANNED, attempt=0, not_before=0.0, because="", args=_without_mark(step))
        for step in moves(case)
        if step.state is StepState.FAILED
    )


def _without_mark(step: Step) -> dict[str, str]:
    return {key: text for key, text in step.args.items() if key != SPOILT}


def plan(case: DrainCase, inventory: Inventory) -> tuple[Step, ...]:
    """A move for each VM of the host that has none yet, or that was left for a reason which is none any more."""
    known = {step.subject: step for step in moves(case)}
    found = []
    for server in sorted(inventory.servers, key=lambda one: one.id):
        if server.why_left(case.policy.opt_out_key):
            continue
        step = known.get(server.id)
        why_not = _refusal(server, inventory)
        state = StepState.FAILED if why_not else StepState.PLANNED
        if step is None:
            step_id = f"{case.incident.id}/{Verb.LIVE_MIGRATE.value}/{server.id}"
            args = {"name": server.name, "known": ""}
            step = Step(step_id, case.incident.id, Verb.LIVE_MIGRATE, server.id, args, state, because=why_not)
            found.append(step)
        elif step.state is StepState.DONE or (step.state is StepState.FAILED and not step.attempt and not why_not):
            # It is back, or runs now.
            found.append(replace(step, state=state, attempt=0, not_before=0.0, because=why_not))
    return tuple(found)


def _refusal(server: Server, inventory: Inventory) -> str:
    """'' or why it stays where it is."""
    if server.state not in RUNS:
        return f"it is {server.state.value}: only what runs is moved"
    for group in inventory.groups:
        others = set(group.members) & inventory.member_hosts.keys() - {server.id}
        if group.policy == "affinity" and server.id in group.members and others:
            return "Nova parts no hard-affinity group: its members stay together"
    return ""


def starts(case: DrainCase, inventory: Inventory, now: float) -> tuple[Step, ...]:
    """The moves that may begin now; each one placed with all before it on the board."""
    steps = {step.subject: step for step in moves(case)}
    servers = {server.id: server for server in inventory.servers}
    # A hard-affinity group has but one member here, and binds it to nobody.
    seen = replace(inventory, groups=tuple(group for group in inventory.groups if group.policy != "affinity"))
    changed: list[Step] = []
    for server_id in in_order(steps, board(case.case, seen, steps)):
        step = steps[server_id]
        if step.state is not StepState.PLANNED or step.not_before > now:
            continue
        if len(_under_way(steps.values(), inventory)) >= case.policy.live_migrations_max:
            break
        moved = _start_one(servers.get(server_id), step, board(case.case, seen, steps), now)
        if moved != step:
            steps[server_id] = moved
            changed.append(moved)
    return tuple(changed)


def _under_way(steps: Iterable[Step], inventory: Inventory) -> set[str]:
    """Also what was let go, or what a user moves: the host has to carry it all the same."""
    others = (one for one in inventory.migrations if (one.source, one.kind) == (inventory.host, LIVE))
    mine = {step.subject for step in steps if step.state is StepState.STARTED}
    known = {server.id for server in inventory.servers}
    return mine | {one.server for one in others if one.status not in OVER and one.server in known}


def _start_one(server: Server | None, step: Step, at: Board, now: float) -> Step:
    case, inventory = at.case, at.inventory
    if server is None:
        return replace(step, state=StepState.DONE, ended_at=now, because="gone: it left the host")
    why_not = server.why_left(case.policy.opt_out_key) or _refusal(server, inventory)
    if why_not:
        return replace(step, state=StepState.FAILED, attempt=0, because=why_not, ended_at=now)
    waits = taken_by(case, server) or _busy(server, inventory) or waits_for_group(server, at)
    if waits:
        return replace(step, because=waits, not_before=now + BUSY_S)
    found = place(server, step, at)
    if not found.target and found.soon:
        return replace(step, because=found.because)
    if not found.target:
        return settle.later(case, replace(step, attempt=step.attempt + 1), found.because, now)
    mine = (one.id for one in inventory.migrations if one.server == server.id and one.kind == LIVE)
    known = {*step.args["known"].split(","), *mine} - {""}
    args = {**step.args, "source": case.incident.host, "target": found.target, "known": ",".join(sorted(known))}
    return start(step, now, args)


def _busy(server: Server, inventory: Inventory) -> str:
    for one in inventory.migrations:
        if one.server == server.id and one.status not in OVER:
            return f"a migration of it is under way: {one.kind}, {one.status}"
    return f"busy: {server.task_state}" if server.task_state else ""
