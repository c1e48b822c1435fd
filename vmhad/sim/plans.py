# SPDX-License-Identifier: Apache-2.0
"""Plans held against what Nova's scheduler makes of the same loss alone: the same clouds, twice.

Once vmhad recovers, once an operator evacuates what was lost by Nova's own choice of targets, in an arbitrary order and
one request after the other, and twice more what was left. The clouds are drawn so that what is left has vCPUs for all.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vmhad.kernel.cloud import ServerState
from vmhad.kernel.incident import State
from vmhad.ports import Refused
from vmhad.sim.directives import Stage
from vmhad.sim.inbox import incidents
from vmhad.sim.nova import EVACUABLE, ServerRow
from vmhad.sim.world import World

ROOM = 12
# What is left has so many vCPUs for each that is needed there.
SPARE_MIN = 1.1
TRIES = 3
REQUEST_S, SETTLES_S = 0.1, 60.0
LOOK_S, LIMIT_S = 5.0, 1500.0
POLICY = "spread_over=rack failed_share_max=0.9 evacuate_attempts_max=4"
# Rules that no recovery may break, and those that are kept where that can be.
HARD = ("anti-affinity", "affinity", "zone", "disk")
SOFT = ("soft-anti-affinity", "soft-affinity", "rack")


@dataclass
class Cloud:
    """lines: the directives that build it. lost: the hosts that die in it. rack: of each host; free: its vCPUs that no
    VM has; vms: VM -> the host that it starts on."""

    seed: int
    lines: list[str] = field(default_factory=list)
    lost: tuple[str, ...] = ()
    rack: dict[str, str] = field(default_factory=dict)
    free: dict[str, int] = field(default_factory=dict)
    vms: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of those that were lost. broken: rule -> how many VMs or groups break it then; fresh disks count by
    the VM."""

    vms: int
    recovered: int
    error: int
    broken: Mapping[str, int]

    @property
    def hard(self) -> int:
        return sum(self.broken[rule] for rule in HARD)

    @property
    def soft(self) -> int:
        return sum(self.broken[rule] for rule in SOFT)


@dataclass(frozen=True)
class Compared:
    seed: int
    nova: Outcome
    vmhad: Outcome
    cpu_s: float

    @property
    def is_worse(self) -> bool:
        """Fewer VMs, or more broken hard rules, or as many VMs and more broken soft ones."""
        ours, theirs = self.vmhad, self.nova
        same = ours.recovered == theirs.recovered
        return ours.recovered < theirs.recovered or ours.hard > theirs.hard or (same and ours.soft > theirs.soft)

    @property
    def is_better(self) -> bool:
        ours, theirs = self.vmhad, self.nova
        fewer = ours.hard < theirs.hard or (ours.recovered == theirs.recovered and ours.soft < theirs.soft)
        return not self.is_worse and (ours.recovered > theirs.recovered or fewer)


# The clouds.


def draw(seed: int) -> Cloud:
    rng, cloud = random.Random(f"plans {seed}"), Cloud(seed)
    racks, per_rack = 3, rng.choice((2, 3, 4))
    zones = rng.choice((1, 1, 2))
    movable = rng.random() < 0.5
    hosts = [f"h{number:02d}" for number in range(1, racks * per_rack + 1)]
    reach = set(rng.sample(hosts, len(hosts) * 2 // 3)) if rng.random() < 0.4 else set()
    cloud.lines = [f"seed {seed}", *([f"backend nfs reach={','.join(sorted(reach))}", "backend ceph"] if reach else [])]
    cloud.lines.append(f"segment s policy {POLICY}{' affinity_groups_movable=yes' * movable}")
    for number, host in enumerate(hosts):
        cloud.rack[host], cloud.free[host] = f"r{number // per_rack + 1}", ROOM
        cloud.lines.append(f"host {host} rack={cloud.rack[host]} room={ROOM}vcpu zone=z{number % zones + 1}")
    cloud.lost = _lost(rng, cloud.rack)
    _members(rng, cloud, hosts, reach)
    left = [host for host in hosts if host not in cloud.lost]
    for _ in range(len(hosts) * 8):
        host, vcpus = rng.choice(hosts), rng.choice((1, 1, 1, 2, 4))
        if _has_spare(cloud, left, host, vcpus):
            _add(cloud, host, vcpus, _words(rng, host, reach))
    cloud.lines += ["nova affinity-check off"] * movable
    return cloud


def _lost(rng: random.Random, rack: Mapping[str, str]) -> tuple[str, ...]:
    """A host, two of different racks, or a rack."""
    hosts, kind = sorted(rack), rng.choice(("host", "host", "two", "rack"))
    first = rng.choice(hosts)
    if kind == "rack":
        return tuple(one for one in hosts if rack[one] == rack[first])
    others = [one for one in hosts if rack[one] != rack[first]]
    return tuple(sorted({first, *([rng.choice(others)] if kind == "two" else [])}))


def _members(rng: random.Random, cloud: Cloud, hosts: Sequence[str], reach: set[str]) -> None:
    """Where the rule of their group wants them, and over the racks where they are to be apart."""
    left = [host for host in hosts if host not in cloud.lost]
    for number in range(1, rng.randint(3, 7)):
        policy = rng.choice(("affinity", "anti-affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"))
        cloud.lines.insert(1, f"group g{number} policy={policy}")
        if policy.endswith("anti-affinity"):
            by_rack = {cloud.rack[host]: host for host in rng.sample(hosts, len(hosts))}
            where = sorted(by_rack.values())[: rng.randint(2, 3)]
        else:
            where = [rng.choice(hosts)] * rng.randint(2, 3)
        for host in where:
            vcpus = rng.choice((1, 1, 2))
            if _has_spare(cloud, left, host, vcpus):
                _add(cloud, host, vcpus, f" group=g{number}{_words(rng, host, reach)}")


def _words(rng: random.Random, host: str, reach: set[str]) -> str:
    words = " zone-pinned" * (rng.random() < 0.2) + " state=stopped" * (rng.random() < 0.1)
    return words + " backend=nfs" * (host in reach and rng.random() < 0.5)


def _has_spare(cloud: Cloud, left: Sequence[str], host: str, vcpus: int) -> bool:
    """One more there leaves vCPUs elsewhere for all that is lost."""
    needed = sum(ROOM - cloud.free[one] for one in cloud.lost) + vcpus * (host in cloud.lost)
    there = sum(cloud.free[one] for one in left) - vcpus * (host in left)
    return cloud.free[host] >= vcpus and there >= SPARE_MIN * needed


def _add(cloud: Cloud, host: str, vcpus: int, words: str) -> None:
    name = f"v{len(cloud.vms) + 1:03d}"
    cloud.vms[name] = host
    cloud.free[host] -= vcpus
    cloud.lines.append(f"vm {name} on {host} vcpus={vcpus}{words}")


# Both sides.


def _built(cloud: Cloud) -> Stage:
    stage = Stage()
    for line in cloud.lines:
        stage.perform(line)
    return stage


def by_vmhad(cloud: Cloud) -> World:
    stage = _built(cloud)
    stage.perform("run 75s")
    for host in cloud.lost:
        stage.perform(f"cut {host}")
    world = stage.world
    until = world.agenda.now + LIMIT_S
    world.run(LOOK_S)
    while world.agenda.now < until and any(one.state not in (State.RECOVERED, State.STUCK) for one in incidents(world)):
        world.run(LOOK_S)
    if world.checkers.breaches:
        raise AssertionError(f"cloud {cloud.seed}: {world.checkers.breaches[0]}")
    return world


def by_nova(cloud: Cloud) -> World:
    """No target is named. What is in ERROR after a try is tried again, as an operator would."""
    world, rng = _built(cloud).world, random.Random(f"order {cloud.seed}")
    world.kill_engine("e1")
    for host in cloud.lost:
        world.datacentre.cut(host)
        world.nova.set_forced_down(host, True)
    for _ in range(TRIES):
        rows = [row for row in world.nova.servers.values() if row.host in cloud.lost and row.state in EVACUABLE]
        for row in rng.sample(rows, len(rows)):
            try:
                world.rebuilds.begin(row.id, "", False)
            except Refused:
                continue
            world.run(REQUEST_S)
        world.run(SETTLES_S)
    return world


def compare(seed: int) -> Compared:
    began, cloud = time.process_time(), draw(seed)
    nova, vmhad = _judged(cloud, by_nova(cloud)), _judged(cloud, by_vmhad(cloud))
    return Compared(seed, nova, vmhad, time.process_time() - began)


def compare_all(seeds: Sequence[int], jobs: int = 1) -> Iterator[Compared]:
    if jobs <= 1:
        yield from map(compare, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(compare, seeds, chunksize=4)


# What became of it.


def _judged(cloud: Cloud, world: World) -> Outcome:
    rows = [world.nova.servers[name] for name, host in sorted(cloud.vms.items()) if host in cloud.lost]
    broken = Counter(dict.fromkeys((*HARD, *SOFT), 0))
    zones = {name: host.zone for name, host in world.datacentre.hosts.items()}
    for row in rows:
        broken["zone"] += row.zone_pinned and zones[row.host] != zones[cloud.vms[row.id]]
        broken["disk"] += row.host not in cloud.lost and not _reaches_its_disk(world, row)
    for group in world.nova.groups.values():
        mine = [world.nova.servers[one].host for one in group.members]
        mine = [host for host in mine if host not in cloud.lost]
        apart, together = len(set(mine)) == len(mine), len(set(mine)) <= 1
        broken[group.policy] += not (apart if group.policy.endswith("anti-affinity") else together)
        racks = [cloud.rack[host] for host in mine]
        broken["rack"] += group.policy.endswith("anti-affinity") and len(set(racks)) < len(racks)
    recovered = sum(_is_recovered(cloud, world, row) for row in rows)
    error = sum(row.state is ServerState.ERROR for row in rows)
    return Outcome(len(rows), recovered, error, dict(broken))


def _reaches_its_disk(world: World, row: ServerRow) -> bool:
    """Or it has a fresh one there."""
    disks = world.datacentre.vms[row.id].disk.backends
    return all(row.host in world.datacentre.mounted.get(one, {row.host}) for one in disks)


def _is_recovered(cloud: Cloud, world: World, row: ServerRow) -> bool:
    """It is elsewhere, with its own disk, and as its user wants it."""
    wanted = world.nova.wished[row.id]
    guests = {row.host} if wanted is ServerState.ACTIVE else set()
    stands = row.state is wanted and world.datacentre.vms[row.id].guests == guests
    return row.host not in cloud.lost and stands and _reaches_its_disk(world, row)
