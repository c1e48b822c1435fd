# SPDX-License-Identifier: Apache-2.0
"""Emptying a host that lives: the guard of its drain, one function a state.

Nothing is fenced here and no proof is needed, for nothing is started that may still run elsewhere: its VMs move alive.
The moment it is not certain that the host lives, nothing more is sent, and its own incident has its VMs. It is disabled
meanwhile, and enabled again when it was healthy for a while, if it was we who disabled it.
"""

from __future__ import annotations

from dataclasses import replace

from vmhad.guards.hosts import move, settle
from vmhad.kernel.case import DrainCase, Move
from vmhad.kernel.cloud import DRAIN_REASON, Inventory
from vmhad.kernel.incident import Event
from vmhad.kernel.order import CLOSED_BY_ORDER
from vmhad.kernel.step import Answer, Step, StepState, Verb, start

LOOK_AGAIN_S = 2.0
# How old may be what the moving rests on; and how often is looked whether anybody brought more there.
INVENTORY_OLD_S = 10.0
EMPTY_LOOK_S = 60.0


def suspect(case: DrainCase, now: float) -> Move:
    """SUSPECTED: it is worth emptying, if it still is and may be now."""
    if "close" in case.case.orders and not case.is_lost:
        return _closed(case)
    if case.is_lost:
        return _held(case, _lost(case), now)
    touched = case.case.step(_step_id(case, Verb.DISABLE)) is not None
    if touched and _is_well(case):
        return _well(case)
    if not case.ails and not touched:
        return Move(f"not emptied: {case.verdict.because}", Event.DISMISSED)
    why = _waits(case)
    if why:
        return _held(case, why, now)
    return Move(case.verdict.because, Event.AILS, (_disable(case, now), *move.planned_again(case)))


def fence(case: DrainCase, now: float) -> Move:
    """A host that lives is never fenced for being emptied."""
    raise AssertionError(f"drain {case.incident.id} is {case.incident.state.value}")


def recover(case: DrainCase, now: float) -> Move:
    """DRAINING: the next moves."""
    if case.is_lost:
        return Move(_lost(case), Event.FELL_AGAIN, move.let_go(case, now))
    if "close" in case.case.orders:
        return _closed(case)
    changed = list(_settled_host_step(case, now) + move.settled(case, now))
    case = _with(case, changed)
    if not case.ails:
        return _over(case, changed, now)
    disable = case.case.step(_step_id(case, Verb.DISABLE))
    if disable is not None and disable.state is StepState.FAILED:
        return Move(f"not emptied: its nova-compute is not disabled: {disable.because}", Event.CLOSED, tuple(changed))
    if disable is None or (disable.state is StepState.PLANNED and now >= disable.not_before):
        # Not there: who began it died between the parts of that commit; the incident goes first, its steps follow.
        changed.append(_disable(case, now))
    if disable is None or disable.state is not StepState.DONE:
        return Move("its nova-compute is disabled first", steps=tuple(changed), wake_at=now + LOOK_AGAIN_S)
    inventory = case.case.inventory
    if inventory is None or inventory.at < disable.ended_at:
        because = "reading its VMs, groups and the room elsewhere"
        return Move(because, steps=tuple(changed), needs_inventory=disable.ended_at, wake_at=now + LOOK_AGAIN_S)
    return _next(case, inventory, changed, now)


def _next(case: DrainCase, inventory: Inventory, changed: list[Step], now: float) -> Move:
    if "retry" in case.case.orders:
        changed += move.planned_again(case)
        case = _with(case, changed)
    # What arrived, or came back, after the inventory was read is not in it as it is now.
    last_end = max((step.ended_at for step in move.moves(case)), default=0.0)
    if inventory.at >= last_end:
        changed += move.plan(case, inventory)
        case = _with(case, changed)
    held = _held_up(case)
    if not held:
        changed += move.starts(case, inventory, now)
        case = _with(case, changed)
    waiting = any(step.state is StepState.PLANNED for step in move.moves(case))
    old_s = INVENTORY_OLD_S if waiting else EMPTY_LOOK_S
    fresh = max(last_end, now - old_s)
    because, wake_at = _told(case), now + LOOK_AGAIN_S
    return Move(because, steps=_latest(changed), held=held, needs_inventory=fresh, wake_at=wake_at)


def lift(case: DrainCase, now: float) -> Move:
    """LIFTING: it may be sent VMs again. What ails again meanwhile, or dies, is not enabled; a call that was made is
    waited for, and what ails after that is emptied anew."""
    if "close" in case.case.orders:
        return _closed(case)
    step_id = _step_id(case, Verb.ENABLE)
    changed = _settled_host_step(case, now)
    step = next((one for one in changed if one.id == step_id), case.case.step(step_id))
    is_unsent = step is None or (step.is_open and not step.acts)
    if is_unsent and (case.is_lost or not _is_well(case)):
        unsent = (replace(step, state=StepState.PLANNED, observed=()),) if step is not None else ()
        if case.ails and not case.is_lost:
            return Move(case.verdict.because, Event.AILS, (*unsent, _disable(case, now)))
        held = f"not enabled before it was healthy for {case.policy.drain_healthy_s:g} s: {case.verdict.because}"
        return Move(case.incident.because, steps=_moved(case, unsent), held=held, wake_at=now + LOOK_AGAIN_S)
    if step is None or step.state is StepState.PLANNED:
        step = start(step or _new(case, Verb.ENABLE), now, {"reason": DRAIN_REASON})
        return Move("enable is sent", steps=(step,), wake_at=now + LOOK_AGAIN_S)
    if step.state is StepState.DONE:
        return Move(f"it may be sent VMs again: {step.because}", Event.LIFTED, changed)
    text = step.observed[-1].text if step.observed else "no answer yet"
    return Move(f"enable: {text}", steps=changed, wake_at=now + LOOK_AGAIN_S)


def _closed(case: DrainCase) -> Move:
    """Closing means «leave it to me»: also that it is disabled, if nobody was asked yet to enable it."""
    disable, enable = (case.case.step(_step_id(case, verb)) for verb in (Verb.DISABLE, Verb.ENABLE))
    is_disabled = disable is not None and (disable.acts or disable.state is StepState.DONE)
    if not is_disabled or (enable is not None and enable.acts):
        return Move(CLOSED_BY_ORDER, Event.CLOSED)
    return Move(f"{CLOSED_BY_ORDER}: its nova-compute is disabled, and stays so", Event.CLOSED)


def rest(case: DrainCase, now: float) -> Move:
    """A drain is never STUCK: what does not go is told, and tried again by order."""
    raise AssertionError(f"drain {case.incident.id} is {case.incident.state.value}")


def _lost(case: DrainCase) -> str:
    if case.owner:
        return f"nothing is moved: its host's own incident has it, {case.owner}"
    return f"nothing is moved: {case.verdict.because}"


def _held(case: DrainCase, held: str, now: float) -> Move:
    return Move(case.incident.because, held=held, wake_at=now + LOOK_AGAIN_S)


def _is_well(case: DrainCase) -> bool:
    return case.well_s >= case.policy.drain_healthy_s


def _well(case: DrainCase) -> Move:
    return Move(f"it has been healthy for {case.policy.drain_healthy_s:g} s", Event.RETURNED)


def _waits(case: DrainCase) -> str:
    """'' or why it is not emptied now."""
    if not case.ails:
        return _unheard(case) or f"nothing is moved: {case.verdict.because}"
    if case.case.hold:
        return case.case.hold
    size = len(case.case.segment.hosts)
    ailing, allowed = len(case.ailing) + 1, case.policy.failed_share_max * size
    if ailing > allowed:
        return f"{ailing} of {size} hosts ail, fail or are emptied, more than failed_share_max allows ({allowed:g})"
    if len(case.draining) >= case.policy.drains_max:
        return f"{', '.join(sorted(case.draining))} is emptied first: drains_max is {case.policy.drains_max}"
    return ""


def _held_up(case: DrainCase) -> str:
    """'' or why no other VM is sent away; those under way go on."""
    spoilt = [step.args["name"] for step in move.moves(case) if move.SPOILT in step.args]
    if spoilt:
        return f"{', '.join(spoilt)} is in error after its live migration: no other is moved before an order (retry)"
    if case.case.hold:
        return case.case.hold
    under_way = any(step.state is StepState.STARTED for step in move.moves(case))
    if not under_way and len(case.moving) >= case.policy.drains_max:
        return f"VMs of {', '.join(sorted(case.moving))} are under way: drains_max is {case.policy.drains_max}"
    return ""


def _over(case: DrainCase, changed: list[Step], now: float) -> Move:
    """It ails no more. What is under way arrives, nothing more is sent."""
    under_way = sum(step.state is StepState.STARTED for step in move.moves(case))
    if _is_well(case) and not under_way:
        return replace(_well(case), steps=tuple(changed))
    because = f"{case.verdict.because}; {_told(case)}, {under_way} are under way"
    return Move(because, steps=tuple(changed), held=_unheard(case), wake_at=now + LOOK_AGAIN_S)


def _unheard(case: DrainCase) -> str:
    return "" if case.is_heard else "its agent is not heard, by whose word it ailed: it is not enabled before that is"


def _told(case: DrainCase) -> str:
    mine = move.moves(case)
    done = sum(step.state is StepState.DONE for step in mine)
    stay = [step for step in mine if step.state is StepState.FAILED]
    because = f"{done} of {len(mine)} VMs moved"
    if stay:
        names = "; ".join(f"{step.args['name']}: {step.because}" for step in stay[:3])
        because += f", {len(stay)} stay: {names}"
    return because


def _settled_host_step(case: DrainCase, now: float) -> tuple[Step, ...]:
    """What is not so yet is tried for as long as it takes. What Nova refuses, or knows nothing of, has an end."""
    found = []
    for verb in (Verb.DISABLE, Verb.ENABLE):
        step = case.case.step(_step_id(case, verb))
        if step is None or step.state is not StepState.STARTED or not step.observed:
            continue
        newest = step.observed[-1]
        if newest.answer is Answer.SO:
            found.append(replace(step, state=StepState.DONE, ended_at=now, because=newest.text))
        elif newest.answer is Answer.NOT_SO and step.acts and newest.at > step.acted_at + settle.CALL_LIMIT_S:
            found.append(start(step, now))
        elif newest.answer is Answer.FAILED and verb is Verb.DISABLE:
            found.append(settle.later(case.case, replace(step, observed=()), newest.text, now))
    return tuple(found)


def _disable(case: DrainCase, now: float) -> Step:
    old = case.case.step(_step_id(case, Verb.DISABLE))
    reason = {"reason": f"{DRAIN_REASON}, {case.incident.id}"}
    return start(old, now) if old else start(_new(case, Verb.DISABLE), now, reason)


def _moved(case: DrainCase, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple(step for step in steps if step != case.case.step(step.id))


def _step_id(case: DrainCase, verb: Verb) -> str:
    return f"{case.incident.id}/{verb.value}"


def _new(case: DrainCase, verb: Verb) -> Step:
    return Step(_step_id(case, verb), case.incident.id, verb, case.incident.host)


def _with(case: DrainCase, changed: list[Step]) -> DrainCase:
    return case.after(case.incident, tuple(changed), None)


def _latest(changed: list[Step]) -> tuple[Step, ...]:
    return tuple({step.id: step for step in changed}.values())
