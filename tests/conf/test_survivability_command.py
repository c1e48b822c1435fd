# SPDX-License-Identifier: Apache-2.0
"""vmhad-manage survivability: what it makes of a topology file, of what Nova and Placement have, and of wrong words."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vmhad.cmd import survivability as command
from vmhad.cmd.survivability import asked, merged, of_settings, of_topology, unfenced
from vmhad.conf.settings import BmcAccess, ConfigError, PowerSettings, StorageAccess
from vmhad.conf.topology_file import load_topology
from vmhad.drivers.compute.census import Census, Stock
from vmhad.journal.policies import PolicyShelf
from vmhad.kernel.cloud import ComputeService, Group, Room, Server, ServerState
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Host, Segment
from vmhad.kernel.vm_policy import Match, Protect, Settings, VmPolicy
from vmhad.kernel.vm_resolve import Surroundings
from vmhad.sim.store import MemoryStore
from vmhad.survivability.document import survivability

COMMAND = Path(sys.executable).with_name("vmhad-manage")
LIMIT_S = 60.0
TOPOLOGY = """
segments:
- name: s1
  hosts:
  - {name: h1, domains: {rack: r1}, inventory: {vcpus: 8, ram_mib: 16384, zone: az1, aggregates: [ssd], traits: [GPU]}}
  - {name: h2, domains: {rack: r2}, inventory: {vcpus: 8, ram_mib: 16384, disk_gib: 100}}
  - {name: h3, domains: {rack: r2}, inventory: {vcpus: 8}}
groups:
- {id: g1, policy: anti-affinity}
servers:
- {id: a, name: web-1, host: h1, vcpus: 4, ram_mib: 8192, volume_backed: true, group: g1}
- {id: b, name: db, host: h2, vcpus: 6, ram_mib: 12288, volume_backed: true, needs: [GPU]}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "cloud.yaml"
    file.write_text(TOPOLOGY)
    return file


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, "survivability", *words], capture_output=True, text=True, timeout=LIMIT_S)


def test_a_topology_file_needs_no_configuration(path: Path) -> None:
    done = run("--topology", str(path), "--lose", "both=h2, h3", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {"at", "version", "segments", "losses", "single_points"} <= told.keys()
    left = {(row["kind"], row["name"]): [one["name"] for one in row["left"]] for row in told["losses"]}
    assert left["host", "h1"] == ["web-1"] and left["host", "h2"] == left["named", "both"] == ["db"]
    text = run("--topology", str(path))
    assert text.returncode == 0
    assert text.stdout.startswith("segment s1: 2 protected VMs, 3 hosts, 2 of them receive\n")
    assert "group_of_one g1: anti-affinity with one VM that has a host, on h1" in text.stdout


def test_again_and_again_it_tells_what_is_so_then(path: Path) -> None:
    words = [COMMAND, "survivability", "--topology", str(path), "--json", "--every", "0.1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())
            path.with_suffix(".new").write_text(TOPOLOGY.replace("vcpus: 6, ram_mib: 12288", "vcpus: 2, ram_mib: 4096"))
            path.with_suffix(".new").replace(path)
            told = (json.loads(process.stdout.readline()) for _ in range(100))
            later = next(row for row in told if row["losses"] != first["losses"])
        finally:
            process.terminate()
    assert [row["survived"] for row in first["losses"]] == [False, False, True, False, False]
    assert later["losses"][0]["survived"], "web-1 has room on h2 now"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("both", "--lose must be NAME=HOST,HOST, not 'both'."),
        ("both=h1,h9", "--lose both: no segment has a host 'h9'."),
        ("=h1", "--lose must be NAME=HOST,HOST, not '=h1'."),
    ],
)
def test_a_wrong_set_is_told_in_a_sentence(path: Path, word: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        asked([word], of_topology(load_topology(str(path))))
    assert str(error.value) == said
    done = run("--topology", str(path), "--lose", word)
    assert (done.returncode, done.stderr) == (2, f"vmhad-manage: {said}\n")


def test_a_file_says_what_is_left_on_each_host(path: Path) -> None:
    """Disk that nobody gave a figure of is a pool's; a host without a figure of RAM receives nothing."""
    cloud = of_topology(load_topology(str(path)))
    assert cloud.rooms == {"h1": Room("h1", 4, 8192, 1 << 30), "h2": Room("h2", 2, 4096, 100)}
    assert (cloud.traits, cloud.needs, cloud.aggregates) == ({"h1": ("GPU",)}, {"b": ("GPU",)}, {"h1": ("ssd",)})


def told_settings(**more: Any) -> Any:
    """As much of vmhad's Settings as is looked at."""
    power = SimpleNamespace(bmcs={"h1": object()}, via_agents=frozenset(), poll_workers=1)
    segments = (Segment("s1", (Host("h1"), Host("h2"))),)
    nfs = StorageAccess("nfs", "nfs_ganesha", frozenset({"nova"}), {"ssh": "vmhad@filer-1", "exports": [1]}, {})
    rbd = StorageAccess("rbd", "ceph", frozenset({"volumes"}), {"pools": ["vms"]}, {})
    told = {"segments": segments, "policies": {"s1": Policy()}, "power": power, "storages": (nfs, rbd)}
    return SimpleNamespace(**(told | more))


def test_nova_and_placement_say_the_same_as_values() -> None:
    census = Census(
        servers=(Server("a", "web-1", "h1", ServerState.ACTIVE),),
        needs={"a": ("GPU",)},
        groups=(Group("g2", "affinity", ("a",)), Group("g1", "affinity", ("a",))),
        stocks=(Stock("h1", "az1", 8, 16384, None, ("ssd",), ("GPU",)), Stock("h2")),
        services=(ComputeService("h1", True, True, "", False, ""),),
        rooms=(Room("h1", 4, 8192, 1),),
    )
    settings = told_settings()
    cloud = merged(settings, census, unfenced(settings, ask_bmcs=False))
    assert cloud.zones == {"h1": "az1"} and cloud.traits == {"h1": ("GPU",)} and cloud.aggregates == {"h1": ("ssd",)}
    assert cloud.rooms == {"h1": Room("h1", 4, 8192, 1)} and [one.id for one in cloud.groups] == ["g1", "g2"]
    assert cloud.unfenced == {"h2": "the segments file names no BMC of it"}
    assert cloud.served_by == {"nfs": "filer-1"}


def test_a_bmc_that_is_asked_and_does_not_answer_is_told() -> None:
    """The one that only its peers reach is not asked from here, and not called silent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        one = BmcAccess("127.0.0.1", silent.getsockname()[1], "admin", "pw-of-bmc", "operator", "")
        bmcs = {"h1": one, "h2": replace(one, via="agents")}
        power = PowerSettings("ipmi", 0.5, 1.0, 0.5, 2, 10.0, False, bmcs)
        found = unfenced(told_settings(power=power), ask_bmcs=True)
    assert found.keys() == {"h1"} and found["h1"].startswith("its BMC does not tell (")
    assert "pw-of-bmc" not in str(found)


class Asked:
    """A Nova with two VMs on a host, the one in a group."""

    def prospect(self) -> Census:
        servers = tuple(Server(one, one, "h1", ServerState.ACTIVE) for one in ("a", "b"))
        services = tuple(ComputeService(host, True, True, "", False, "") for host in ("h1", "h2"))
        return Census(servers, {}, (), (), services, tuple(Room(host, 4, 8192, 100) for host in ("h1", "h2")))

    def surroundings(self, keys: frozenset[str], domains: frozenset[str]) -> Surroundings:
        return Surroundings(groups={"a": ("g1", "pair")} if keys == {"group"} else {})

    def close(self) -> None:
        """Nothing is open."""


def test_what_the_policies_of_vms_say_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left alone is no loss, and what may be rebuilt from its image comes back."""
    monkeypatch.setattr(command, "open_compute", lambda settings: Asked())
    shelf, settings = PolicyShelf(MemoryStore()), told_settings()
    document, _ = survivability(of_settings(settings, shelf, False), (), None)
    assert document["segments"][0]["protected"] == 2 and len(document["never"]) == 2
    off = VmPolicy("off", Match(group=("pair",)), Settings(Protect.NO))
    shelf.replace(0, (off, VmPolicy("rest", Match(), Settings(rebuild_local_disks=True))))
    document, _ = survivability(of_settings(settings, shelf, False), (), None)
    assert document["segments"][0]["protected"] == 1 and not document["never"]
