# SPDX-License-Identifier: Apache-2.0
"""Agents on two real hosts and an engine that hears them: a guest that dies alone, and a host whose cable is out.

VMHAD_HEARD_LAB names the lab (default heard-test); it is taken down at the end.
"""

from __future__ import annotations

import os
import secrets
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_guests import boot, boots, real_cloud
from trial import Trial

from lab.agent import AgentProcess
from lab.cloud_lab import CloudLab
from lab.engine import EngineProcess
from lab.qemu import hypervisor

pytestmark = pytest.mark.cloud

KILLS = 5
# Nova by itself notices after 15 s. On a machine with nothing else to do it is a third of that (README.md).
NOVA_NOTICES_S = 15.0
# Each kill is one of those that a budget of three in half an hour would leave alone.
PATIENT = {"instance_starts_max": 100}
RUNS_AGAIN_S = 60.0
# Nova calls a silent host down after 60 s, and then some.
WATCHED_S = 90.0


@pytest.fixture(scope="module")
def cloud() -> Iterator[CloudLab]:
    with real_cloud(os.environ.get("VMHAD_HEARD_LAB", "heard-test")) as lab:
        yield lab


@pytest.fixture
def lab(cloud: CloudLab) -> CloudLab:
    cloud.reset()
    return cloud


@pytest.fixture(scope="module")
def master() -> bytes:
    return secrets.token_bytes(32)


@pytest.fixture
def engine(trial: Trial, master: bytes) -> Iterator[EngineProcess]:
    """One that hears an agent on each host."""
    agents = [AgentProcess(trial.lab.facts, host, None, master) for host in trial.lab.hosts]
    try:
        for agent in agents:
            agent.start()
        yield trial.engine(agents=master, policy=PATIENT)
    finally:
        for agent in agents:
            agent.stop()


def emulator_of(lab: CloudLab, host: str, server: str) -> int:
    state_dir = Path(lab.host(host)["state_dir"])
    return next(pid for pid, words in hypervisor.emulators(state_dir) if server in words)


def test_a_killed_guest_writes_again(trial: Trial, engine: EngineProcess) -> None:
    server, other = boot(trial, "host01")
    trial.ready()
    issued_s, writes_s = [], []
    for number in range(1, KILLS + 1):
        pid, at = emulator_of(trial.lab, "host01", server), time.time()
        os.kill(pid, signal.SIGKILL)
        trial.lab.wait("it writes again", lambda number=number: len(boots(trial, server)) == number + 1, RUNS_AGAIN_S)
        writes_s.append(boots(trial, server)[-1]["first_seen"] - at)
        issued = trial.wait_line(engine, "vm", "RESTART STARTED", 1.0, count=number)
        issued_s.append(issued["at"] - at)
        trial.wait_line(engine, "vm", "RESTART DONE", RUNS_AGAIN_S, count=number)
    print("killed -> restart issued:", " ".join(f"{one:.2f}" for one in issued_s))
    print("killed -> writes again: ", " ".join(f"{one:.2f}" for one in writes_s))
    assert len(boots(trial, other)) == 1
    print(f"medians: {statistics.median(issued_s):.2f} s, {statistics.median(writes_s):.2f} s")
    assert max(writes_s) < NOVA_NOTICES_S


def test_a_cable_that_is_out_fences_nobody(trial: Trial, engine: EngineProcess) -> None:
    """The policy takes Nova's silence for a death; but its record on the storage goes on, so the host lives."""
    ids = boot(trial, "host01")
    trial.ready()
    trial.hurt("isolate", "host01")
    trial.wait_line(engine, "host host01", "SUSPECTED", 30.0)
    time.sleep(WATCHED_S)
    assert not trial.lines(engine, "host", "POWER_OFF STARTED") and not trial.lines(engine, "host", "FENCING")
    assert all(len(boots(trial, one)) == 1 for one in ids)
    trial.lab.command("restore", "host01")
    trial.wait_line(engine, "host host01", "DISMISSED", 60.0)
