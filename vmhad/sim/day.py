# SPDX-License-Identifier: Apache-2.0
"""A day of an operator's own cloud on paper: the moment of the named failure, and the small faults of any day.

A seed draws the same day for ever. Everything in it is a directive, so that a day can be told as a story.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from vmhad.conf.topology import HostInventory, Topology
from vmhad.kernel.cloud import Server
from vmhad.kernel.topology import OF_NOVA, VOLUMES, Backend, Host
from vmhad.sim.datacentre import SimHost
from vmhad.sim.draft import Draft
from vmhad.sim.nova import GroupRow, ServerRow

DAY_S = 86400.0
# What strikes: the word of an operator, and the directive that it is.
KINDS = {"cut": "cut", "crash": "crash", "hang": "hang", "unplug": "unplug", "switch": "isolate"}
# Nothing happens before the engine has read everything a few times.
WARM_UP_S = 60.0
# The failure strikes in this part of the day, so that there is time to see how it ends.
STRIKES_BETWEEN = (0.05, 0.75)
# How often a day each small fault comes, in the whole cloud and on one host.
OF_THE_CLOUD = {"nova": 0.5, "heartbeats": 0.3, "store": 0.2, "engine": 0.3}
OF_A_HOST = {"compute": 1 / 30, "bmc": 1 / 30, "reboot": 1 / 180, "cut": 1 / 1000, "crash": 1 / 1000}


@dataclass(frozen=True)
class Failure:
    """What is rehearsed: the hosts that fail at one moment, and how (a key of KINDS)."""

    hosts: tuple[str, ...]
    kind: str = "cut"


@dataclass(frozen=True)
class Terms:
    """noise: how many times as many small faults as a day has. spawn_s: least and most seconds a guest may take.

    whole: every second is stepped, the calm ones too; it changes nothing but the time it takes.
    """

    hours: float = 24.0
    noise: float = 1.0
    spawn_s: tuple[float, float] = (1.0, 20.0)
    whole: bool = False


@dataclass(frozen=True)
class Day:
    """A drawn day. directives: (seconds, line), in order; the failure is what comes at strike_s."""

    seed: int
    strike_s: float
    spawn_s: tuple[float, float]
    directives: tuple[tuple[float, str], ...]


# The drawing.


def draw(seed: int, topology: Topology, failure: Failure, terms: Terms) -> Day:
    """The day of a seed: the same for ever, whatever else is drawn."""
    chance = random.Random(f"rehearsal {seed}")
    length_s = terms.hours * 3600.0
    first, last = STRIKES_BETWEEN
    strike_s = max(WARM_UP_S, round(chance.uniform(first, last) * length_s, 3))
    least, most = terms.spawn_s
    typical_s = chance.uniform(least, most)
    faults = [(strike_s, f"{KINDS[failure.kind]} {host}") for host in failure.hosts]
    names = [host for segment in topology.segments for host in segment.names]
    for at, line in _small_faults(chance, names, length_s, terms.noise):
        if at < length_s and not (at >= strike_s and _touches(line, failure.hosts)):
            faults.append((round(at, 3), line))
    return Day(seed, strike_s, (max(least, typical_s / 2), min(most, typical_s * 2)), tuple(sorted(faults)))


def _touches(line: str, hosts: tuple[str, ...]) -> bool:
    """From the strike on the struck hosts are left alone: nothing small repairs them."""
    return bool(set(line.split()) & set(hosts))


def _small_faults(
    chance: random.Random, hosts: list[str], length_s: float, noise: float
) -> Iterator[tuple[float, str]]:
    for kind, a_day in OF_THE_CLOUD.items():
        for at in _moments(chance, a_day * noise, length_s):
            yield from _fault_of_the_cloud(kind, at, chance)
    for kind, a_day in OF_A_HOST.items():
        for at in _moments(chance, a_day * noise * len(hosts), length_s):
            yield from _fault_of_a_host(kind, at, chance.choice(hosts), chance)


def _moments(chance: random.Random, a_day: float, length_s: float) -> Iterator[float]:
    """When something comes that comes so often a day, without memory."""
    at = WARM_UP_S
    while a_day > 0:
        at += chance.expovariate(a_day / DAY_S)
        if at >= length_s:
            return
        yield at


def _fault_of_the_cloud(kind: str, at: float, chance: random.Random) -> Iterator[tuple[float, str]]:
    lines = {
        "nova": f"nova down {chance.uniform(2, 40):.1f}s",
        "heartbeats": f"nova heartbeats-lost {chance.uniform(5, 45):.1f}s",
        "store": f"store down {chance.uniform(1, 15):.1f}s",
        "engine": f"freeze engine e1 {chance.uniform(1, 20):.1f}s",
    }
    yield at, lines[kind]


def _fault_of_a_host(kind: str, at: float, host: str, chance: random.Random) -> Iterator[tuple[float, str]]:
    """What befalls it, and when somebody or something mends it."""
    if kind == "compute":
        yield at, f"stop-compute {host}"
        yield at + chance.uniform(5, 45), f"restore {host}"
    elif kind == "bmc":
        yield at, f"bmc {host} dead"
        yield at + chance.uniform(60, 1800), f"bmc {host} ok"
    elif kind == "reboot":
        yield at, f"reboot {host}"
    else:
        yield at, f"{kind} {host}"
        yield at + chance.uniform(1800, 14400), f"restore {host}"


# The building.


def draft_of(topology: Topology, seed: int) -> Draft:
    """The cloud of a topology on paper, with one engine."""
    draft = Draft(seed=seed)
    for segment in topology.segments:
        draft.policies[segment.name] = topology.policies[segment.name]
        draft.hosts[segment.name] = list(segment.hosts)
        draft.truths.extend(_truth(host, topology) for host in segment.hosts)
    for group in topology.groups:
        draft.groups[group.id] = GroupRow(group.id, group.policy, list(group.members), group.max_per_host)
    clients: dict[str, Backend] = {}
    for one in (backend for segment in topology.segments for backend in segment.backends):
        known = clients.get(one.name, one)
        clients[one.name] = replace(one, clients=one.clients | known.clients)
    draft.backends.extend(clients.values())
    for server in topology.servers:
        row = _row(server, topology.needs.get(server.id, ()))
        row.backend = _kept_on(server, draft.backends) if draft.backends else row.backend
        draft.vms.append(row)
    return draft


def _kept_on(server: Server, backends: Sequence[Backend]) -> str:
    """The storage that has its disk; one that cannot be cut off where none says so."""
    kind = VOLUMES if server.volume_backed else OF_NOVA
    mine = (one.name for one in backends if kind in one.holds and server.host in one.clients)
    return next(mine, "elsewhere" if server.volume_backed else "local")


def _truth(host: Host, topology: Topology) -> SimHost:
    """What nobody said of a host is as the simulator has it."""
    told = topology.inventories.get(host.name, HostInventory())
    asked = {_joined(needs) for needs in topology.needs.values()}
    traits = {one for one in asked if set(one.split("+")) <= set(told.traits)}
    truth = SimHost(host.name, dict(host.domains), zone=told.zone or "nova", traits=frozenset({*told.traits, *traits}))
    truth.vcpus = truth.vcpus if told.vcpus is None else told.vcpus
    truth.ram_mib = truth.ram_mib if told.ram_mib is None else told.ram_mib
    return truth


def _joined(needs: tuple[str, ...]) -> str:
    """The simulator's servers need one trait; several are one of their own."""
    return "+".join(sorted(needs))


def _row(server: Server, needs: tuple[str, ...]) -> ServerRow:
    return ServerRow(
        id=server.id,
        name=server.name,
        host=server.host,
        state=server.state,
        locked=server.locked,
        local_disk=not server.volume_backed,
        vcpus=server.vcpus,
        ram_mib=server.ram_mib,
        zone_pinned=server.zone_pinned,
        metadata=dict(server.metadata),
        needs=_joined(needs),
    )
