# SPDX-License-Identifier: Apache-2.0
"""What the look just before, and just after, a restart concludes: whoever else acted since the proof comes first."""

from __future__ import annotations

import pytest

from vmhad.engine.effects import EFFECTS
from vmhad.guards.instances.recover import CROSSED, USERS
from vmhad.kernel.cloud import Action, Server, ServerState, Standing
from vmhad.kernel.step import Answer, Step, Verb

FOUND = Action("known", "stop", False)
OURS = Action("ours", "start", True)
STOP, PAUSE = Action("theirs", "stop", True), Action("theirs", "pause", True)
STOPPED = Server("vm", "web-1", "h1", ServerState.STOPPED)
ACTIVE = Server("vm", "web-1", "h1", ServerState.ACTIVE)
STARTING = Server("vm", "web-1", "h1", ServerState.STOPPED, "powering-on")


@pytest.mark.parametrize(
    ("server", "newer", "answer", "reading"),
    [
        (STOPPED, (), Answer.NOT_SO, "stopped"),
        (STARTING, (OURS,), Answer.NOT_YET, "stopped"),
        (ACTIVE, (OURS,), Answer.SO, "active"),
        (None, (), Answer.SO, "absent"),
        # A task that left no action, another host, another act.
        (STARTING, (), Answer.FAILED, USERS),
        (Server("vm", "web-1", "h2", ServerState.ACTIVE), (), Answer.FAILED, USERS),
        (STOPPED, (STOP,), Answer.FAILED, USERS),
        (ACTIVE, (PAUSE, OURS), Answer.FAILED, USERS),
        # The user's stop came after our start, and then before it.
        (STOPPED, (STOP, OURS), Answer.FAILED, USERS),
        (ACTIVE, (OURS, STOP), Answer.FAILED, CROSSED),
        (ACTIVE, (OURS, PAUSE), Answer.FAILED, USERS),
        (Server("vm", "web-1", "h1", ServerState.ERROR, fault="no room"), (OURS,), Answer.FAILED, "error"),
    ],
)
def test_a_start(server: Server | None, newer: tuple[Action, ...], answer: Answer, reading: str) -> None:
    step = Step("s", "i", Verb.RESTART, "vm", {"how": "start", "host": "h1", "known": "known", "name": "web-1"})
    found = EFFECTS[Verb.RESTART].probe(step, Standing("vm", 1.0, server, (*newer, FOUND)))
    assert found[:2] == (answer, reading)


def test_a_reboot_is_done_when_it_is_on_record_and_over() -> None:
    step = Step("s", "i", Verb.RESTART, "vm", {"how": "reboot", "host": "h1", "known": "", "name": "web-1"})
    probe = EFFECTS[Verb.RESTART].probe
    assert probe(step, Standing("vm", 1.0, ACTIVE))[0] is Answer.NOT_SO
    assert probe(step, Standing("vm", 1.0, ACTIVE, (Action("r", "reboot", True),)))[0] is Answer.SO
    # Nova's own late stop is no user's: it is waited for, and what it stopped is rebooted.
    late = Server("vm", "web-1", "h1", ServerState.ACTIVE, "powering-off")
    assert probe(step, Standing("vm", 1.0, late, (FOUND,)))[0] is Answer.NOT_YET
    assert probe(step, Standing("vm", 1.0, STOPPED, (FOUND,)))[0] is Answer.NOT_SO
