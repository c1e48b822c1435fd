# SPDX-License-Identifier: Apache-2.0
"""Two hosts are recovered at a time: what one recovery sends to a target is no room for the other any more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bare_cases import case_of

from vmhad.guards.hosts.board import board, needs_of
from vmhad.kernel.cloud import Inventory, Room, Server, ServerState
from vmhad.kernel.incident import opened
from vmhad.kernel.policy import Policy
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.kernel.verdict import Judgement, Verdict

DEAD = Verdict(Judgement.FAILED, "it is dead", 1)
MINE = Server("s1", "s1", "h1", ServerState.ACTIVE, volume_backed=True, vcpus=2, ram_mib=2048)
THEIRS = Server("s2", "s2", "h2", ServerState.ACTIVE, vcpus=4, ram_mib=1024, disk_gib=10)
READ_AT = 100.0


def left_on_h3(state: StepState, started_at: float, server: Server = THEIRS) -> Room:
    args = {"target": "h3", "needs": needs_of(server)}
    step = Step("x", "h2.1", Verb.EVACUATE, server.id, args, state, started_at=started_at, ended_at=READ_AT + 9.0)
    inventory = Inventory("h1", READ_AT, (MINE,), (), (), {}, (), (Room("h3", 8, 8192, 100),))
    case = replace(case_of(opened("h1.1", "east", "h1", 1.0, "dead"), DEAD, Policy()), elsewhere=(step,))
    return board(case, inventory, {}).left["h3"]


@pytest.mark.parametrize("state", [StepState.STARTED, StepState.DONE])
def test_what_was_sent_since_placement_was_read_takes_its_room(state: StepState) -> None:
    assert left_on_h3(state, READ_AT) == Room("h3", 4, 7168, 90)


def test_what_placement_knew_is_not_counted_twice() -> None:
    assert left_on_h3(StepState.STARTED, READ_AT - 1.0) == Room("h3", 8, 8192, 100)


def test_what_only_waits_takes_none() -> None:
    assert left_on_h3(StepState.PLANNED, READ_AT) == Room("h3", 8, 8192, 100)


def test_a_vm_of_ours_that_another_recovery_brought_counts_once() -> None:
    assert left_on_h3(StepState.DONE, READ_AT, MINE) == Room("h3", 6, 6144, 100)
