# SPDX-License-Identifier: Apache-2.0
"""Storage beats in a pool of a real Ceph: read by the peer, gone with the OSD, still when their writer is cut off.

VMHAD_AGENT_CEPH_LAB names the lab (default agents-cephtest); it is taken down at the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_guests import real_cloud

from lab.agent import MARKER, AgentProcess
from lab.cloud_lab import CloudLab
from lab.layout import Lab
from lab.qemu import ceph, network

pytestmark = [pytest.mark.cloud, pytest.mark.chaos]

ALOUD = (str(Path(__file__).with_name("agent_aloud.py")),)
STORAGE = "vms"
# A call to a cluster that does not answer ends after 3 s; a new client finds one that is back in a few more.
SEEN_S = 40.0
Beat = dict[str, Any]


@pytest.fixture(scope="module")
def lab() -> Iterator[CloudLab]:
    with real_cloud(os.environ.get("VMHAD_AGENT_CEPH_LAB", "agents-cephtest"), "--storage", "rbd") as up:
        yield up


@pytest.fixture(scope="module")
def agents(lab: CloudLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    marker = tmp_path_factory.mktemp("marker") / "marker"
    marker.write_text(MARKER)
    ceph.run(Lab(lab.name), "rados", "-p", ceph.POOL, "put", "vmhad-storage", marker)
    where = f"{STORAGE} rados:{ceph.POOL}:{ceph.settings_file(Lab(lab.name))}:admin {MARKER}"
    first, second = (AgentProcess(lab.facts, host, ALOUD, storages=where) for host in lab.hosts)
    try:
        for one, peer in ((first.start(), "host02"), (second.start(), "host01")):
            one.next("the peer's record is read", lambda beat, peer=peer: record(beat, peer), SEEN_S)
        yield first, second
    finally:
        first.stop()
        second.stop()


def record(beat: Beat, peer: str) -> dict[str, Any]:
    found: dict[str, Any] = beat["peers"][peer]["storage"].get(STORAGE, {})
    return found


def state(beat: Beat, server: str) -> str:
    return str((beat["domains"] or {}).get(server, {}).get("state"))


def moves(agent: AgentProcess, peer: str) -> None:
    first = agent.next("the peer's record is read", lambda beat: record(beat, peer), SEEN_S)
    count = record(first, peer)["count"]
    agent.next("the peer's record moves", lambda beat: record(beat, peer).get("count", 0) > count + 3, SEEN_S)


def test_peers_read_each_other(agents: tuple[AgentProcess, AgentProcess]) -> None:
    first, second = agents
    moves(first, "host02")
    moves(second, "host01")
    assert first.beats()[-1]["storages"] == {STORAGE: "up"}


def test_a_cluster_that_does_not_answer(lab: CloudLab, agents: tuple[AgentProcess, AgentProcess]) -> None:
    first, second = agents
    known = len(first.beats())
    lab.command("stop", "ceph-osd")
    for one, peer in ((first, "host02"), (second, "host01")):
        beat = one.next("it is down", lambda beat: beat["storages"] == {STORAGE: "down"}, SEEN_S)
        assert record(beat, peer) == {}
    lab.command("start", "ceph-osd")
    for one, peer in ((first, "host02"), (second, "host01")):
        one.next("it is up", lambda beat: beat["storages"] == {STORAGE: "up"}, SEEN_S)
        moves(one, peer)
    times = [beat["uptime_s"] for beat in first.beats()[known:]]
    assert max(late - early for early, late in zip(times, times[1:], strict=False)) < 2.0


def test_a_writer_that_is_cut_off(lab: CloudLab, agents: tuple[AgentProcess, AgentProcess]) -> None:
    """Its guest runs on without a disk: Nova pauses none for that, and neither Nova nor libvirt's list would tell."""
    first, second = agents
    (guest,) = lab.boot(1, host="host01")
    first.next("the guest runs", lambda beat: state(beat, guest) == "running", SEEN_S)
    address = network.address("host01") + "/32"
    ceph.run(Lab(lab.name), "ceph", "osd", "blocklist", "range", "add", address)
    try:
        beat = second.next("it stands still", lambda beat: record(beat, "host01").get("still_s", 0) > 4.0, SEEN_S)
        assert beat["peers"]["host01"]["planes"] == {"management": "up"} and beat["storages"] == {STORAGE: "up"}
        first.next("it is down", lambda beat: beat["storages"] == {STORAGE: "down"}, SEEN_S)
        first.wait("it was frozen", lambda beats: any(state(beat, guest) == "frozen" for beat in beats), SEEN_S)
        assert lab.server(guest)["OS-EXT-STS:power_state"] == 1
    finally:
        ceph.run(Lab(lab.name), "ceph", "osd", "blocklist", "range", "rm", address)
    moves(second, "host01")
    first.next("it is up", lambda beat: beat["storages"] == {STORAGE: "up"}, SEEN_S)
