# SPDX-License-Identifier: Apache-2.0
"""What the trials of real guests have alike: guests that count, and what their disks say afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from trial import Trial

from lab.cloud_lab import CloudLab
from lab.qemu import checker, install

# Ceph takes the lock of a disk from a dead client after half a minute, if nobody tells it that it is dead.
GUEST_BOOTS_S = 120.0
COUNTS_AT_LEAST = 20
NOVA_SEES_IT_S = 110.0


@contextmanager
def real_cloud(name: str, *more: str) -> Iterator[CloudLab]:
    """A lab with two real hosts, forgotten at the end."""
    if not install.may_make_hosts():
        pytest.skip("this machine does not let root make the namespaces that a real host consists of")
    lab = CloudLab.up(name, 2, "--virt", "qemu", *more)
    try:
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


def cut_and_recover(trial: Trial) -> None:
    """The host's power is gone: its guests go on elsewhere from where they were, on the same disks."""
    engine = trial.engine()
    ids = boot(trial, "host01")
    trial.ready()
    at = trial.hurt("cut", "host01")
    trial.recovered(engine, "host01")
    trial.assert_moved(ids)
    count_on(trial, ids)
    assert_same_disks(trial, ids, at)
