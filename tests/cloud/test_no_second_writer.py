# SPDX-License-Identifier: Apache-2.0
"""Three hosts fail at one moment, in the three ways that leave their guests writing: one hangs with all that runs on
it, one has its cable out, one has lost its nova-compute alone. Their VMs run on elsewhere; then the hosts go on as if
nothing had been, and no disk may ever see a second writer.

On a directory with locks and on one without, where BMCs answer; and on a real Ceph with BMCs that are dead, where
nothing but the storage itself can be asked. That the checker sees second writers is shown with the proof guard cut out:
for a directory in test_real_guests.py, for Ceph here. VMHAD_CELLS_LAB and VMHAD_CELLS_CEPH_LAB name the labs (default
cells-test, cells-cephtest), VMHAD_CELLS_ROUNDS says how often each is played (default 1; make soak-guests: 20).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from real_guests import COUNTS_AT_LEAST, GUEST_BOOTS_S, NOVA_SEES_IT_S, boots, count_on
from trial import Trial

from lab import bmc, hosts
from lab.cloud_lab import CloudLab
from lab.engine import EngineProcess, forget_journal
from lab.layout import Lab
from lab.qemu import ceph, install, network

pytestmark = pytest.mark.cloud

WAYS = {"host01": "freeze", "host02": "isolate", "host03": "stop-compute"}
TARGET = "host04"
ROUNDS = int(os.environ.get("VMHAD_CELLS_ROUNDS", "1"))
# Three of four hosts are to fail at once, and nobody but Nova and the BMCs is asked.
POLICY = {
    "failed_share_max": 0.9,
    "canary_from_hosts": 10,
    "domain_silent_min": 10,
    "recoveries_max": 3,
    "fences_in_flight_max": 3,
    "back_grace_s": 1.0,
}
GO_ON_S = 20.0


@pytest.fixture(scope="module")
def cloud() -> Iterator[CloudLab]:
    yield from four_hosts(os.environ.get("VMHAD_CELLS_LAB", "cells-test"))


@pytest.fixture(scope="module")
def ceph_cloud() -> Iterator[CloudLab]:
    yield from four_hosts(os.environ.get("VMHAD_CELLS_CEPH_LAB", "cells-cephtest"), "--storage", "rbd")


def four_hosts(name: str, *more: str) -> Iterator[CloudLab]:
    """A lab with four real hosts, forgotten at the end."""
    if not install.may_make_hosts():
        pytest.skip("this machine does not let root make the namespaces that a real host consists of")
    lab = CloudLab.up(name, 4, "--virt", "qemu", *more)
    try:
        yield lab
    finally:
        lab.command("down", "--wipe")


def begun(lab: CloudLab, locks: bool = True) -> Trial:
    """A clean lab, an empty journal, a watcher that runs."""
    lab.reset()
    for host in lab.hosts:
        lab.switch(host, "no_image_locks", None if locks else "")
    forget_journal(lab.facts)
    return Trial(lab)


def populate(trial: Trial) -> list[str]:
    """A server on each host that is to fail, whose guest counts."""
    ids = [trial.lab.boot(1, host=host, name=f"on-{host}")[0] for host in WAYS]

    def counts(server: str) -> bool:
        found = boots(trial, server)
        return bool(found) and found[-1]["last"] >= COUNTS_AT_LEAST

    trial.lab.wait("the guests count", lambda: all(map(counts, ids)), GUEST_BOOTS_S)
    return ids


def fail(trial: Trial) -> None:
    for host, way in WAYS.items():
        trial.hurt(way, host)


def go_on(trial: Trial) -> None:
    """Whatever was stopped goes on and every cable is in again, where there still is power."""
    lab = Lab(trial.lab.name)
    for host in WAYS:
        hosts.mend(lab, host, print)


def recovered(trial: Trial, engine: EngineProcess, ids: list[str]) -> None:
    for host in WAYS:
        trial.wait_line(engine, f"host {host}", "RECOVERED", NOVA_SEES_IT_S + 60.0)
    assert trial.hosts_of(ids) == [TARGET] * len(ids)
    count_on(trial, ids)


def on_a_directory(lab: CloudLab, locks: bool) -> None:
    """Every host is powered off before its VM starts elsewhere."""
    trial = begun(lab, locks)
    try:
        engine = trial.engine(policy=POLICY)
        ids = populate(trial)
        trial.ready()
        fail(trial)
        recovered(trial, engine, ids)
        assert not any(trial.has_power(host) for host in WAYS)
    finally:
        trial.end()


@pytest.mark.parametrize("number", range(ROUNDS))
def test_on_a_directory_with_locks(cloud: CloudLab, number: int) -> None:
    on_a_directory(cloud, locks=True)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_on_a_directory_without_locks(cloud: CloudLab, number: int) -> None:
    on_a_directory(cloud, locks=False)


def storage(lab: CloudLab) -> dict[str, Any]:
    """As the segments file has it."""
    settings = {"conf_file": str(ceph.settings_file(Lab(lab.name))), "user": "admin", "pools": [ceph.POOL]}
    clients = {host: [network.address(host)] for host in lab.hosts}
    return {"name": "ceph", "driver": "ceph", "settings": settings, "holds": ["nova"], "clients": clients}


def without_bmcs(trial: Trial, opened: ExitStack) -> None:
    for host in WAYS:
        trial.lab.command("stop", bmc.name(host), "--kill")
        opened.callback(trial.lab.command, "start", bmc.name(host))


def test_without_the_proof_guard_ceph_sees_second_writers(ceph_cloud: CloudLab) -> None:
    """The checker sees what it is there for: an engine that fences nothing and believes itself."""
    trial = begun(ceph_cloud)
    trial.promised = False
    try:
        unguarded = (sys.executable, str(Path(__file__).with_name("unguarded_engine.py")))
        engine = trial.engine(policy=POLICY, command=unguarded)
        ids = populate(trial)
        trial.ready()
        trial.hurt("stop-compute", "host03")
        trial.wait_line(engine, "host host03", "RECOVERED", NOVA_SEES_IT_S)
        writing_twice = ids[list(WAYS).index("host03")]
        trial.lab.wait(
            "second writers", lambda: {row["uuid"] for row in trial.watcher.report()["doubles"]} == {writing_twice}
        )
    finally:
        trial.end()


@pytest.mark.parametrize("number", range(ROUNDS))
def test_on_ceph_with_dead_bmcs(ceph_cloud: CloudLab, number: int) -> None:
    """Each host is cut off from Ceph, which is all that can be proven of it. Its old guest goes on, and writes to
    nothing."""
    with network.machine_plugged_in(Lab(ceph_cloud.name)), ExitStack() as opened:
        trial = begun(ceph_cloud)
        opened.callback(trial.end)
        engine = trial.engine(policy=POLICY, storages=[storage(ceph_cloud)])
        ids = populate(trial)
        trial.ready()
        without_bmcs(trial, opened)
        fail(trial)
        recovered(trial, engine, ids)
        for host in WAYS:
            trial.wait_line(engine, host, "CUT_STORAGE DONE", 1.0)
            assert trial.has_power(host)
        go_on(trial)
        before = [boots(trial, one)[1]["last"] for one in ids]
        time.sleep(GO_ON_S)
        assert all(boots(trial, one)[1]["last"] > was for one, was in zip(ids, before, strict=True))
        assert not trial.watcher.report()["doubles"]
        engine.stop()
        # What they had open there stays dead, nova-compute's own connection with it.
        for host in WAYS:
            trial.lab.command("cut", host)
        ceph.run(Lab(ceph_cloud.name), "ceph", "osd", "blocklist", "clear")
