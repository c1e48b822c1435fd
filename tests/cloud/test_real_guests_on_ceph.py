# SPDX-License-Identifier: Apache-2.0
"""Real guests whose disks are in a real Ceph, whose locks are polite: a lock alone keeps no second writer away.

VMHAD_REAL_CEPH_LAB names the lab (default qemu-cephtest); it is taken down at the end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_guests import NOVA_SEES_IT_S, boot, cut_and_recover, real_cloud
from trial import Trial

from lab.cloud_lab import CloudLab

pytestmark = [pytest.mark.cloud, pytest.mark.chaos]


@pytest.fixture(scope="module")
def cloud() -> Iterator[CloudLab]:
    with real_cloud(os.environ.get("VMHAD_REAL_CEPH_LAB", "qemu-cephtest"), "--storage", "rbd") as lab:
        yield lab


@pytest.fixture
def lab(cloud: CloudLab) -> CloudLab:
    """Clean before each trial, not after the last: to take real hosts back costs most of a minute, and it is wiped."""
    cloud.reset()
    return cloud


def test_cut(trial: Trial) -> None:
    """The guests go on elsewhere on the same disks, once the dead client's lock is gone: ACTIVE is not yet running."""
    cut_and_recover(trial)


def test_without_the_proof_guard_a_dead_compute_doubles_writers(trial: Trial) -> None:
    """Only nova-compute is dead, its guests write: the exclusive lock of their disks goes to and fro."""
    trial.promised = False
    engine = trial.engine(command=(sys.executable, str(Path(__file__).with_name("unguarded_engine.py"))))
    ids = boot(trial, "host01")
    trial.ready()
    trial.hurt("stop-compute", "host01")
    trial.wait_line(engine, "host host01", "RECOVERED", NOVA_SEES_IT_S)
    trial.lab.wait("second writers", lambda: {row["uuid"] for row in trial.watcher.report()["doubles"]} == set(ids))
