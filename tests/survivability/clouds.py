# SPDX-License-Identifier: Apache-2.0
"""Clouds drawn at random, with every kind of rule, and what befalls them between two looks."""

from __future__ import annotations

import random
from dataclasses import replace

from vmhad.kernel.cloud import ComputeService, Group, Migration, Room, Server, ServerState
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Host, Segment
from vmhad.survivability.cloud import Cloud

KINDS = ("affinity", "anti-affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity")


def drawn(dice: random.Random, hosts: int, vms: int, plain: bool = False, spare_mib: int = 8192) -> Cloud:
    """Two segments where there are hosts enough. plain: every VM can be evacuated, and none is tied to others."""
    names = [f"h{number}" for number in range(hosts)]
    at = hosts if hosts < 6 else dice.choice((hosts, hosts // 2))
    policy = Policy(
        affinity_groups_movable=plain or dice.random() < 0.7,
        evacuations_max=dice.choice((2, 64)),
        evacuations_per_target_max=dice.choice((1, 2, 16)),
        rebuild_local_disks=plain or dice.random() < 0.5,
    )
    segments = tuple(_segment(name, hosts_of) for name, hosts_of in (("s", names[:at]), ("t", names[at:])) if hosts_of)
    traits = {name: ("gpu",) for name in names if dice.random() < 0.6}
    servers = tuple(server(dice, f"v{number}", dice.choice(names), plain) for number in range(vms))
    return Cloud(
        segments=segments,
        policies={one.name: policy for one in segments},
        services=tuple(_service(name, plain or dice.random() < 0.9) for name in names),
        rooms={name: _room(dice, name, spare_mib) for name in names if plain or dice.random() < 0.95},
        zones={name: dice.choice(("a", "a", "b")) for name in names},
        servers=servers,
        groups=_groups(dice, [one.id for one in servers], plain),
        traits=traits,
        needs={one.id: ("gpu",) for one in servers if dice.random() < 0.1 and not plain},
    )


def _segment(name: str, hosts: list[str]) -> Segment:
    return Segment(name, tuple(Host(one, {"rack": f"r{number % 3}"}) for number, one in enumerate(hosts)))


def _service(name: str, enabled: bool) -> ComputeService:
    return ComputeService(name, True, enabled, "", False, "")


def _room(dice: random.Random, name: str, spare_mib: int) -> Room:
    return Room(name, dice.randint(0, 2 * spare_mib // 1024), dice.randint(0, spare_mib), dice.choice((0, 40, 400)))


def server(dice: random.Random, name: str, host: str, plain: bool = False) -> Server:
    states = [ServerState.ACTIVE] * 12 + [ServerState.STOPPED, ServerState.ERROR, ServerState.PAUSED]
    return Server(
        name,
        name,
        host,
        ServerState.ACTIVE if plain else dice.choice(states),
        volume_backed=dice.random() < 0.8,
        vcpus=dice.randint(1, 3),
        ram_mib=1024 * dice.randint(1, 2),
        disk_gib=20,
        zone="a",
        zone_pinned=dice.random() < 0.2,
        metadata={"vmhad": "false"} if dice.random() < 0.05 else {},
    )


def _groups(dice: random.Random, free: list[str], plain: bool) -> tuple[Group, ...]:
    found = []
    for number in range(len(free) // 5):
        policy = dice.choice(KINDS[1:] if plain else KINDS)
        members = [free.pop(dice.randrange(len(free))) for _ in range(min(len(free), dice.randint(1, 4)))]
        found.append(Group(f"g{number}", policy, tuple(members), dice.choice((1, 1, 2))))
    return tuple(found)


def changed(dice: random.Random, cloud: Cloud, number: int) -> Cloud:
    """One thing happened to it."""
    names = [name for segment in cloud.segments for name in segment.names]
    name, other = dice.choice(names), dice.choice(names)
    one = dice.choice(cloud.servers)
    rest = tuple(vm for vm in cloud.servers if vm is not one)
    rooms = dict(cloud.rooms)
    what = dice.choice(("came", "went", "moved", "room", "service", "group", "zone", "needs", "traits", "migrates"))
    if what == "came":
        return replace(cloud, servers=(*cloud.servers, server(dice, f"new{number}", name)))
    if what == "went":
        return replace(cloud, servers=rest)
    if what == "moved":
        return replace(cloud, servers=(*rest, replace(one, host=other)))
    if what == "room":
        return replace(cloud, rooms=rooms | {name: _room(dice, name, 8192)})
    if what == "service":
        flipped = tuple(replace(it, enabled=not it.enabled) if it.host == name else it for it in cloud.services)
        return replace(cloud, services=flipped)
    if what == "group" and cloud.groups:
        group = dice.choice(cloud.groups)
        members = tuple(vm for vm in group.members if vm != dice.choice(group.members))
        rest_of = tuple(it for it in cloud.groups if it is not group)
        return replace(cloud, groups=(*rest_of, replace(group, members=members)) if members else rest_of)
    if what == "zone":
        return replace(cloud, zones={**cloud.zones, name: dice.choice(("a", "b"))})
    if what == "needs":
        return replace(cloud, needs={**cloud.needs, one.id: ("gpu",)})
    if what == "traits":
        return replace(cloud, traits={**cloud.traits, name: dice.choice(((), ("gpu",)))})
    move = Migration(f"m{number}", one.id, "live-migration", "running", one.host, other, "")
    return replace(cloud, migrations=(move,) if not cloud.migrations else ())
