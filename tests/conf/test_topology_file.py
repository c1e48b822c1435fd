# SPDX-License-Identifier: Apache-2.0
"""One schema for engine, rehearsal and export: what is written is read again, and what is wrong is told by its field."""

# One mistake, one line: a table that is wrapped is not read.
# ruff: noqa: E501
from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from vmhad.cmd.topology import merged, summary
from vmhad.conf.bmcs import BmcDefaults
from vmhad.conf.segments_file import load_segments
from vmhad.conf.settings import BmcAccess, ConfigError
from vmhad.conf.topology import HostInventory, Topology
from vmhad.conf.topology_file import load_policy, load_topology, topology_text
from vmhad.drivers.compute.census import Census, Stock
from vmhad.kernel.cloud import Group, Server, ServerState
from vmhad.kernel.policy import CutStorage, Policy, SilentMeans
from vmhad.kernel.topology import Host, Segment

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "etc" / "vmhad" / "segments.yaml.sample"
THREE_RACKS = ROOT / "tests" / "sim" / "topologies" / "three_racks.yaml"
PASSWORD = "pw-of-bmc"
AT = "2026-11-20T12:00:00+00:00"

OF_ALL = Policy(failed_share_max=0.3)
CLOUD = Topology(
    segments=(Segment("s1", (Host("h1", {"rack": "r1", "power": "f1"}, {"management": "198.51.100.11", "tenant": "2001:db8::1"}, CutStorage.NEVER), Host("h2"))), Segment("s2", (Host("h3"),))),
    policy=OF_ALL,
    policies={"s1": replace(OF_ALL, silent_means=SilentMeans.FENCE), "s2": OF_ALL},
    inventories={"h1": HostInventory(96, 385000, None, "az1", ("ssd",), ("CUSTOM_SSD",)), "h3": HostInventory(zone="nova")},
    servers=(
        Server("a", "web: 1", "h1", ServerState.ACTIVE, volume_backed=True, locked=True, vcpus=4, ram_mib=512, zone="az1", zone_pinned=True, metadata={"vmhad": "false"}),
        Server("b", "web 2", "h2", ServerState.STOPPED, disk_gib=20),
    ),
    groups=(Group("g1", "anti-affinity", ("a", "b"), 2), Group("g2", "soft-affinity", ())),
    needs={"a": ("CUSTOM_SSD", "HW_NIC")},
)  # fmt: skip
BMCS = {
    name: BmcAccess(f"192.0.2.{number}", 623, "operator-of-bmc", PASSWORD, "operator", "")
    for number, name in enumerate(("h1", "h2", "h3"), 1)
}
BMCS["h2"] = replace(
    BMCS["h2"], port=443, privilege="", driver="redfish", system="/redfish/v1/Systems/2", ca_file="/etc/hostname"
)
BMCS["h3"] = replace(BMCS["h3"], second=BmcAccess("192.0.2.9", 623, "pdu", PASSWORD, "operator", "", outlet=True))
BMCS["h1"] = replace(
    BMCS["h1"],
    outlets=tuple(BmcAccess(f"192.0.2.{n}", 623, "pdu", PASSWORD, "operator", "", outlet=True) for n in (20, 21)),
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "cloud.yaml").write_text(topology_text(CLOUD, AT))
    assert load_topology(str(tmp_path / "cloud.yaml")) == CLOUD


def test_an_export_tells_nothing_of_bmcs() -> None:
    text = topology_text(CLOUD, AT)
    for secret in (PASSWORD, "192.0.2.1", "operator-of-bmc", "bmc"):
        assert secret not in text


def test_an_export_with_bmcs_is_an_engines_segments_file_but_for_the_passwords(tmp_path: Path) -> None:
    text = topology_text(CLOUD, AT, BMCS)
    assert PASSWORD not in text and "192.0.2.3" in text
    (tmp_path / "segments.yaml").write_text(text)
    secret = tmp_path / "secret.yaml"
    secret.touch(0o600)
    secret.write_text(f"default: {PASSWORD}\ndefault/second_power: {PASSWORD}\ndefault/outlets: {PASSWORD}\n")
    told = load_segments(str(tmp_path / "segments.yaml"), str(secret), OF_ALL, BmcDefaults())
    assert (told.segments, dict(told.policies), dict(told.bmcs)) == (CLOUD.segments, dict(CLOUD.policies), BMCS)


def test_the_sample_can_be_rehearsed_when_its_comments_are_taken_in(tmp_path: Path) -> None:
    """What it says of the optional parts is true."""
    plain, optional = SAMPLE.read_text().split("# exported:")
    lines = ("# exported:" + optional).splitlines()
    (tmp_path / "cloud.yaml").write_text(plain + "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines))
    told = load_topology(str(tmp_path / "cloud.yaml"))
    assert told.servers[0].name == "web-1" and told.servers[0].metadata == {"vmhad": "false"}
    assert told.groups[0].members == (told.servers[0].id,)
    assert told.policy == Policy(failed_share_max=0.3)
    inventory = re.search(r"# inventory: (\{.*\})", plain)
    assert inventory is not None and set(yaml.safe_load(inventory[1])) == set(HostInventory.__slots__)


def test_policy_of_the_command_line_replaces_the_exported_one(tmp_path: Path) -> None:
    (tmp_path / "cloud.yaml").write_text(topology_text(CLOUD, AT))
    (tmp_path / "what-if.yaml").write_text("recoveries_max: 3\n")
    (tmp_path / "vmhad.conf").write_text("[policy]\nrecoveries_max = 4\n[nova]\nauth_url = http://k/v3\n")
    for name, recoveries in (("what-if.yaml", 3), ("vmhad.conf", 4)):
        told = load_topology(str(tmp_path / "cloud.yaml"), load_policy(str(tmp_path / name)))
        assert told.policies["s2"] == Policy(recoveries_max=recoveries)
        assert told.policies["s1"] == Policy(recoveries_max=recoveries, silent_means=SilentMeans.FENCE)


def test_the_example_of_the_tests_can_be_read() -> None:
    told = load_topology(str(THREE_RACKS))
    assert len(told.servers) == 84 and len(told.inventories) == 12


Document = dict[str, Any]
MISTAKES: list[tuple[Callable[[Document], object], str]] = [
    (lambda top: top.update(severs=[]), "the file has an unknown field 'severs'"),
    (lambda top: top["exported"]["policy"].update(silent=1), "exported.policy has an unknown key 'silent'"),
    (lambda top: top["segments"][1].update(name="s1"), "segments[1].name repeats the segment 's1'"),
    (lambda top: top["segments"][1]["hosts"][0].update(name="h1"), "segments[1].hosts[0] repeats the host 'h1', which is in segment 's1'"),
    (lambda top: top["segments"][0]["hosts"][0]["inventory"].update(vcpus=-1), "segments[0].hosts[0].inventory.vcpus must be a whole number from 0"),
    (lambda top: top["segments"][0]["hosts"][0]["inventory"].update(traits=[]), "segments[0].hosts[0].inventory.traits must be a list with at least one entry"),
    (lambda top: top["segments"][1]["hosts"][0].update(planes={"management": "198.51.100.11"}), "segments[1].hosts[0] has the management address 198.51.100.11, which is that of 'h1'"),
    (lambda top: top["servers"][0].pop("host"), "servers[0] lacks the field 'host'"),
    (lambda top: top["servers"][0].update(host="h9"), "servers[0].host names 'h9', which is a host of no segment here"),
    (lambda top: top["servers"][1].update(id="a"), "servers[1].id repeats the server a"),
    (lambda top: top["servers"][1].update(group="g9"), "servers[1].group names 'g9', which is not among the groups here"),
    (lambda top: top["servers"][1].update(state="SHUTOFF"), "servers[1].state must be one of active, "),
    (lambda top: top["servers"][1].update(locked="yes"), "servers[1].locked must be true or false"),
    (lambda top: top["groups"][0].update(policy="apart"), "groups[0].policy must be one of affinity, "),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
def test_a_mistake_is_told_by_its_field(tmp_path: Path, spoil: Callable[[Document], object], said: str) -> None:
    document = yaml.safe_load(topology_text(CLOUD, AT))
    spoil(document)
    path = tmp_path / "cloud.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError) as error:
        load_topology(str(path))
    assert str(error.value).startswith(f"{path}: {said}") and str(error.value).endswith(".")


@pytest.mark.parametrize(
    "text", ["[policy]\nsilent_means = perhaps\n", "[policy]\nsilnt_means = hold\n", "no ini file"]
)
def test_a_wrong_policy_file_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "vmhad.conf"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"policy|ini"):
        load_policy(str(path))


# What becomes of a census.

CENSUS = Census(
    servers=(
        Server("a", "", "h1", ServerState.ACTIVE, task_state="rebuilding", metadata={"vmhad": "false", "owner": "private"}, fault="traceback of a user"),
        Server("b", "lone", "elsewhere", ServerState.ACTIVE),
        Server("c", "shelf", "", ServerState.SHELVED_OFFLOADED),
    ),
    needs={"a": ("CUSTOM_SSD",), "b": ("CUSTOM_SSD",)},
    groups=(Group("g2", "affinity", ("b",)), Group("g1", "anti-affinity", ("a", "b"))),
    stocks=(Stock("h1", "az1", 96, 385000, None, ("ssd",), ("CUSTOM_SSD",)), Stock("elsewhere")),
)  # fmt: skip


def told_settings() -> Any:
    """As much of vmhad's Settings as an export looks at."""
    segments = (Segment("s1", (Host("h1"), Host("h2"))),)
    return argparse.Namespace(segments=segments, policies={"s1": OF_ALL})


def test_an_export_has_what_is_in_a_segment_and_tells_what_is_not() -> None:
    told = merged(told_settings(), OF_ALL, CENSUS)
    assert [(one.id, one.name, dict(one.metadata), one.fault, one.task_state) for one in told.servers] == [
        ("a", "a", {"vmhad": "false"}, "", "")
    ]
    assert told.groups == (Group("g1", "anti-affinity", ("a",)),)
    assert dict(told.needs) == {"a": ("CUSTOM_SSD",)} and set(told.inventories) == {"h1"}
    lines = list(summary(told, CENSUS))
    assert lines == [
        "1 segments, 2 hosts, 1 servers, 1 groups",
        "1 in a segment, but Nova has no nova-compute of that name: h2",
        "1 in no segment, so not protected and not in the file: elsewhere",
        "2 servers on no host of a segment, so not in the file: lone, shelf",
    ]


def test_nothing_private_is_exported() -> None:
    text = topology_text(merged(told_settings(), OF_ALL, CENSUS), AT)
    assert "private" not in text and "traceback" not in text
