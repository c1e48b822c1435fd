# SPDX-License-Identifier: Apache-2.0
"""Real guests on hosts that die: nova-compute with the libvirt driver, QEMU, and disks that are watched.

Here the word of the disks counts: a boot of a guest that writes again after another one has written is a second writer.
VMHAD_REAL_LAB names the lab (default qemu-test); it is taken down at the end.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_guests import NOVA_SEES_IT_S, assert_same_disks, boot, count_on, cut_and_recover, real_cloud
from trial import Trial

from lab.cloud_lab import CloudLab

pytestmark = pytest.mark.cloud


@pytest.fixture(scope="module")
def cloud() -> Iterator[CloudLab]:
    with real_cloud(os.environ.get("VMHAD_REAL_LAB", "qemu-test")) as lab:
        yield lab


@pytest.fixture
def lab(cloud: CloudLab) -> CloudLab:
    """Clean before each trial, not after the last: to take real hosts back costs most of a minute, and it is wiped."""
    cloud.reset()
    return cloud


def test_cut(trial: Trial) -> None:
    """The host's power is gone: its guests go on elsewhere from where they were, on the same disks."""
    cut_and_recover(trial)


def test_hang(trial: Trial) -> None:
    """nova-compute is silent while the guests write on: the host is powered off before any of them starts elsewhere."""
    engine = trial.engine()
    ids = boot(trial, "host01")
    trial.ready()
    at = trial.hurt("hang", "host01")
    off = trial.wait_line(engine, "host01", "POWER_OFF DONE", NOVA_SEES_IT_S, "by us")["at"]
    trial.recovered(engine, "host01")
    assert off <= trial.wait_line(engine, "vm", "EVACUATE STARTED", 1.0)["at"]
    trial.assert_moved(ids)
    count_on(trial, ids)
    assert_same_disks(trial, ids, at)


def test_without_the_proof_guard_an_isolated_host_doubles_writers(trial: Trial) -> None:
    """The checker sees what it is there for. Storage without locks, a cable out, an engine that fences nothing: both
    copies of each guest write."""
    trial.promised = False
    for host in trial.lab.hosts:
        trial.lab.switch(host, "no_image_locks")
    engine = trial.engine(command=(sys.executable, str(Path(__file__).with_name("unguarded_engine.py"))))
    ids = boot(trial, "host01")
    trial.ready()
    trial.hurt("isolate", "host01")
    trial.wait_line(engine, "host host01", "RECOVERED", NOVA_SEES_IT_S)
    trial.lab.wait("second writers", lambda: {row["uuid"] for row in trial.watcher.report()["doubles"]} == set(ids))
    time.sleep(1.0)
    assert all(row["times"] > 1 for row in trial.watcher.report()["doubles"])
