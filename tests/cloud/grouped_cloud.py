# SPDX-License-Identifier: Apache-2.0
"""A real small cloud full of groups: 12 hosts in three racks, 120 VMs in 30 groups of all kinds, and who judges what
became of them.

The judge asks Nova, Placement and the hypervisors alone. A rule counts as broken where the hosts that are left could
have kept it; there is room on them for everybody.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lab.cloud_lab import CloudLab

HOSTS, RACKS, MEMBERS = 12, 3, 4
# Kind, max_server_per_host, how many groups of it. Members of the last two kinds share a host.
KINDS = (
    ("anti-affinity", 0, 8),
    ("anti-affinity", 2, 4),
    ("soft-anti-affinity", 0, 6),
    ("affinity", 0, 6),
    ("soft-affinity", 0, 6),
)
APART = ("anti-affinity", "soft-anti-affinity")
BOOTS_S = 300.0


def racks_of(hosts: Sequence[str]) -> dict[str, str]:
    per_rack = len(hosts) // RACKS
    return {host: f"r{number // per_rack + 1}" for number, host in enumerate(hosts)}


@dataclass(frozen=True)
class Grouped:
    """kind, most: of the group, and how many of it one host may hold at most. where: server id -> its first host."""

    id: str
    kind: str
    most: int
    where: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """Of the VMs of the hosts that were lost: how many there were, how many run elsewhere with nothing wrong, how many
    Nova calls ERROR. broken: one sentence for each rule that is broken and need not be."""

    vms: int
    recovered: int
    error: int
    broken: tuple[str, ...]


def populate(lab: CloudLab, seed: int) -> list[Grouped]:
    """Members of groups that keep apart are in as many racks as can be; ten VMs or so a host."""
    dice, hosts = random.Random(f"groups {seed}"), lab.hosts[:HOSTS]
    racks, load = racks_of(hosts), Counter(dict.fromkeys(hosts, 0))
    drawn: list[tuple[str, str, int, list[str]]] = []
    for kind, most, count in KINDS:
        for number in range(count):
            group = lab.group(kind, f"{kind}-{most}-{number}", max_per_host=most)
            drawn.append((group, kind, most, _places(kind, racks, load, dice)))

    def boot(one: tuple[str, str, int, list[str]]) -> Grouped:
        group, kind, most, places = one
        ids = [lab.boot(1, host=host, group=group, name=f"{kind}-{host}", limit_s=BOOTS_S)[0] for host in places]
        limit = (most or 1) if kind == "anti-affinity" else MEMBERS
        return Grouped(group, kind, limit, dict(zip(ids, places, strict=True)))

    # One member after another, for Nova's late check of a group; four groups at a time.
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(boot, drawn))


def _places(kind: str, racks: Mapping[str, str], load: Counter[str], dice: random.Random) -> list[str]:
    places: list[str] = []
    for _ in range(MEMBERS):
        if places and kind not in APART:
            places.append(places[0])
        else:
            used = Counter(racks[one] for one in places)
            free = [host for host in racks if host not in places]
            places.append(min(free, key=lambda host: (used[racks[host]], load[host], dice.random())))
        load[places[-1]] += 1
    return places


def judged(lab: CloudLab, groups: Iterable[Grouped], lost: Iterable[str]) -> Outcome:
    """Once all is quiet."""
    groups, dead = list(groups), set(lost)
    rows = {row["id"]: row for row in lab.servers()}
    running: dict[str, list[str]] = {}
    for guest in lab.guests():
        if guest["can_run"] and guest["state"] == "running":
            running.setdefault(guest["uuid"], []).append(guest["host"])
    hit = {server for group in groups for server, host in group.where.items() if host in dead}
    hosts = {one: str(row["OS-EXT-SRV-ATTR:host"]) for one, row in rows.items()}
    well = {one for one in hit if rows[one]["status"] == "ACTIVE" and hosts[one] not in dead}
    recovered = {one for one in well if running.get(one) == [hosts[one]]}
    error = sum(rows[one]["status"] == "ERROR" for one in hit)
    left = [host for host in lab.hosts[:HOSTS] if host not in dead]
    broken = [why for group in groups for why in _broken(group, hosts, left, racks_of(lab.hosts[:HOSTS]))]
    return Outcome(len(hit), len(recovered), error, (*broken, *_overbooked(lab, left)))


def _broken(group: Grouped, hosts: Mapping[str, str], left: Sequence[str], racks: Mapping[str, str]) -> list[str]:
    """Of members that are still on a dead host nothing is said: they count as not recovered."""
    mine = [hosts[one] for one in group.where if hosts[one] in left]
    crowd, name = max(Counter(mine).values(), default=0), f"{group.kind} {group.id}"
    found: list[str] = []
    if group.kind == "anti-affinity" and crowd > group.most:
        found.append(f"{name}: {crowd} members on one host")
    if group.kind == "soft-anti-affinity" and crowd > 1 and len(left) >= len(mine):
        found.append(f"{name}: {crowd} members on one host, and there are {len(left)} hosts")
    if group.kind in APART:
        used, could = len({racks[one] for one in mine}), min(len(mine), len({racks[one] for one in left}))
        if used < could:
            found.append(f"{name}: in {used} racks, and {could} could be")
    elif len(set(mine)) > 1:
        found.append(f"{name}: parted over {len(set(mine))} hosts")
    return found


def _overbooked(lab: CloudLab, left: Sequence[str]) -> list[str]:
    """What Placement has on a host may be no more than what there is."""
    found: list[str] = []
    for row in lab.placement("/resource_providers")["resource_providers"]:
        if row["name"] not in left:
            continue
        there = lab.placement(f"/resource_providers/{row['uuid']}/inventories")["inventories"]
        used = lab.placement(f"/resource_providers/{row['uuid']}/usages")["usages"]
        for kind, one in there.items():
            if used.get(kind, 0) > (one["total"] - one["reserved"]) * one["allocation_ratio"]:
                found.append(f"{row['name']}: {used[kind]} {kind} are booked, more than there is")
    return found
