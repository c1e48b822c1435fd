# SPDX-License-Identifier: Apache-2.0
"""What a cloud hangs on by one thread, and what to do about it. No failure is needed to see it, and no room helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from vmhad.guards.hosts.board import disk_gib
from vmhad.kernel.cloud import Room, Server
from vmhad.kernel.topology import Segment
from vmhad.survivability.cloud import Cloud

APART = ("anti-affinity", "soft-anti-affinity")
ROOMS = ("vCPUs", "MiB of RAM", "GiB of disk")


@dataclass(frozen=True, slots=True)
class SinglePoint:
    """kind: what hangs on one; subject: whose it is; because: on what it hangs; to_do: in an operator's words."""

    kind: str
    subject: str
    because: str
    to_do: str


def single_points(cloud: Cloud) -> tuple[SinglePoint, ...]:
    """By kind and subject."""
    found = [*_groups(cloud), *_fences(cloud), *_domains(cloud), *_storages(cloud), *_aggregates(cloud), *_zones(cloud)]
    return tuple(sorted(found, key=lambda one: (one.kind, one.subject, one.because)))


def _groups(cloud: Cloud) -> Iterator[SinglePoint]:
    """Whoever wants its VMs apart means that one of them is left."""
    where = {one.id: one.host for one in cloud.servers if one.host}
    domains = {host.name: host.domains for segment in cloud.segments for host in segment.hosts}
    names = _names_of_domains(cloud.segments)
    for group in cloud.groups:
        hosts = [where[one] for one in group.members if one in where]
        if group.policy not in APART or not hosts:
            continue
        if len(hosts) == 1:
            yield SinglePoint(
                "group_of_one", group.id, f"{group.policy} with one VM that has a host, on {hosts[0]}",
                "start a second VM in the group, or delete the group",
            )  # fmt: skip
            continue
        if len(set(hosts)) == 1:
            yield SinglePoint(
                "group_on_one_host", group.id, f"all {len(hosts)} VMs are on {hosts[0]}",
                "live-migrate one of them to a host in another domain",
            )  # fmt: skip
            continue
        for kind in sorted(names):
            there = {domains.get(host, {}).get(kind, "") for host in hosts}
            if len(there) == 1 and there != {""} and len(names[kind]) > 1:
                yield SinglePoint(
                    "group_in_one_domain", group.id, f"all {len(hosts)} VMs are in {kind} {min(there)}",
                    f"live-migrate one of them to a host in another {kind}",
                )  # fmt: skip


def _names_of_domains(segments: Iterable[Segment]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for segment in segments:
        for host in segment.hosts:
            for kind, name in host.domains.items():
                found.setdefault(kind, set()).add(name)
    return found


def _fences(cloud: Cloud) -> Iterator[SinglePoint]:
    """Without a proof no VM of the host may start elsewhere."""
    for segment in cloud.segments:
        for name in segment.names:
            if name not in cloud.unfenced:
                continue
            cuts = [one.name for one in segment.backends_of(name)]
            if cuts:
                left = f"only {' and '.join(cuts)} can prove it cut off, for the VMs whose disks all lie there"
                to_do = "mend or name its BMC, so that VMs with other disks come back, too"
            else:
                left = "nothing can prove it dead but an operator's word"
                to_do = "mend or name its BMC, or have its storages cut it off; else be ready for «host confirm-down»"
            yield SinglePoint("host_without_fence", name, f"{cloud.unfenced[name]}; {left}", to_do)


def _domains(cloud: Cloud) -> Iterator[SinglePoint]:
    for segment in cloud.segments:
        kind = cloud.policies[segment.name].domain_kind
        told = Counter(host.domains.get(kind, "") for host in segment.hosts)
        untold = told.pop("", 0)
        if untold:
            yield SinglePoint(
                "hosts_in_no_domain", segment.name, f"{untold} of {len(segment.hosts)} hosts name no {kind}",
                f"name the {kind} of each host under «domains» of the segments file: its loss is not seen before",
            )  # fmt: skip
        elif len(told) == 1 and len(segment.hosts) > 1:
            yield SinglePoint(
                "segment_in_one_domain", segment.name, f"all its hosts are in {kind} {next(iter(told))}",
                f"take hosts of another {kind} into the segment: its VMs have no target elsewhere",
            )  # fmt: skip


def _storages(cloud: Cloud) -> Iterator[SinglePoint]:
    for name, host in sorted(cloud.served_by.items()):
        yield SinglePoint(
            "storage_behind_one_host", name, f"{host} is the one server of it",
            "serve it from two hosts with an address that moves: no VM with a disk there runs without that server",
        )  # fmt: skip
    for segment in cloud.segments:
        for backend in segment.backends:
            clients = sorted(backend.clients & set(segment.names))
            if len(clients) == 1 and len(segment.hosts) > 1:
                yield SinglePoint(
                    "storage_of_one_host", f"{segment.name}/{backend.name}", f"only {clients[0]} of its hosts has it",
                    "give it to the other hosts, or move its VMs' disks: elsewhere they would find none",
                )  # fmt: skip


def _aggregates(cloud: Cloud) -> Iterator[SinglePoint]:
    members: dict[str, set[str]] = {}
    for host, names in cloud.aggregates.items():
        for name in names:
            members.setdefault(name, set()).add(host)
    for name, hosts in sorted(members.items()):
        yield from _without_room("aggregate_without_room", name, hosts, cloud, lambda one: True)


def _zones(cloud: Cloud) -> Iterator[SinglePoint]:
    """For those that are pinned to it: no other zone takes them."""
    members: dict[str, set[str]] = {}
    for host, zone in cloud.zones.items():
        members.setdefault(zone, set()).add(host)
    for name, hosts in sorted(members.items()):
        yield from _without_room("zone_without_room", name, hosts, cloud, lambda one: one.zone_pinned)


def _without_room(
    kind: str, name: str, hosts: set[str], cloud: Cloud, counts: Callable[[Server], bool]
) -> Iterator[SinglePoint]:
    """The host whose VMs lack most on the others of its segment there. By sums only: who passes may lack room yet."""
    worst: tuple[float, str, str] | None = None
    for segment in cloud.segments:
        key, here = cloud.policies[segment.name].opt_out_key, hosts & set(segment.names)
        open_hosts = {one.host for one in cloud.services if one.up and one.enabled and not one.forced_down}
        asked = {host: [0, 0, 0] for host in here}
        for server in cloud.servers:
            if server.host in here and counts(server) and not server.why_left(key):
                row = asked[server.host]
                asked[server.host] = [row[0] + server.vcpus, row[1] + server.ram_mib, row[2] + disk_gib(server)]
        rooms = {host: cloud.rooms[host] for host in here & open_hosts if host in cloud.rooms}
        left = _sum(rooms.values())
        for host, figures in sorted(asked.items()):
            own = _sum([rooms[host]] if host in rooms else [])
            for what, want, all_left, mine in zip(ROOMS, figures, left, own, strict=True):
                short = want - (all_left - mine)
                if want and short > 0 and (worst is None or short / want > worst[0]):
                    worst = (short / want, host, f"{short} {what} are missing on its other hosts for the VMs of {host}")
    if worst is not None:
        to_do = "add a host to it, or move VMs out of it, until any of its hosts can fail"
        yield SinglePoint(kind, name, worst[2], to_do)


def _sum(rooms: Iterable[Room]) -> tuple[int, int, int]:
    vcpus = ram_mib = disk = 0
    for one in rooms:
        vcpus, ram_mib, disk = vcpus + max(0, one.vcpus), ram_mib + max(0, one.ram_mib), disk + max(0, one.disk_gib)
    return vcpus, ram_mib, disk
