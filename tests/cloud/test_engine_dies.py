# SPDX-License-Identifier: Apache-2.0
"""The engine itself dies or freezes in the middle of a recovery and another one finishes it: no VM is sent twice.

How often a VM was sent is counted in Nova's own migration records.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from pathlib import Path

import pytest
from trial import Trial

from lab.engine import EngineProcess

pytestmark = pytest.mark.cloud

PAUSED = str(Path(__file__).with_name("paused_engine.py"))
# Take-over by the one whom the ring would not have chosen: two leases, and the recovery after it.
TAKE_OVER_S = 90.0


def two_engines(trial: Trial, command: tuple[str, ...] = ()) -> tuple[EngineProcess, EngineProcess]:
    """The first owns the segment, the second watches."""
    first = trial.engine("first", command=command)
    first.wait_log("segment lab is ours", 60.0)
    second = trial.engine("second")
    return first, second


def wait_stopped(trial: Trial, engine: EngineProcess) -> None:
    assert engine.process is not None
    stat = Path(f"/proc/{engine.process.pid}/stat")
    trial.lab.wait("the engine stopped", lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", 90.0)


@pytest.mark.parametrize("seed", [1, 5, *(pytest.param(n, marks=pytest.mark.chaos) for n in (2, 3, 4, 6, 7, 8, 9, 10))])
def test_killed_during_recovery(trial: Trial, seed: int) -> None:
    """kill -9 at a random moment between the first suspicion and the last VM."""
    after_s = random.Random(seed).uniform(0.0, 8.0)
    first, second = two_engines(trial)
    ids = trial.lab.boot(6, host="host01")
    trial.slow_spawns(2.0)
    trial.ready()
    trial.hurt("cut", "host01")
    trial.wait_line(first, "host01", "SUSPECTED", 40.0)
    time.sleep(after_s)
    ended = trial.lines(first, "host01", "RECOVERED")
    first.kill()
    print(f"killed {after_s:.2f} s after the first suspicion")
    if not ended:
        trial.recovered(second, "host01", TAKE_OVER_S)
    trial.assert_moved(ids)


@pytest.mark.chaos
def test_both_die_in_turn(trial: Trial) -> None:
    """The second dies as well, and the first one, started again, finishes."""
    first, second = two_engines(trial)
    ids = trial.lab.boot(6, host="host01")
    trial.slow_spawns(15.0)
    trial.ready()
    trial.hurt("cut", "host01")
    trial.wait_line(first, "vm", "EVACUATE STARTED", 40.0)
    first.kill()
    second.wait_log("segment lab is ours", TAKE_OVER_S)
    second.kill()
    trial.engine("first")
    trial.recovered(first, "host01", TAKE_OVER_S)
    trial.assert_moved(ids)


def test_stopped_past_its_lease(trial: Trial) -> None:
    """SIGSTOP in the middle, another one finishes, SIGCONT: the sleeper finds its epoch gone and sends nothing more."""
    first, second = two_engines(trial)
    ids = trial.lab.boot(5, host="host01")
    trial.slow_spawns(3.0)
    trial.ready()
    trial.hurt("cut", "host01")
    trial.wait_line(first, "vm", "EVACUATE STARTED", 40.0)
    first.signal(signal.SIGSTOP)
    trial.recovered(second, "host01", TAKE_OVER_S)
    told_before = len(first.lines())
    first.signal(signal.SIGCONT)
    trial.stays("the sleeper wrote on", lambda: len(first.lines()) == told_before, 8.0)
    trial.assert_moved(ids)


def test_stopped_between_check_and_send(trial: Trial) -> None:
    """An evacuation leaves under a lease that is long over, when another engine has finished the recovery: Nova
    refuses it, for the VM's host is up."""
    first, second = two_engines(trial, (sys.executable, PAUSED, "evacuate"))
    ids = trial.lab.boot(4, host="host01")
    trial.ready()
    trial.hurt("cut", "host01")
    wait_stopped(trial, first)
    trial.recovered(second, "host01", TAKE_OVER_S)
    placed = trial.hosts_of(ids)
    first.signal(signal.SIGCONT)
    first.wait_log("goes on", 20.0)
    trial.stays("a VM left its place", lambda: trial.hosts_of(ids) == placed, 8.0)
    trial.assert_moved(ids, once=False)


@pytest.mark.chaos
def test_late_act_meets_its_twin(trial: Trial) -> None:
    """The same, while those very VMs are being received: Nova takes both requests.

    Promised: the late one names the same target, so no guest ever runs twice. Not promised: that Nova keeps its word of
    the VM in order. Where the twins collide, the guest runs on the target and Nova calls it ERROR on the dead host.
    """
    first, second = two_engines(trial, (sys.executable, PAUSED, "evacuate"))
    ids = trial.lab.boot(4, host="host01")
    trial.slow_spawns(20.0)
    trial.ready()
    trial.hurt("cut", "host01")
    wait_stopped(trial, first)
    second.wait_log("segment lab is ours", TAKE_OVER_S)
    trial.lab.wait("all are sent", lambda: all(trial.lab.evacuations(one) for one in ids), 40.0)
    first.signal(signal.SIGCONT)
    first.wait_log("goes on", 20.0)
    trial.lab.wait("every guest runs", lambda: set(ids) <= set(trial.running(ids)), 90.0, 1.0)
    trial.stays("a guest runs twice", lambda: all(len(trial.running(ids)[one]) == 1 for one in ids), 15.0)
    for one in ids:
        assert len({row["dest_compute"] for row in trial.lab.evacuations(one)}) == 1, "a repeat named another target"
