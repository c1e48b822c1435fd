# SPDX-License-Identifier: Apache-2.0
"""The cloud as it will be with all that is planned on it: who comes where, what is left there, whose turn it is.

A board is drawn from a case once, and goes with each start after that. The rules for a target are in place.py alone.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from vmhad.kernel.case import Case
from vmhad.kernel.cloud import OVER, Group, Inventory, Room, Server
from vmhad.kernel.step import Answer, Step, StepState

# The argument of an evacuation that says what its VM takes on its target.
NEEDS = "needs"
# A receiver's place in the line: evacuations under way to it, what RAM it has left (negative), its name.
Turn = tuple[int, int, str]
# What tells one server from another when it is asked on how many hosts it fits; place.py says of what.
Kind = tuple[object, ...]


@dataclass
class Board:
    """placed: server id -> target of a started evacuation, of one that was done after the cloud was read, or of one
    that was given up and may arrive yet. in_flight: target -> evacuations under way. moving: the servers of those.
    unsent: how many of those Nova was not seen to have been asked for yet. coming: the servers that this incident has
    moved, moves or still means to move. left: host -> what Placement says is left on it less what this incident has
    placed there since, and others since Placement was read; without those that it could not be read for. groups_of:
    server id -> its groups.

    line: the receivers by their turns, the emptiest first; turns: each one's turn in it. choices: kind of a server ->
    on how many receivers such a one fits; kinds: one server of each kind; most: what these ask for at most. depth,
    named: how far down the line was looked at least once, and who was looked at out of turn; whoever stands further
    down has changed nothing.
    """

    case: Case
    inventory: Inventory
    placed: dict[str, str]
    in_flight: dict[str, int]
    moving: set[str]
    unsent: int
    coming: frozenset[str]
    left: dict[str, Room]
    groups_of: Mapping[str, tuple[Group, ...]]
    line: list[Turn] | None = None
    turns: dict[str, Turn] = field(default_factory=dict)
    choices: dict[Kind, int] = field(default_factory=dict)
    kinds: dict[Kind, Server] = field(default_factory=dict)
    most: Room = Room("", 0, 0, 0)
    depth: Turn = (-1, 0, "")
    named: set[str] = field(default_factory=set)

    def host_of(self, server_id: str) -> str:
        return self.placed.get(server_id) or self.inventory.member_hosts.get(server_id, "")

    @cached_property
    def domains(self) -> Mapping[str, str]:
        """Host of the segment -> its failure domain, of the kind that groups are kept apart over."""
        kind = self.case.policy.spread_over
        return {host.name: host.domains.get(kind, "") for host in self.case.segment.hosts}

    @cached_property
    def has_reach(self) -> bool:
        """Some storage of the segment says who reaches it."""
        return any(one.reached_by for one in self.case.segment.backends)

    def line_up(self, receivers: Iterable[str]) -> None:
        self.turns = {name: self._turn(name) for name in receivers}
        self.line = sorted(self.turns.values())

    def arrive(self, server: Server, target: str) -> None:
        """An evacuation is STARTED of a server that was placed nowhere."""
        self.placed[server.id] = target
        self.in_flight[target] = self.in_flight.get(target, 0) + 1
        self.moving.add(server.id)
        self.unsent += 1
        if target in self.left:
            self.left[target] = less(self.left[target], (server,))
        self.stand_anew(target)

    def stand_anew(self, name: str) -> None:
        """Its place in the line, after something of it changed."""
        if self.line is None or name not in self.turns:
            return
        del self.line[bisect_left(self.line, self.turns[name])]
        self.turns[name] = self._turn(name)
        insort(self.line, self.turns[name])

    def _turn(self, name: str) -> Turn:
        room = self.left.get(name)
        return (self.in_flight.get(name, 0), -room.ram_mib if room else 0, name)


def disk_gib(server: Server) -> int:
    return 0 if server.volume_backed else server.disk_gib


def less(room: Room, servers: Iterable[Server]) -> Room:
    """What is left of it beside these."""
    vcpus, ram_mib, disk = room.vcpus, room.ram_mib, room.disk_gib
    for one in servers:
        vcpus, ram_mib, disk = vcpus - one.vcpus, ram_mib - one.ram_mib, disk - disk_gib(one)
    return Room(room.host, vcpus, ram_mib, disk)


def groups_by_member(groups: Iterable[Group]) -> dict[str, tuple[Group, ...]]:
    found: dict[str, tuple[Group, ...]] = {}
    for group in groups:
        for member in dict.fromkeys(group.members):
            found[member] = (*found.get(member, ()), group)
    return found


def board(case: Case, inventory: Inventory, steps: Mapping[str, Step]) -> Board:
    """steps: server id -> its evacuate step as it stands now."""
    placed: dict[str, str] = {}
    in_flight: dict[str, int] = {}
    known = sorted(_newest(case, inventory, steps).items())
    for server_id, step in known:
        if step.state in (StepState.STARTED, StepState.DONE) and step.args.get("target"):
            placed[server_id] = step.args["target"]
            if _is_under_way(step, case):
                in_flight[step.args["target"]] = in_flight.get(step.args["target"], 0) + 1
        elif server_id in steps and (target := _may_arrive_on(step, case, inventory)):
            placed[server_id] = target
    moving = {server_id for server_id, step in known if _is_under_way(step, case)}
    unsent = sum(_is_unsent(step) for _, step in known if _is_under_way(step, case))
    coming = frozenset(server_id for server_id, step in steps.items() if step.state is not StepState.FAILED)
    left = {room.host: room for room in inventory.rooms}
    for server in inventory.servers:
        if placed.get(server.id) in left:
            left[placed[server.id]] = less(left[placed[server.id]], (server,))
    mine = {server.id for server in inventory.servers}
    for step in case.elsewhere:
        if step.subject not in mine:
            _subtract(step, inventory, left)
    groups_of = groups_by_member(inventory.groups)
    return Board(case, inventory, placed, in_flight, moving, unsent, coming, left, groups_of)


def needs_of(server: Server) -> str:
    """For the incidents that see no more of the VM than its evacuation."""
    return f"{server.vcpus},{server.ram_mib},{disk_gib(server)}"


def _subtract(step: Step, inventory: Inventory, left: dict[str, Room]) -> None:
    """What another incident sent there since Placement was read for this one."""
    room, needs = left.get(step.args.get("target", "")), step.args.get(NEEDS, "")
    is_sent = step.state in (StepState.STARTED, StepState.DONE) and step.started_at >= inventory.at
    if room is not None and needs and is_sent:
        vcpus, ram_mib, disk = map(int, needs.split(","))
        left[room.host] = Room(room.host, room.vcpus - vcpus, room.ram_mib - ram_mib, room.disk_gib - disk)


def _newest(case: Case, inventory: Inventory, steps: Mapping[str, Step]) -> dict[str, Step]:
    """server id -> the evacuation that counts now. One that arrived on a host which died since is on its way again, in
    the incident of that host, and may have arrived again: which came last say the ends of the steps, for incidents are
    opened by more than one clock."""
    others = (step for step in case.elsewhere if step.state in (StepState.STARTED, StepState.DONE))
    known = (*others, *steps.values())
    # Of what was done before the inventory was read, that says where it is: it may be deleted, or have moved on.
    heeded = [one for one in known if one.state is not StepState.DONE or one.ended_at >= inventory.at]

    def turn(step: Step) -> tuple[bool, bool, float]:
        is_own_and_open = step.incident == case.incident.id and step.state is not StepState.DONE
        return step.state is StepState.STARTED, is_own_and_open, step.ended_at

    return {step.subject: step for step in sorted(heeded, key=turn)}


def _is_under_way(step: Step, case: Case) -> bool:
    """What an incident left STARTED when its host was taken back may have arrived or may arrive yet, but nobody goes on
    with it: it uses up no part of what may be under way."""
    return step.state is StepState.STARTED and step.incident not in case.idle


def _is_unsent(step: Step) -> bool:
    """Also where Nova does not answer the look before the request: it is not asked for more meanwhile."""
    answered = step.observed and step.observed[-1].answer is not Answer.UNKNOWN
    return not step.acts and not answered


def _may_arrive_on(step: Step, case: Case, inventory: Inventory) -> str:
    """Where an attempt that was given up may arrive yet, its request waiting there: '' where its record is over, or its
    target proven off and the VM about to go elsewhere before that is back. One that was made after the inventory was
    read is the newest, to the step's own target."""
    given_up = set(step.args.get("given_up", "").split(",")) - {""}
    targets = {one.id: "" if one.status in OVER else one.target for one in inventory.migrations if one.id in given_up}
    if given_up - targets.keys():
        targets["newest"] = step.args.get("target", "")
    stays = step.state is StepState.FAILED
    return next((one for one in sorted(targets.values()) if one and (stays or one not in case.proofs)), "")
