# SPDX-License-Identifier: Apache-2.0
"""Where may this VM go? Rules first, then room, then who was heard, then the emptiest: deterministic, ties by name.

Nova's scheduler stays the authority on fit: it validates every target named here, except where a hard-affinity group is
moved as one. What is refused here would only have cost a failed evacuation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from vmhad.guards.hosts.affinity import complex_allocations, first_has_arrived, is_given_up
from vmhad.guards.hosts.board import Board, Kind, Turn, disk_gib
from vmhad.guards.hosts.domains import FREE, Domains
from vmhad.guards.hosts.reach import is_reached, must_reach, named
from vmhad.kernel.cloud import Group, Room, Server
from vmhad.kernel.step import Step, StepState
from vmhad.kernel.topology import Backend

MAY_HOLD_A_COPY = " failed to start it and may hold a copy, and is not proven off"


@dataclass(frozen=True, slots=True)
class Placement:
    """target '' means none now; because says why. final: no later try can change it. soon: it only waits for
    evacuations that are under way, which costs it no try. force: past the scheduler."""

    target: str
    because: str = ""
    force: bool = False
    final: bool = False
    soon: bool = False


TARGETS_FULL = Placement("", "every target receives as many VMs as evacuations_per_target_max allows", soon=True)
NO_ROOM = Placement("", "no host of the segment is up with room for it")
NOT_APART = Placement("", "every host with room already holds a member of its anti-affinity group")


class Stage(IntEnum):
    """How far a host gets as target of one server."""

    NO_ROOM = 0
    NOT_REACHED = 1
    NOT_APART = 2
    FULL = 3
    OPEN = 4


# Whether it was not heard for a while, whether this server failed there, how its failure domain suits its groups, how
# its soft groups like it.
Against = tuple[bool, bool, int, int]
# What speaks against the target that is right but for how busy and how full it is: see _Search.
NOTHING: Against = (False, False, FREE, 0)
# Behind everybody.
END: Turn = (1 << 62, 0, "")


def in_order(steps: Mapping[str, Step], at: Board) -> list[str]:
    """The server ids, first who is to choose first: by their priority; then who was refused least often, who has the
    fewest hosts to choose from, the largest.

    A VM that Nova refuses everywhere must not take the last room from one that it would accept, try after try; and what
    fits on one host only finds it taken by what would have fitted anywhere.
    """
    waiting = {one.id: one for one in at.inventory.servers if _is_planned(steps.get(one.id))}

    def rank(server_id: str) -> tuple[int, int, int, int, int, int, str]:
        step, server = steps[server_id], waiting.get(server_id)
        refused = len(step.args["failed_on"].split(",")) if step.args.get("failed_on") else 0
        if server is None:
            return (0, refused, step.attempt, 0, 0, 0, server_id)
        choices = choices_of(server, at) if len(waiting) > 1 else 0
        first = -server.settings.priority
        return (first, refused, step.attempt, choices, -server.ram_mib, -server.vcpus, server_id)

    return sorted(steps, key=rank)


def place(server: Server, step: Step, at: Board, only: str = "") -> Placement:
    """The target for one server now, or why there is none. only: the one host that it may go to, '' for any."""
    groups = at.groups_of.get(server.id, ())
    for group in groups:
        if group.policy == "affinity":
            return _with_group(server, group, at, only)
    search = _Search(server, groups, step, at)
    if not (only or search.storages) and server.id not in at.placed and at.choices.get(kind_of(server, at)) == 0:
        return NO_ROOM
    line = line_of(at)
    if only:
        search.look([at.turns[only]] if only in at.turns else [], None)
    else:
        search.look(_of_soft_groups(server, groups, at), None)
        if search.best is None or search.best[0] >= NOTHING:
            _looked_to(search.look(line, NOTHING), at)
    if only and search.furthest <= Stage.NOT_REACHED:
        return Placement("", f"{only}{MAY_HOLD_A_COPY}")
    return search.answer()


class _Search:
    """For the best target of one server. best: the best that is open so far, with its turn; full: of those that are
    only full for now; furthest: how far any got."""

    def __init__(self, server: Server, groups: Sequence[Group], step: Step, at: Board) -> None:
        self.server, self.groups, self.at = server, groups, at
        self.storages, self.domains = _storages_of(server, at), Domains(server.id, groups, at)
        self.failed_on = set(step.args.get("failed_on", "").split(",")) - {""}
        self.best: tuple[Against, Turn] | None = None
        self.full: list[Against] = []
        self.furthest = Stage.NO_ROOM

    def look(self, turns: Iterable[Turn], enough: Against | None) -> Turn:
        """At each in turn, until one has no more against it than that; gives the turn at which it ended."""
        for turn in turns:
            stage = self._stage(turn[2])
            self.furthest = max(self.furthest, stage)
            if stage is Stage.FULL and self.domains.count:
                self.full.append(self._against(turn[2]))
            if stage is Stage.OPEN:
                found = (self._against(turn[2]), turn)
                self.best = min(self.best or found, found)
                if enough is not None and found[0] <= enough:
                    return turn
        return END

    def answer(self) -> Placement:
        """What is better but for being full just now is waited for where its failure domain is."""
        if self.best is not None and not any(one[:3] < self.best[0][:3] for one in self.full):
            return Placement(self.best[1][2])
        if self.furthest >= Stage.FULL:
            return TARGETS_FULL
        if self.furthest is Stage.NOT_REACHED:
            return Placement("", f"no host with room for it reaches {named(self.storages)}, where its disk is")
        return NOT_APART if self.furthest is Stage.NOT_APART else NO_ROOM

    def _stage(self, name: str) -> Stage:
        server, at = self.server, self.at
        if not (_zone_fits(server, name, at) and _has_room((server,), name, at)):
            return Stage.NO_ROOM
        if not is_reached(self.storages, name):
            return Stage.NOT_REACHED
        for group in self.groups:
            if group.policy == "anti-affinity" and _count(group, name, at, server.id) >= group.max_per_host:
                return Stage.NOT_APART
        return Stage.OPEN if _below_cap(name, at) else Stage.FULL

    def _against(self, name: str) -> Against:
        """Less is better, and counts before its turn in the line. Below NOTHING only for those of _of_soft_groups."""
        spread = _spread(self.groups, name, self.at, self.server.id)
        return (name in self.at.case.quiet, name in self.failed_on, self.domains.suit(name), spread)


def _of_soft_groups(server: Server, groups: Sequence[Group], at: Board) -> list[Turn]:
    """The receivers that a soft group of it lives on."""
    if not groups:
        return []
    soft = [group for group in groups if group.policy.startswith("soft-")]
    names = {at.host_of(one) for group in soft for one in group.members if one != server.id}
    at.named |= names
    return [at.turns[name] for name in sorted(names & at.turns.keys())]


def take(server: Server, target: str, at: Board) -> None:
    """What was found for it is started: the board goes with it. For a server that was placed nowhere before."""
    was = at.left.get(target)
    at.arrive(server, target)
    now = at.left.get(target)
    if was is None or now is None or _covers(now, at.most):
        return
    for kind, one in at.kinds.items():
        if not _fits(now, (one,)) and _fits(was, (one,)) and _may_be_on(one, target, at):
            at.choices[kind] -= target in at.turns


def choices_of(server: Server, at: Board) -> int:
    """How many hosts have room for it now, whatever its groups want."""
    kind = kind_of(server, at)
    if kind not in at.choices:
        line_of(at)
        at.kinds[kind], was = server, at.most
        most = max(was.vcpus, server.vcpus), max(was.ram_mib, server.ram_mib), max(was.disk_gib, disk_gib(server))
        at.most = Room("", *most)
        at.choices[kind] = sum(fits_alone(server, name, at) for name in at.turns)
    return at.choices[kind]


def kind_of(server: Server, at: Board) -> Kind:
    """All of it that fits_alone looks at."""
    zone = server.zone if server.zone_pinned else ""
    storages = named(_storages_of(server, at))
    return (zone, server.zone_pinned, storages, server.vcpus, server.ram_mib, disk_gib(server))


def fits_alone(server: Server, name: str, at: Board) -> bool:
    return _fits(at.left.get(name), (server,)) and _may_be_on(server, name, at)


def _may_be_on(server: Server, name: str, at: Board) -> bool:
    """However full it is."""
    return _zone_fits(server, name, at) and is_reached(_storages_of(server, at), name)


def _storages_of(server: Server, at: Board) -> tuple[Backend, ...]:
    return must_reach(server, at.case.segment) if at.has_reach else ()


def line_of(at: Board) -> list[Turn]:
    if at.line is None:
        at.line_up(_receivers(at))
    assert at.line is not None
    return at.line


def _looked_to(turn: Turn, at: Board) -> None:
    """Whoever nothing is under way to stands before all others: with one of those, all of them were looked at."""
    at.depth = max(at.depth, turn if turn[0] == 0 else END)


def _with_group(server: Server, group: Group, at: Board, only: str) -> Placement:
    """A hard-affinity group goes as one: to where its members live, else to one host with room for all of them."""
    source = at.case.incident.host
    elsewhere = sorted({at.host_of(one) for one in group.members if one != server.id} - {source, ""})
    if elsewhere:
        return _to_its_members(server, group, elsewhere[0], at, only)
    members = tuple(one for one in at.inventory.servers if one.id in group.members)
    if len(group.members) > 1 and len(members) > 1 and not at.case.policy.affinity_groups_movable:
        return Placement(
            "",
            "blocked: Nova cannot evacuate a hard-affinity group that died whole; either set "
            "[workarounds] disable_group_policy_check_upcall on the computes and affinity_groups_movable here, "
            "or delete the server group and order a retry",
            final=True,
        )
    waiting = complex_allocations(members, at)
    if waiting:
        return Placement("", waiting)
    coming = tuple(one for one in members if one.id in at.coming)
    storages = tuple(dict.fromkeys(storage for one in coming for storage in _storages_of(one, at)))

    needed_mib, there = sum(one.ram_mib for one in coming), {at.placed.get(one.id) for one in coming}

    def stage(name: str) -> Stage:
        room = at.left.get(name)
        if room is not None and room.ram_mib < needed_mib and name not in there:
            return Stage.NO_ROOM
        if not all(_zone_fits(one, name, at) for one in coming) or not _has_room(coming, name, at):
            return Stage.NO_ROOM
        if not is_reached(storages, name):
            return Stage.NOT_REACHED
        return Stage.OPEN if _below_cap(name, at) else Stage.FULL

    found, furthest = _emptiest(stage, at)
    if only and furthest > Stage.NOT_REACHED:
        found, furthest = only, stage(only) if only in at.turns else Stage.NO_ROOM
        if furthest <= Stage.NOT_REACHED:
            return Placement("", f"{only}{MAY_HOLD_A_COPY}")
    if furthest is Stage.NOT_REACHED:
        why = f"no host with room for its affinity group reaches {named(storages)}, where its disks are"
        return Placement("", why)
    if furthest is Stage.NO_ROOM:
        return Placement("", f"no host has room for the {len(coming)} members of its affinity group together")
    return Placement(found, force=True) if furthest is Stage.OPEN else TARGETS_FULL


def _to_its_members(server: Server, group: Group, home: str, at: Board, only: str) -> Placement:
    """To the host where they live, or will."""
    hosts = {at.inventory.member_hosts.get(one, "") for one in group.members}
    if home not in hosts and not first_has_arrived(group, home, at):
        if is_given_up(group, home, at):
            return Placement("", f"one of its affinity group, given up, may arrive on {home} yet")
        return Placement("", "the first of its affinity group is still on its way", soon=True)
    at.named.add(home)
    line_of(at)
    if home not in at.turns or not _zone_fits(server, home, at):
        return Placement("", f"its affinity group lives on {home}, which cannot receive it")
    if not _has_room((server,), home, at):
        return Placement("", f"its affinity group lives on {home}, which has no room for it")
    storages = _storages_of(server, at)
    if not is_reached(storages, home):
        why = f"its affinity group lives on {home}, which does not reach {named(storages)}, where its disk is"
        return Placement("", why)
    if only not in ("", home):
        return Placement("", f"{only}{MAY_HOLD_A_COPY}")
    return Placement(home) if _below_cap(home, at) else TARGETS_FULL


def _emptiest(stage: Callable[[str], Stage], at: Board) -> tuple[str, Stage]:
    """The open host with most RAM left, however many are on their way to it, and how far the best of all hosts got.
    Among those with the same number under way the first that is open, and was heard, is the emptiest."""
    line, furthest, begin = line_of(at), Stage.NO_ROOM, 0
    found: list[Turn] = []
    while begin < len(line):
        end = bisect_left(line, line[begin][0] + 1, begin, key=lambda turn: turn[0])
        ended = END
        for turn in line[begin:end]:
            got = stage(turn[2])
            furthest = max(furthest, got)
            if got is Stage.OPEN:
                found.append(turn)
                if turn[2] not in at.case.quiet:
                    ended = turn
                    break
        if line[begin][0] == 0:
            _looked_to(ended, at)
        begin = end
    return min(found, key=lambda turn: (turn[2] in at.case.quiet, turn[1:]), default=END)[2], furthest


def waits_for_group(server: Server, at: Board) -> str:
    """'' or why it is not its turn. Two of an anti-affinity group that move at once can collide in Nova and end in
    ERROR, or meet on one target, for its scheduler sees neither of them there yet: one after another."""
    for group in at.groups_of.get(server.id, ()):
        rivals = at.moving & set(group.members) - {server.id}
        if group.policy == "anti-affinity" and rivals:
            return "another member of its anti-affinity group is on its way"
    return ""


def _receivers(at: Board) -> tuple[str, ...]:
    """Hosts that Nova calls up and enabled and that we believe healthy."""
    names = set(at.case.segment.names) - at.case.busy_hosts - {at.case.incident.host}
    fit = []
    for service in at.inventory.services:
        verdict = at.case.verdicts.get(service.host)
        if verdict is None or verdict.unfit or not verdict.serves:
            continue
        if service.host in names and service.up and service.enabled and not service.forced_down:
            fit.append(service.host)
    return tuple(sorted(fit))


def _zone_fits(server: Server, host: str, at: Board) -> bool:
    return not server.zone_pinned or at.inventory.zones.get(host, "nova") == server.zone


def _is_planned(step: Step | None) -> bool:
    return step is not None and step.state is StepState.PLANNED


def _has_room(servers: tuple[Server, ...], host: str, at: Board) -> bool:
    room = _room_left(host, at, servers)
    return room is None or _fits(room, servers)


def _room_left(host: str, at: Board, beside: tuple[Server, ...]) -> Room | None:
    """What is left on it beside these servers, with all that is coming; None where Placement could not be read for it:
    the scheduler decides."""
    room = at.left.get(host)
    mine = [one for one in beside if at.placed.get(one.id) == host]
    if room is None or not mine:
        return room
    disk = sum(disk_gib(one) for one in mine)
    vcpus, ram_mib = sum(one.vcpus for one in mine), sum(one.ram_mib for one in mine)
    return Room(host, room.vcpus + vcpus, room.ram_mib + ram_mib, room.disk_gib + disk)


def _fits(room: Room | None, servers: tuple[Server, ...]) -> bool:
    if room is None:
        return True
    vcpus = ram_mib = disk = 0
    for one in servers:
        vcpus, ram_mib, disk = vcpus + one.vcpus, ram_mib + one.ram_mib, disk + disk_gib(one)
    return vcpus <= room.vcpus and ram_mib <= room.ram_mib and disk <= room.disk_gib


def _covers(room: Room, other: Room) -> bool:
    return room.vcpus >= other.vcpus and room.ram_mib >= other.ram_mib and room.disk_gib >= other.disk_gib


def _count(group: Group, host: str, at: Board, server_id: str) -> int:
    return sum(1 for one in group.members if one != server_id and at.host_of(one) == host)


def _spread(groups: Sequence[Group], host: str, at: Board, server_id: str) -> int:
    """Soft groups only prefer: members already there count against a host (anti) or for it."""
    score = 0
    for group in groups:
        if group.policy == "soft-anti-affinity":
            score += _count(group, host, at, server_id)
        elif group.policy == "soft-affinity":
            score -= _count(group, host, at, server_id)
    return score


def _below_cap(host: str, at: Board) -> bool:
    return at.in_flight.get(host, 0) < at.case.policy.evacuations_per_target_max
