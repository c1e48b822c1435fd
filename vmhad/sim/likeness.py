# SPDX-License-Identifier: Apache-2.0
"""One number for the whole state of a simulated world: two worlds with the same number go on alike.

What is folded in: the time, the store, the truth, Nova's records and queues, what every engine remembers (ownership,
books, evidence, what it looked at and did), its eyes and its calls under way, what the ledger knows of acts, and when
each coming event is due. Left out: what was only said, and the code of coming events: their time and kind stand for it.
Numbers hold within one process only.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from vmhad.sim.clock import SimClock, Ticket
from vmhad.sim.world import Node, World

ATOMS = (str, bytes, int, float, bool, type(None))
CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, partial, type)
# Reached another way, or without a memory of their own.
PASSED_OVER = {"lock", "ReachedStore", "Segment", "Policy", "Random", "Datacentre"}
PASSED_OVER |= {
    "Agenda",
    "Life",
    "Ring",
    "SimNova",
    "Rebuilds",
    "NovaFaults",
    "StoreFaults",
    "NudgeQueue",
    "MemoryStore",
    "Ledger",
}


class Likeness:
    """Folds worlds of one run. Frozen values are folded once: they never change."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, int]] = {}
        self._under_way: set[int] = set()

    def of(self, world: World, *more: object) -> int:
        truth, now = world.datacentre, world.agenda.now
        parts = (
            now,
            world.store._entries,  # noqa: SLF001 - the one reader beside the store itself
            truth.hosts,
            {name: frozenset(vm.guests) for name, vm in truth.vms.items()},
            [vars(one) for one in (world.nova, world.rebuilds, world.nova_faults, world.store_faults, world.ring)],
            world.nudges.waiting,
            {name: self._node(node, now) for name, node in world.nodes.items()},
            sorted((one.at, _kind(one)) for one in world.agenda.pending()),
            (world.ledger.started, world.ledger.open_steps),
            more,
        )
        return hash(tuple(self._fold(part) for part in parts))

    def _node(self, node: Node, now: float) -> object:
        if node.life.dead:
            return None
        return max(0.0, node.life.thaw_at - now), node.next_tick.at if node.next_tick else None, vars(node.engine)

    def _fold(self, value: object) -> int:
        kind = type(value)
        plan = PLANS.get(kind)
        if plan is None:
            plan = PLANS[kind] = _plan(kind)
        if plan is ATOM:
            return hash(value)
        if plan is NOTHING:
            return 0
        number = id(value)
        known = self._known.get(number)
        if known is not None:
            return known[1]
        if number in self._under_way:
            return 1
        self._under_way.add(number)
        folded = plan.fold(self._fold, value)
        self._under_way.discard(number)
        if plan.frozen:
            self._known[number] = (value, folded)
        return folded


@dataclasses.dataclass(frozen=True)
class Plan:
    """How values of one type are folded. frozen: they never change, so once is enough."""

    fold: Callable[[Callable[[object], int], Any], int]
    frozen: bool = False


ATOM = Plan(lambda fold, value: 0)
NOTHING = Plan(lambda fold, value: 0)
PLANS: dict[type, Plan] = {}


def _plan(kind: type) -> Plan:
    if issubclass(kind, (*ATOMS, Enum)):
        return ATOM
    if issubclass(kind, CODE) or kind.__name__ in PASSED_OVER:
        return NOTHING
    if issubclass(kind, dict):
        return Plan(lambda fold, value: hash(frozenset([(hash(key), fold(one)) for key, one in value.items()])))
    if issubclass(kind, set | frozenset):
        return Plan(lambda fold, value: hash(frozenset(map(fold, value))))
    if issubclass(kind, list | tuple):
        return Plan(lambda fold, value: hash(tuple(map(fold, value))))
    return _plan_of_object(kind)


def _plan_of_object(kind: type) -> Plan:
    name = kind.__name__
    if issubclass(kind, Ticket):
        return Plan(lambda fold, value: hash((value.at, value.cancelled)))
    if issubclass(kind, SimClock):
        return Plan(lambda fold, value: hash((value.offset_s, value.spent_s)))
    if dataclasses.is_dataclass(kind):
        names = [one.name for one in dataclasses.fields(kind)]
        frozen: bool = kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
        return Plan(lambda fold, value: hash((name, *[fold(getattr(value, one)) for one in names])), frozen)
    slots = [one for base in kind.__mro__ for one in getattr(base, "__slots__", ())]
    return Plan(
        lambda fold, value: hash(
            (
                name,
                *[fold(getattr(value, one)) for one in slots if one not in ("__dict__", "__weakref__")],
                *[fold(one) for _, one in sorted(getattr(value, "__dict__", {}).items())],
            )
        )
    )


def _kind(ticket: Ticket) -> str:
    return getattr(ticket.call, "__qualname__", type(ticket.call).__name__)
