# SPDX-License-Identifier: Apache-2.0
"""The guards of where a VM is recovered and when, each with the way to switch it off; a story finds each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vmhad.engine.cases import Cases
from vmhad.guards.hosts import place, reach
from vmhad.guards.hosts.domains import FREE, Domains
from vmhad.guards.hosts.order import Order
from vmhad.kernel.gate import Ready
from vmhad.kernel.step import StepState
from vmhad.kernel.vm_policy import NOTHING_SAID
from vmhad.sim.cuts import Cut, always, as_property
from vmhad.sim.mutant import Mutant


def without_priorities(was: Any) -> Any:
    def call(steps: Any, at: Any) -> Any:
        servers = tuple(replace(one, settings=NOTHING_SAID) for one in at.inventory.servers)
        return was(steps, replace(at, inventory=replace(at.inventory, servers=servers)))

    return call


def ready_at_once(was: Any) -> Any:
    return lambda self, step: step.state is not StepState.DONE and was(self, step)


def unknown_is_ready(was: Any) -> Any:
    def call(self: Any, step: Any) -> Any:
        seen = self._case.ready.get(step.subject)
        return was(self, step) or (seen is not None and seen.ready is Ready.UNKNOWN)

    return call


OF_RULES: tuple[Mutant, ...] = (
    Mutant(
        "reach_unasked",
        "a target reaches the disk",
        (Cut(reach, "is_reached", always(True)),),
        story="target_must_reach_the_disk",
    ),
    Mutant(
        "domains_unasked",
        "a group is kept apart over domains",
        (Cut(Domains, "suit", always(FREE)),),
        story="group_over_racks",
    ),
    Mutant(
        "order_unasked",
        "order groups wait for each other",
        (Cut(Order, "waits", always("")),),
        story="order_db_before_app",
    ),
    Mutant(
        "readiness_unasked",
        "who arrived may not be ready",
        (Cut(Order, "_is_awaited", ready_at_once),),
        story="order_db_before_app",
    ),
    Mutant(
        "gates_unasked",
        "who comes after waits until the gate says ready",
        (Cut(Order, "_is_ready", always(True)),),
        story="order_gate_tcp_and_a_chain_of_three",
    ),
    Mutant(
        "unknown_is_ready",
        "not known is not ready",
        (Cut(Order, "_is_ready", unknown_is_ready),),
        story="order_gate_is_silent",
    ),
    Mutant(
        "others_unwaited",
        "who is recovered elsewhere is known first",
        (Cut(Cases, "_unplanned", as_property(frozenset())),),
        story="order_db_before_app",
    ),
    Mutant(
        "priorities_unasked",
        "the higher priority comes first",
        (Cut(place, "in_order", without_priorities),),
        story="priority_takes_the_last_room",
    ),
)
