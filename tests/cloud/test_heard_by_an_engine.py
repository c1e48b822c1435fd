# SPDX-License-Identifier: Apache-2.0
"""Agents on two real hosts and an engine that hears them: guests that die alone, and hosts that lose a part of theirs.

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
from typing import Any

import pytest
from real_guests import COUNTS_AT_LEAST, NOVA_SEES_IT_S, assert_same_disks, boot, boots, count_on, real_cloud
from trial import Trial

from lab.agent import AgentProcess
from lab.cloud_lab import CloudLab
from lab.engine import EngineProcess
from lab.layout import Lab
from lab.qemu import hypervisor, small_storage

pytestmark = pytest.mark.cloud

KILLS = 5
# Nova by itself notices after 15 s. On a machine with nothing else to do it is a third of that (README.md).
NOVA_NOTICES_S = 15.0
# Each kill is one of those that a budget of three in half an hour would leave alone.
PATIENT = {"instance_starts_max": 100}
RUNS_AGAIN_S = 60.0
# Nova calls a silent host down after 60 s, and then some.
WATCHED_S = 90.0
# Shorter than an operator would choose: it is waited for here.
CUT_OFF_S = 15.0
HELD_S = 12.0


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
def agents(trial: Trial, master: bytes) -> Iterator[None]:
    """One on each host."""
    agents = [AgentProcess(trial.lab.facts, host, None, master) for host in trial.lab.hosts]
    try:
        for agent in agents:
            agent.start()
        yield
    finally:
        for agent in agents:
            agent.stop()


@pytest.fixture
def engine(trial: Trial, agents: None, master: bytes) -> EngineProcess:
    return trial.engine(agents=master, policy=PATIENT)


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


def test_a_guest_that_panics(trial: Trial, engine: EngineProcess) -> None:
    """Nova gives no guest a panic device: such a guest reboots by itself, as its kernel was told to, and is let be.
    What libvirt hears panic it ends, and that is restarted."""
    (plain,) = trial.lab.boot(1, host="host01", name="plain")
    trial.lab.switch("host01", "panic_device")
    (heard,) = trial.lab.boot(1, host="host01", name="heard")
    trial.lab.wait("the guests count", lambda: all(counts(trial, one) for one in (plain, heard)), RUNS_AGAIN_S)
    trial.ready()
    at = panic(trial, plain)
    count_on(trial, [plain])
    assert not trial.lines(engine, "vm", "SUSPECTED")
    assert_same_disks(trial, [plain], at)
    at = panic(trial, heard)
    issued = trial.wait_line(engine, "vm heard", "RESTART STARTED", RUNS_AGAIN_S)["at"] - at
    assert "panicked" in trial.wait_line(engine, "vm heard", "SUSPECTED", 1.0)["text"]
    count_on(trial, [heard])
    print(f"panic -> restart issued: {issued:.2f} s")
    assert_same_disks(trial, [heard], at)
    assert len(boots(trial, plain)) == 2 and not trial.lines(engine, "vm plain", "SUSPECTED")


def panic(trial: Trial, server: str) -> float:
    at = time.time()
    trial.lab.command("panic", "host01", server)
    return at


def counts(trial: Trial, server: str) -> bool:
    found = boots(trial, server)
    return bool(found) and found[-1]["last"] >= found[-1]["first"] + COUNTS_AT_LEAST


@pytest.fixture
def small(lab: CloudLab) -> Iterator[Path]:
    if not Path("/dev/loop-control").exists():
        pytest.skip("a storage that can be full is a file system on a loop device, and this machine has none")
    with small_storage.small_storage(Lab(lab.name)) as folder:
        yield folder
        # What is on it is deleted while it is there.
        lab.reset()


@pytest.fixture
def agents_of_small(small: Path, agents: None) -> None:
    """They began when the small storage was there."""


@pytest.mark.parametrize(
    ("on_io_error", "boots_again"), [("resume", False), pytest.param("restart", True, marks=pytest.mark.chaos)]
)
def test_a_storage_that_is_full(
    agents_of_small: None, small: Path, trial: Trial, master: bytes, on_io_error: str, boots_again: bool
) -> None:
    """QEMU pauses a guest whose disk finds no room. When there is room again it goes on from where it was."""
    engine = trial.engine(agents=master, policy=PATIENT | {"on_io_error": on_io_error})
    server, other = boot(trial, "host01")
    small_storage.make_sparse(small / server / "disk", boots(trial, server)[-1]["last"])
    trial.ready()
    small_storage.fill(small)
    frozen = trial.wait_line(engine, "vm", "SUSPECTED", 120.0, "frozen")
    last = boots(trial, server)[-1]
    issued = trial.wait_line(engine, "vm", f"{on_io_error.upper()} STARTED", 60.0)
    told_s, issued_s = (line["at"] - last["last_seen"] for line in (frozen, issued))
    print(f"last write -> told {told_s:.2f} s, {on_io_error} issued {issued_s:.2f} s")
    small_storage.make_room(small)
    enough = last["last"] + COUNTS_AT_LEAST
    trial.lab.wait("it counts again", lambda: boots(trial, server)[-1]["last"] >= enough, 120.0)
    first, *more = boots(trial, server)
    assert first["last"] == last["last"] if boots_again else first["last"] >= enough
    assert [one["first"] for one in more] == ([last["last"] + 1] if boots_again else [])
    assert len(boots(trial, other)) == 1


@pytest.mark.parametrize("storage_lost", ["leave", "fence"])
def test_a_host_that_loses_the_storage(trial: Trial, agents: None, master: bytes, storage_lost: str) -> None:
    """It alone does not find the storage any more; its guests still write to the files that they had open."""
    policy = PATIENT | {"storage_lost": storage_lost, "isolated_after_s": CUT_OFF_S}
    engine = trial.engine(agents=master, policy=policy)
    ids = boot(trial, "host01")
    trial.ready()
    at = trial.hurt("lose-storage", "host01")
    suspected = trial.wait_line(engine, "host host01", "SUSPECTED", 30.0, "does not reach the storage")
    print(f"storage lost -> suspected {suspected['at'] - at:.1f} s")
    if storage_lost == "fence":
        trial.wait_line(engine, "host01", "POWER_OFF DONE", CUT_OFF_S + 30.0, "by us")
        trial.recovered(engine, "host01")
        trial.assert_moved(ids)
        count_on(trial, ids)
        assert_same_disks(trial, ids, at)
        return
    trial.lab.wait("it is held", lambda: said(engine, "host01", "SUSPECT", "storage_lost = leave"), CUT_OFF_S + 30.0)
    trial.stays("it was fenced", lambda: not trial.lines(engine, "host", "FENCING"), HELD_S)
    assert all(len(boots(trial, one)) == 1 for one in ids)
    trial.lab.command("restore", "host01")
    trial.wait_line(engine, "host host01", "DISMISSED", 60.0)
    trial.assert_untouched(ids)


def said(engine: EngineProcess, host: str, judgement: str, because: str = "") -> list[dict[str, Any]]:
    return [one for one in engine.verdicts(host) if one["judgement"] == judgement and because in one["because"]]


@pytest.mark.parametrize(
    ("fault", "because", "within_s"),
    [
        ("stop-libvirtd", "its libvirtd does not run", 20.0),
        # Without systemd the agent cannot tell, and Nova takes 60 s.
        pytest.param("stop-compute", "nova-compute alone is silent", NOVA_SEES_IT_S, marks=pytest.mark.chaos),
    ],
)
def test_a_service_that_dies_is_no_death(
    trial: Trial, engine: EngineProcess, fault: str, because: str, within_s: float
) -> None:
    ids = boot(trial, "host01")
    trial.ready()
    at = trial.hurt(fault, "host01")
    found = trial.lab.wait("it is degraded", lambda: said(engine, "host01", "DEGRADED", because), within_s)
    print(f"{fault} -> degraded {found[0]['at'] - at:.1f} s")
    trial.stays("it was suspected", lambda: not trial.lines(engine, "host host01", "SUSPECTED"), HELD_S)
    assert all(len(boots(trial, one)) == 1 for one in ids)
    trial.lab.command("restore", "host01")
    trial.lab.wait("it is well", lambda: engine.verdicts("host01")[-1]["judgement"] == "HEALTHY", 60.0)
    # Nova itself bars a host without libvirt, and takes that back.
    trial.lab.wait("it is enabled", lambda: trial.lab.service("host01")["status"] == "enabled", 60.0)
    trial.assert_untouched(ids)


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
