# SPDX-License-Identifier: Apache-2.0
"""What is known of a hard-affinity group on its way: who arrived, who may arrive yet, whom Nova will not force."""

from __future__ import annotations

from vmhad.guards.hosts.board import Board
from vmhad.kernel.cloud import EVACUATION, Group, Server
from vmhad.kernel.step import StepState


def complex_allocations(members: tuple[Server, ...], at: Board) -> str:
    """'' or why Nova will not force them: a VM that came by an evacuation is booked on both hosts until its first one
    returns, and Nova 34 forces no VM with two bookings («complex allocations»)."""
    ids, here = {one.id for one in members}, at.case.incident.host
    for move in at.inventory.migrations:
        is_booked = (move.kind, move.status, move.target) == (EVACUATION, "done", here)
        if is_booked and move.server in ids:
            return f"Nova cannot move its affinity group by force before {move.source} is back and has cleaned up"
    return ""


def is_given_up(group: Group, target: str, at: Board) -> bool:
    """Nobody tries any more to bring there whoever of the group is placed there."""
    here = {one.id for one in at.inventory.servers}
    return all(one in here - at.coming for one in group.members if at.host_of(one) == target)


def first_has_arrived(group: Group, target: str, at: Board) -> bool:
    return any(
        step.state is StepState.DONE and step.args.get("target") == target
        for step in at.case.steps
        if step.subject in group.members
    )
