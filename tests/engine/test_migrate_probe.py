# SPDX-License-Identifier: Apache-2.0
"""What a look at a live migration concludes, whoever asked for it and whatever became of it."""

from __future__ import annotations

import pytest

from vmhad.engine.effects import EFFECTS
from vmhad.guards.hosts.move import SPOILT
from vmhad.kernel.cloud import Migration, Server, ServerState
from vmhad.kernel.step import Answer, Step, Verb

HERE = Server("vm", "web-1", "h1", ServerState.ACTIVE)
MOVING = Server("vm", "web-1", "h1", ServerState.ACTIVE, "migrating")
THERE = Server("vm", "web-1", "h2", ServerState.ACTIVE)
SPOILED = Server("vm", "web-1", "h1", ServerState.ERROR, fault="unsafe")


def live(number: int, status: str, source: str = "h1") -> Migration:
    return Migration(f"m{number}", "vm", "live-migration", status, source, "h2", "")


@pytest.mark.parametrize(
    ("server", "moves", "answer", "reading"),
    [
        (HERE, (), Answer.NOT_SO, ""),
        (MOVING, (), Answer.NOT_YET, "migrating"),
        (MOVING, (live(2, "running"),), Answer.NOT_YET, "m2 running"),
        # Over, and not yet seen where it arrived.
        (MOVING, (live(2, "completed"),), Answer.NOT_YET, "m2 completed"),
        (HERE, (live(2, "completed"),), Answer.NOT_YET, "m2 completed"),
        (THERE, (live(2, "completed"),), Answer.SO, "active"),
        (Server("vm", "web-1", "h2", ServerState.ACTIVE, "migrating"), (), Answer.NOT_YET, "migrating"),
        (HERE, (live(2, "error"),), Answer.FAILED, "m2 error"),
        # Its record is in error before its task is over: who knows what Nova still does.
        (MOVING, (live(2, "error"),), Answer.NOT_YET, "m2 error"),
        (SPOILED, (live(2, "error"),), Answer.FAILED, SPOILT),
        # Those from before this attempt, and those that brought it here, say nothing of it.
        (HERE, (live(1, "error"),), Answer.NOT_SO, ""),
        (HERE, (live(3, "completed", source="h9"), live(1, "error")), Answer.NOT_SO, ""),
        (None, (), Answer.SO, "absent"),
    ],
)
def test_a_look(server: Server | None, moves: tuple[Migration, ...], answer: Answer, reading: str) -> None:
    step = Step("s", "i", Verb.LIVE_MIGRATE, "vm", {"source": "h1", "target": "h2", "known": "m1", "name": "web-1"})
    assert EFFECTS[Verb.LIVE_MIGRATE].probe(step, (server, moves))[:2] == (answer, reading)
