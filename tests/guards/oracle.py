# SPDX-License-Identifier: Apache-2.0
"""A second model of placement, made to be obviously right rather than fast: it tries every assignment there is.

A Small is one dead host with a few VMs and a few targets. best() is the most VMs that any planner could bring to life
without breaking a rule; Nova is the cloud that a planner meets, which knows what planners cannot see (traits), says no
as the scheduler does, and writes down every rule that a request breaks by its sender's choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from vmhad.kernel.cloud import ComputeService, Group, Inventory, Migration, Room, Server, ServerState
from vmhad.kernel.policy import Policy

DEAD = "dead"
EVACUABLE = (ServerState.ACTIVE, ServerState.STOPPED, ServerState.ERROR)
UNFINISHED = ("accepted", "pre-migrating", "running", "queued")


@dataclass(frozen=True)
class Small:
    """closed: target -> why it may not receive ("disabled", "down", "forced_down", "busy", "suspect").

    traits: target -> what its hardware has. needs: server -> the trait it needs. member_hosts: the group members that
    live elsewhere. migrations: of the servers, from before. proven: hosts beside the dead one that are proven off.
    reach: storage -> the targets that reach it, where somebody says so. racks: target -> its rack, '' if unknown.
    """

    policy: Policy
    rooms: Mapping[str, Room]
    zones: Mapping[str, str]
    traits: Mapping[str, str]
    closed: Mapping[str, str]
    servers: tuple[Server, ...]
    needs: Mapping[str, str]
    groups: tuple[Group, ...]
    member_hosts: Mapping[str, str]
    migrations: tuple[Migration, ...] = ()
    proven: frozenset[str] = frozenset()
    reach: Mapping[str, frozenset[str]] = field(default_factory=dict)
    racks: Mapping[str, str] = field(default_factory=dict)

    def reaches(self, server: Server, target: str) -> bool:
        return all(target in self.reach.get(disk.removeprefix("cinder/"), {target}) for disk in server.disks)

    def group_of(self, server_id: str) -> Group | None:
        return next((group for group in self.groups if server_id in group.members), None)

    def server(self, server_id: str) -> Server:
        return next(one for one in self.servers if one.id == server_id)

    def is_movable(self, server: Server) -> bool:
        """Nova takes it, its user and policy want it, and at most one other host may run it: there, and nowhere else, a
        second copy would fail by itself."""
        if server.metadata.get(self.policy.opt_out_key) == "false" or server.state not in EVACUABLE:
            return False
        if not server.volume_backed and not (self.policy.shared_ephemeral or self.policy.rebuild_local_disks):
            return False
        return len(self.may_run_elsewhere(server.id)) <= 1

    def may_run_elsewhere(self, server_id: str) -> set[str]:
        ends = {
            end
            for move in self.migrations
            if move.server == server_id and move.status in UNFINISHED
            for end in (move.source, move.target)
        }
        return ends - {DEAD, ""} - self.proven


def best(small: Small) -> Mapping[str, str]:
    """An assignment server -> target with the most servers in it, of all that break no rule."""
    movable = [server for server in small.servers if small.is_movable(server)]
    choices = {server.id: [name for name in small.rooms if _alone_fits(small, server, name)] for server in movable}
    found: dict[str, str] = {}
    for assignment in _assignments(small, movable, choices, {}):
        if len(assignment) > len(found):
            found = dict(assignment)
        if len(found) == len(movable):
            break
    return found


def _assignments(
    small: Small, left: list[Server], choices: Mapping[str, list[str]], so_far: dict[str, str]
) -> Iterator[dict[str, str]]:
    if not left:
        if all(_goes_as_one(small, group, so_far) for group in small.groups if group.policy == "affinity"):
            yield so_far
        return
    server, rest = left[0], left[1:]
    for name in choices[server.id]:
        with_it = so_far | {server.id: name}
        if _together_fit(small, name, with_it):
            yield from _assignments(small, rest, choices, with_it)
    yield from _assignments(small, rest, choices, so_far)


def _alone_fits(small: Small, server: Server, name: str) -> bool:
    if name in small.closed or (server.zone_pinned and small.zones[name] != server.zone):
        return False
    if small.needs.get(server.id, small.traits[name]) != small.traits[name]:
        return False
    if small.may_run_elsewhere(server.id) - {name} or not small.reaches(server, name):
        return False
    group = small.group_of(server.id)
    if group is None or group.policy != "affinity":
        return True
    lives_on = {host for one in group.members if (host := small.member_hosts.get(one))}
    return name in lives_on if lives_on else _may_be_forced(small, group)


def _may_be_forced(small: Small, group: Group) -> bool:
    here = {one.id for one in small.servers} & set(group.members)
    booked_twice = {one.server for one in small.migrations if one.status == "done" and one.target == DEAD}
    return not here & booked_twice and (len(here) == 1 or small.policy.affinity_groups_movable)


def _together_fit(small: Small, name: str, assignment: Mapping[str, str]) -> bool:
    there = [small.server(one) for one, target in assignment.items() if target == name]
    room = small.rooms[name]
    if sum(one.vcpus for one in there) > room.vcpus or sum(one.ram_mib for one in there) > room.ram_mib:
        return False
    if sum(0 if one.volume_backed else one.disk_gib for one in there) > room.disk_gib:
        return False
    return all(_apart(small, group, name, assignment) for group in small.groups if group.policy == "anti-affinity")


def _apart(small: Small, group: Group, name: str, assignment: Mapping[str, str]) -> bool:
    coming = sum(1 for one in group.members if assignment.get(one) == name)
    living = sum(1 for one in group.members if small.member_hosts.get(one) == name)
    return not coming or coming + living <= group.max_per_host


def _goes_as_one(small: Small, group: Group, assignment: Mapping[str, str]) -> bool:
    """A group with no member alive goes whole to one host, or stays."""
    targets = {assignment[one] for one in group.members if one in assignment}
    if not targets or any(one in small.member_hosts for one in group.members):
        return True
    movable = [one for one in small.servers if one.id in group.members and small.is_movable(one)]
    return len(targets) == 1 and all(one.id in assignment for one in movable)


@dataclass
class Nova:
    """The cloud in which the planner's requests land. hosts: where each server is. coming: server -> target, accepted
    and not yet there. sent: server -> target of the requests of this round, whatever came of them. broken: what no
    planner should have asked for."""

    small: Small
    hosts: dict[str, str] = field(default_factory=dict)
    coming: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    refused: set[tuple[str, str]] = field(default_factory=set)
    sent: dict[str, str] = field(default_factory=dict)
    posts: int = 0

    def __post_init__(self) -> None:
        self.hosts = {server.id: DEAD for server in self.small.servers} | dict(self.small.member_hosts)

    def evacuate(self, server_id: str, target: str, force: bool) -> str:
        """'' once it is on its way, or why the scheduler refused."""
        self.posts += 1
        self._watch(server_id, target, force)
        self.sent[server_id] = target
        server = self.small.server(server_id)
        if not force and (why := self._filters(server, target)):
            self.refused.add((server_id, target))
            return why
        room = self.room(target)
        if server.vcpus > room.vcpus or server.ram_mib > room.ram_mib:
            return "No valid host was found: no room"
        self.coming[server_id] = target
        return ""

    def land(self, server_id: str) -> None:
        self.hosts[server_id] = self.coming.pop(server_id)

    def room(self, host: str) -> Room:
        """What Placement has left, with what is coming booked already."""
        came = {one for one, at in (*self.hosts.items(), *self.coming.items()) if at == host}
        new = [one for one in self.small.servers if one.id in came]
        was = self.small.rooms[host]
        disk = sum(0 if one.volume_backed else one.disk_gib for one in new)
        vcpus, ram = sum(one.vcpus for one in new), sum(one.ram_mib for one in new)
        return Room(host, was.vcpus - vcpus, was.ram_mib - ram, was.disk_gib - disk)

    def inventory(self, at: float) -> Inventory:
        small = self.small
        on_dead = tuple(one for one in small.servers if self.hosts[one.id] == DEAD)
        groups = tuple(group for group in small.groups if {one.id for one in on_dead} & set(group.members))
        members = {one for group in groups for one in group.members if one in self.hosts}
        services = tuple(self._service(name) for name in small.rooms)
        rooms = tuple(self.room(name) for name in small.rooms)
        where = {one: self.hosts[one] for one in sorted(members)}
        return Inventory(DEAD, at, on_dead, small.migrations, groups, where, services, rooms, small.zones)

    def _service(self, name: str) -> ComputeService:
        why = self.small.closed.get(name, "")
        up = why not in ("down", "forced_down")
        return ComputeService(name, up, why != "disabled", "", why == "forced_down", "")

    def _filters(self, server: Server, target: str) -> str:
        """Nova's scheduler: it knows where members are, not where evacuations under way will bring them."""
        if self.small.needs.get(server.id, self.small.traits[target]) != self.small.traits[target]:
            return "No valid host was found: a trait is missing"
        if server.zone_pinned and self.small.zones[target] != server.zone:
            return "No valid host was found: zone"
        group = self.small.group_of(server.id)
        where = [self.hosts[one] for one in group.members if one in self.hosts] if group else []
        if group and group.policy == "anti-affinity" and where.count(target) >= group.max_per_host:
            return "No valid host was found: anti-affinity"
        if group and group.policy == "affinity" and target not in where:
            return "No valid host was found: affinity"
        return ""

    def _watch(self, server_id: str, target: str, force: bool) -> None:
        """Everything that the sender could see and had to keep."""
        small, server = self.small, self.small.server(server_id)
        arriving = self.coming | {server_id: target}
        if target in small.closed:
            self.broken.append(f"{server_id} to {target}, which is {small.closed[target]}")
        if not small.is_movable(server) or small.may_run_elsewhere(server_id) - {target}:
            self.broken.append(f"{server_id} must not be moved to {target}")
        if server.zone_pinned and small.zones[target] != server.zone:
            self.broken.append(f"{server_id} out of its zone to {target}")
        if not small.reaches(server, target):
            self.broken.append(f"{server_id} to {target}, which does not reach its disk")
        if len(arriving) > small.policy.evacuations_max:
            self.broken.append(f"{len(arriving)} at once")
        if list(arriving.values()).count(target) > small.policy.evacuations_per_target_max:
            self.broken.append(f"{target} receives more than its share: {sorted(arriving)}")
        self._watch_group(server, target, force, arriving)

    def _watch_group(self, server: Server, target: str, force: bool, arriving: Mapping[str, str]) -> None:
        small, server_id = self.small, server.id
        group = small.group_of(server_id)
        if group and group.policy == "anti-affinity":
            where = [arriving.get(one, self.hosts.get(one)) for one in group.members]
            if where.count(target) > group.max_per_host:
                self.broken.append(f"{server_id} to {target}, which has its anti-affinity group")
            if set(group.members) & set(self.coming):
                self.broken.append(f"{server_id} beside another of its anti-affinity group")
        if group and group.policy.endswith("anti-affinity") and small.policy.spread_over:
            self._watch_domains(server, group, target)
        if group and group.policy == "affinity":
            alive = {arriving.get(one, self.hosts.get(one, "")) for one in group.members if one != server_id}
            if alive - {target, DEAD, ""}:
                self.broken.append(f"{server_id} to {target}, away from its affinity group on {sorted(alive)}")
        if force and not (group and group.policy == "affinity" and _may_be_forced(small, group)):
            self.broken.append(f"{server_id} forced to {target}")

    def _watch_domains(self, server: Server, group: Group, target: str) -> None:
        """A rack that holds another member, although one that holds none had room: tried one by one."""
        small = self.small
        others = {(self.hosts | self.coming | self.sent).get(one, "") for one in group.members if one != server.id}
        others = {host for host in others - {DEAD, ""} if small.closed.get(host) != "busy"}
        held = {small.racks.get(host, "") for host in others} - {""}
        if small.racks[target] not in held or small.may_run_elsewhere(server.id):
            return
        for name in small.rooms:
            room, is_new = self.room(name), (server.id, name) not in self.refused
            fits = server.vcpus <= room.vcpus and server.ram_mib <= room.ram_mib
            fits = fits and (server.volume_backed or server.disk_gib <= room.disk_gib)
            if small.racks[name] and small.racks[name] not in held and fits and is_new:
                if _alone_fits(small, server, name):
                    self.broken.append(f"{server.id} into the rack of its group on {target}, and {name} had room")
