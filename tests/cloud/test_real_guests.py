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
from typing import Any

import pytest
from trial import Trial

from lab.cloud_lab import CloudLab
from lab.qemu import checker

pytestmark = pytest.mark.cloud

NOVA_SEES_IT_S = 110.0
GUEST_BOOTS_S = 60.0
COUNTS_AT_LEAST = 20


@pytest.fixture(scope="module")
def clean_cloud() -> Iterator[CloudLab]:
    name = os.environ.get("VMHAD_REAL_LAB", "qemu-test")
    lab = CloudLab.up(name, 2, "--virt", "qemu")
    try:
        lab.reset()
        yield lab
    finally:
        lab.command("down", "--wipe")


def boots(trial: Trial, server: str) -> list[dict[str, Any]]:
    """The boots that wrote to the server's disk, in the order of their first write."""
    found: list[dict[str, Any]] = trial.watcher.report()["disks"].get(server, [])
    return found


def boot(trial: Trial, host: str) -> list[str]:
    """Two servers on the host whose guests count."""
    ids = trial.lab.boot(2, host=host)
    trial.lab.wait(
        "the guests count",
        lambda: all(found and found[-1]["last"] >= COUNTS_AT_LEAST for found in (boots(trial, one) for one in ids)),
        GUEST_BOOTS_S,
    )
    return ids


def count_on(trial: Trial, ids: list[str]) -> None:
    """Each disk gets a second boot that writes for a while."""
    trial.lab.wait(
        "the guests count again",
        lambda: all(
            len(found) == 2 and found[1]["last"] >= found[1]["first"] + COUNTS_AT_LEAST
            for found in (boots(trial, one) for one in ids)
        ),
        GUEST_BOOTS_S,
    )


def assert_same_disks(trial: Trial, ids: list[str], hurt_at: float) -> None:
    """Every count is on the disk, in the hand of the boot that wrote it; at most the last one was written again."""
    for one in ids:
        old, new = boots(trial, one)
        print(f"{one}: {old['last']} -> {new['first']}, written again {new['first_seen'] - hurt_at:.1f} s after")
        assert old["last"] <= new["first"] <= old["last"] + 2
        assert old["last_seen"] < new["first_seen"]
        written = checker.ledger(trial.watcher.source, one)
        assert sorted(written) == list(range(1, len(written) + 1))
        assert {written[count] for count in range(1, new["first"])} == {old["boot"]}
        assert {written[count] for count in range(new["first"], len(written) + 1)} == {new["boot"]}


def test_cut(trial: Trial) -> None:
    """The host's power is gone: its guests go on elsewhere from where they were, on the same disks."""
    engine = trial.engine()
    ids = boot(trial, "host01")
    trial.ready()
    at = trial.hurt("cut", "host01")
    trial.recovered(engine, "host01")
    trial.assert_moved(ids)
    count_on(trial, ids)
    assert_same_disks(trial, ids, at)


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
