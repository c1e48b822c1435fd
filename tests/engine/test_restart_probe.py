# SPDX-License-Identifier: Apache-2.0
"""What the look just before, and just after, a restart or a resumption concludes: whoever else acted since the proof
comes first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmhad.engine.effects import EFFECTS
from vmhad.engine.guests import Told
from vmhad.guards.instances.judge import USERS
from vmhad.guards.instances.recover import CROSSED
from vmhad.kernel.beat import DISK_PAUSED, Domain, DomainState
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


RESUMED = Step("s", "i", Verb.RESUME, "vm", {"host": "h1", "known": "known", "name": "web-1"}, started_at=100.0)
STILL = Domain(DomainState.FROZEN, f"{DISK_PAUSED} on vda")


def told(domain: Domain | None, at: float = 100.0) -> Told:
    return Told(at, 1.0, {"vm": domain} if domain is not None else {}, ())


@pytest.mark.parametrize(
    ("server", "newer", "guest", "answer", "reading"),
    [
        (ACTIVE, (), told(STILL), Answer.NOT_SO, "frozen"),
        (ACTIVE, (), told(Domain(DomainState.RUNNING)), Answer.SO, "running"),
        (ACTIVE, (), told(Domain(DomainState.UNRESPONSIVE)), Answer.SO, "unresponsive"),
        # It runs again, and its disk fails it still; it was paused by its user; it is gone.
        (ACTIVE, (), told(Domain(DomainState.FROZEN, "I/O error on vda")), Answer.FAILED, "frozen"),
        (ACTIVE, (), told(Domain(DomainState.PAUSED, "user")), Answer.FAILED, "paused"),
        (ACTIVE, (), told(Domain(DomainState.CRASHED, "crashed")), Answer.FAILED, "crashed"),
        # Nobody tells, or told of it before.
        (ACTIVE, (), None, Answer.NOT_YET, ""),
        (ACTIVE, (), told(None), Answer.NOT_YET, ""),
        (ACTIVE, (), told(STILL, 98.0), Answer.NOT_YET, ""),
        (None, (), told(STILL), Answer.SO, "absent"),
        (ACTIVE, (PAUSE,), told(STILL), Answer.FAILED, USERS),
        (STOPPED, (), told(STILL), Answer.FAILED, USERS),
        (Server("vm", "web-1", "h1", ServerState.ACTIVE, "suspending"), (), told(STILL), Answer.FAILED, USERS),
        (Server("vm", "web-1", "h2", ServerState.ACTIVE), (), told(STILL), Answer.FAILED, USERS),
    ],
)
def test_a_resumption(
    server: Server | None, newer: tuple[Action, ...], guest: Told | None, answer: Answer, reading: str
) -> None:
    level = (Standing("vm", 1.0, server, (*newer, FOUND)), guest)
    assert EFFECTS[Verb.RESUME].probe(RESUMED, level)[:2] == (answer, reading)


def test_what_was_told_before_the_order_says_nothing_of_it() -> None:
    acted = replace(RESUMED, acts=1, acted_at=110.0)
    probe = EFFECTS[Verb.RESUME].probe
    standing = Standing("vm", 1.0, ACTIVE, (FOUND,))
    assert probe(acted, (standing, told(Domain(DomainState.RUNNING), 109.0)))[0] is Answer.NOT_YET
    assert probe(acted, (standing, told(Domain(DomainState.RUNNING), 110.0)))[0] is Answer.SO
