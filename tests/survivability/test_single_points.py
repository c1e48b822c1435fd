# SPDX-License-Identifier: Apache-2.0
"""What hangs on one thing is listed once, by its kind, with what to do; and a cloud without such things lists none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from vmhad.kernel.cloud import ComputeService, Group, Room, Server, ServerState
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import VOLUMES, Backend, Host, Segment
from vmhad.survivability.cloud import Cloud
from vmhad.survivability.single_points import single_points

HOSTS = ("h1", "h2", "h3", "h4")
LEFT_ALONE = {"vmhad": "false"}
RACKS = {"h1": "r1", "h2": "r1", "h3": "r2", "h4": "r2"}


def vm(name: str, host: str, **options: object) -> Server:
    return Server(name, name, host, ServerState.ACTIVE, vcpus=1, ram_mib=1024, volume_backed=True, **options)  # type: ignore[arg-type]


def segment(racks: dict[str, str], backends: tuple[Backend, ...] = ()) -> Segment:
    return Segment("s", tuple(Host(name, {"rack": racks[name]} if racks[name] else {}) for name in HOSTS), backends)


SOUND = Cloud(
    segments=(segment(RACKS, (Backend("ceph", frozenset({VOLUMES}), frozenset(HOSTS)),)),),
    policies={"s": Policy()},
    services=tuple(ComputeService(name, True, True, "", False, "") for name in HOSTS),
    rooms={name: Room(name, 8, 8192, 100) for name in HOSTS},
    zones=dict.fromkeys(HOSTS, "az1"),
    servers=(vm("a", "h1"), vm("b", "h3"), vm("c", "h2", zone="az1", zone_pinned=True)),
    groups=(Group("g", "anti-affinity", ("a", "b")), Group("one", "soft-affinity", ("c",))),
    aggregates=dict.fromkeys(HOSTS, ("all",)),
)


def with_group(*members: str, policy: str = "anti-affinity") -> Cloud:
    more = (vm("d", "h1"), vm("e", "h2"))
    return replace(SOUND, servers=(*SOUND.servers, *more), groups=(Group("g", policy, members),))


def with_backend(clients: frozenset[str]) -> Cloud:
    return replace(SOUND, segments=(segment(RACKS, (Backend("lun", frozenset({VOLUMES}), clients),)),))


FOUND: list[tuple[Cloud, str, str, str]] = [
    (with_group("a"), "group_of_one", "g", "with one VM that has a host, on h1"),
    (with_group("a", "gone"), "group_of_one", "g", "on h1"),
    (with_group("a", "d", policy="soft-anti-affinity"), "group_on_one_host", "g", "all 2 VMs are on h1"),
    (with_group("a", "e"), "group_in_one_domain", "g", "all 2 VMs are in rack r1"),
    (replace(SOUND, unfenced={"h2": "none"}, segments=(segment(RACKS),)), "host_without_fence", "h2", "none; nothing"),
    (replace(SOUND, unfenced={"h2": "no BMC"}), "host_without_fence", "h2", "only ceph can prove it cut off"),
    (replace(SOUND, segments=(segment(RACKS | {"h4": ""}),)), "hosts_in_no_domain", "s", "1 of 4 hosts name no rack"),
    (replace(SOUND, segments=(segment(dict.fromkeys(HOSTS, "r")),), groups=()), "segment_in_one_domain", "s", "rack r"),
    (replace(SOUND, served_by={"nfs": "filer"}), "storage_behind_one_host", "nfs", "filer is the one server"),
    (with_backend(frozenset({"h2"})), "storage_of_one_host", "s/lun", "only h2 of its hosts has it"),
    (replace(SOUND, aggregates={"h1": ("ssd",)}), "aggregate_without_room", "ssd", "1024 MiB of RAM|1 vCPUs"),
    (replace(SOUND, zones={**SOUND.zones, "h2": "az2"}), "zone_without_room", "az2", "for the VMs of h2"),
]  # fmt: skip


def test_a_sound_cloud_lists_none() -> None:
    assert single_points(SOUND) == ()


@pytest.mark.parametrize(("cloud", "kind", "subject", "because"), FOUND, ids=[f"{row[1]}-{row[3]}" for row in FOUND])
def test_each_is_found_with_what_to_do(cloud: Cloud, kind: str, subject: str, because: str) -> None:
    (one,) = single_points(cloud)
    assert (one.kind, one.subject) == (kind, subject)
    assert any(part in one.because for part in because.split("|")), one.because
    assert one.to_do


NONE: list[Callable[[], Cloud]] = [
    lambda: with_group("a", "d", policy="affinity"),
    lambda: with_group("a", "b", "d"),
    lambda: replace(SOUND, aggregates={"h1": ("ssd",), "h3": ("ssd",)}),
    lambda: with_backend(frozenset({"h1", "h4"})),
    lambda: replace(SOUND, servers=(vm("a", "h1", metadata=LEFT_ALONE),), groups=(), aggregates={"h1": ("ssd",)}),
]  # fmt: skip


@pytest.mark.parametrize("cloud", NONE)
def test_what_is_enough_is_not_listed(cloud: Callable[[], Cloud]) -> None:
    assert single_points(cloud()) == ()


def test_an_aggregate_whose_other_hosts_are_closed_has_no_room() -> None:
    of_two = replace(SOUND, aggregates={"h1": ("ssd",), "h3": ("ssd",)})
    closed = tuple(replace(one, enabled=one.host != "h3") for one in SOUND.services)
    (one,) = single_points(replace(of_two, services=closed))
    assert (one.kind, one.subject) == ("aggregate_without_room", "ssd") and "for the VMs of h1" in one.because
