# SPDX-License-Identifier: Apache-2.0
"""Agents and an engine on hosts with a real Ceph, which no longer takes anything from one of them.

VMHAD_HEARD_CEPH_LAB names the lab (default heard-cephtest); it is taken down at the end.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from real_guests import assert_same_disks, boot, boots, count_on, real_cloud
from trial import Trial

from lab.agent import MARKER, AgentProcess
from lab.cloud_lab import CloudLab
from lab.layout import Lab
from lab.qemu import ceph, network

pytestmark = [pytest.mark.cloud, pytest.mark.chaos]

STORAGE = "vms"
MASTER = secrets.token_bytes(32)
# Shorter than an operator would choose: it is waited for here.
POLICY = {"isolated_after_s": 30.0, "instance_starts_max": 100}
SEEN_S = 60.0
HELD_S = 20.0


@pytest.fixture(scope="module")
def cloud() -> Iterator[CloudLab]:
    with real_cloud(os.environ.get("VMHAD_HEARD_CEPH_LAB", "heard-cephtest"), "--storage", "rbd") as lab:
        yield lab


@pytest.fixture
def lab(cloud: CloudLab) -> CloudLab:
    cloud.reset()
    return cloud


@pytest.fixture
def agents(trial: Trial, tmp_path: Path) -> Iterator[None]:
    marker = tmp_path / "marker"
    marker.write_text(MARKER)
    lab = Lab(trial.lab.name)
    ceph.run(lab, "rados", "-p", ceph.POOL, "put", "vmhad-storage", marker)
    where = f"{STORAGE} rados:{ceph.POOL}:{ceph.settings_file(lab)}:admin {MARKER}"
    agents = [AgentProcess(trial.lab.facts, host, None, MASTER, storages=where) for host in trial.lab.hosts]
    try:
        for agent in agents:
            agent.start()
        yield
    finally:
        for agent in agents:
            agent.stop()


@contextmanager
def cut_off(trial: Trial, host: str) -> Iterator[None]:
    """The storage takes nothing from the host any more, and what it has open there is dead."""
    address = network.address(host) + "/32"
    ceph.run(Lab(trial.lab.name), "ceph", "osd", "blocklist", "range", "add", address)
    try:
        yield
    finally:
        ceph.run(Lab(trial.lab.name), "ceph", "osd", "blocklist", "range", "rm", address)


def test_fenced(trial: Trial, agents: None) -> None:
    """By policy: its guests go on on the other host from where they were cut off."""
    engine = trial.engine(agents=MASTER, policy=POLICY | {"storage_lost": "fence"})
    ids = boot(trial, "host01")
    trial.ready()
    with cut_off(trial, "host01"):
        at = boots(trial, ids[0])[-1]["last_seen"]
        trial.wait_line(engine, "host host01", "SUSPECTED", SEEN_S, "does not reach the storage")
        trial.wait_line(engine, "host01", "POWER_OFF DONE", SEEN_S, "by us")
        trial.recovered(engine, "host01")
        trial.assert_moved(ids)
        count_on(trial, ids)
        assert_same_disks(trial, ids, at)


def test_left(trial: Trial, agents: None) -> None:
    """By policy: nothing is done while it lasts. When the storage takes it back its guests are restarted there."""
    engine = trial.engine(agents=MASTER, policy=POLICY | {"storage_lost": "leave"})
    ids = boot(trial, "host01")
    trial.ready()
    with cut_off(trial, "host01"):
        trial.wait_line(engine, "host host01", "HELD", SEEN_S * 2, "storage_lost = leave")
        trial.stays("it was fenced", lambda: not trial.lines(engine, "host", "FENCING"), HELD_S)
        assert not trial.lines(engine, "vm", "RESTART STARTED")
    trial.wait_line(engine, "host host01", "DISMISSED", SEEN_S * 2)
    count_on(trial, ids)
    trial.assert_untouched(ids)
