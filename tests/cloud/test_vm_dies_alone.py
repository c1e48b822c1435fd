# SPDX-License-Identifier: Apache-2.0
"""A VM whose guest is gone while its host is well is started again; what its user stopped stays off.

A notification makes it faster, never right. The guests are pretended; Nova, which finds them gone and switches them
off by itself, is real.
"""

from __future__ import annotations

import time

import pytest
from trial import Trial

from lab.engine import EngineProcess

pytestmark = pytest.mark.cloud

NOVA_KNOWS_S = 40.0
TOLD_S = 5.0
ASKED_S = 60.0


def stopped_at(trial: Trial, server_id: str) -> float:
    """When Nova was first seen to call it stopped."""
    trial.lab.wait("Nova has found its guest gone", lambda: _status(trial, server_id) == "SHUTOFF", NOVA_KNOWS_S, 0.1)
    return time.time()


def _status(trial: Trial, server_id: str) -> str:
    return str(trial.lab.server(server_id)["status"])


def restarted(trial: Trial, engine: EngineProcess, dead: str, off: list[str], limit_s: float) -> None:
    """It runs again in time and alone, and nothing else was done: not to its host, and not to what was stopped."""
    at = stopped_at(trial, dead)
    row = trial.wait_line(engine, "vm dead-01", "RECOVERED", limit_s + 5.0)
    issued = trial.lines(engine, "vm dead-01", "RESTART STARTED")
    print(f"restart issued {issued[0]['at'] - at:.2f} s, over {row['at'] - at:.2f} s after Nova called it stopped")
    assert row["at"] - at <= limit_s
    assert trial.running([dead]) == {dead: ["host01"]} and _status(trial, dead) == "ACTIVE"
    assert len(issued) == 1
    # Whatever found the one would have found the others.
    assert {_status(trial, one) for one in off} == {"SHUTOFF"} and trial.running(off) == {}
    trial.assert_untouched([dead, *off])
    lines = [one for one in engine.lines() if one["subject"].startswith(("vm off", "host "))]
    assert not [one for one in lines if one["word"] == "RESTART STARTED" or one["subject"].startswith("host ")]


@pytest.mark.parametrize(("listens", "limit_s"), [(True, TOLD_S), (False, ASKED_S)], ids=["told", "asked"])
def test_a_lost_guest_is_started_again(trial: Trial, listens: bool, limit_s: float) -> None:
    """The first of the stopped ones was stopped by its user; the second lost its guest, and its user stopped it before
    Nova had found out."""
    engine = trial.engine(listens=listens)
    (dead,) = trial.lab.boot(host="host01", name="dead")
    off = trial.lab.boot(2, host="host01", name="off")
    trial.ready()
    trial.lab.command("lose-guest", "host01", off[1])
    for one in off:
        trial.lab.api("POST", f"/servers/{one}/action", {"os-stop": None})
    trial.lab.wait("both are stopped", lambda: {_status(trial, one) for one in off} == {"SHUTOFF"})
    trial.lab.command("lose-guest", "host01", dead)
    restarted(trial, engine, dead, off, limit_s)
