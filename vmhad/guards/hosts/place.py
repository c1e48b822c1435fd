# SPDX-License-Identifier: Apache-2.0
"""Where may this VM go? Rules first, then room, then who was heard, then the emptiest: deterministic, ties by name.

Nova's scheduler stays the authority on fit: it validates every target named here, except where a hard-affinity group is
moved as one. What is refused here would only have cost a failed evacuation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vmhad.kernel.case import Case
from vmhad.kernel.cloud import EVACUATION, OVER, Group, Inventory, Room, Server
from vmhad.kernel.step import Answer, Step, StepState

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


@dataclass(frozen=True, slots=True)
class Board:
    """The cloud with what this incident has already planned on it. placed: server id -> target of a started evacuation,
    of one that was done after the cloud was read, or of one that was given up and may arrive yet. in_flight: target ->
    evacuations under way. moving: the servers of those. unsent: how many of those Nova was not seen to have been asked
    for yet. coming: the servers that this incident has moved, moves or still means to move. rooms, arriving: host ->
    what Placement says is left on it, and which servers of this incident were placed there since."""

    case: Case
    inventory: Inventory
    placed: Mapping[str, str]
    in_flight: Mapping[str, int]
    moving: frozenset[str]
    unsent: int
    coming: frozenset[str]
    rooms: Mapping[str, Room]
    arriving: Mapping[str, Sequence[Server]]

    def host_of(self, server_id: str) -> str:
        return self.placed.get(server_id) or self.inventory.member_hosts.get(server_id, "")


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
    moving = frozenset(server_id for server_id, step in known if _is_under_way(step, case))
    unsent = sum(_is_unsent(step) for _, step in known if _is_under_way(step, case))
    coming = frozenset(server_id for server_id, step in steps.items() if step.state is not StepState.FAILED)
    arriving: dict[str, list[Server]] = {}
    for server in inventory.servers:
        if server.id in placed:
            arriving.setdefault(placed[server.id], []).append(server)
    rooms = {room.host: room for room in inventory.rooms}
    return Board(case, inventory, placed, in_flight, moving, unsent, coming, rooms, arriving)


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


def in_order(steps: Mapping[str, Step], at: Board) -> list[str]:
    """The server ids, first who is to choose first: who was refused least often, then who has the fewest hosts to
    choose from, then the largest.

    A VM that Nova refuses everywhere must not take the last room from one that it would accept, try after try; and what
    fits on one host only finds it taken by what would have fitted anywhere.
    """
    waiting = {one.id: one for one in at.inventory.servers if _is_planned(steps.get(one.id))}
    left = {name: _room_left(name, at) for name in _receivers(at)} if len(waiting) > 1 else {}

    def rank(server_id: str) -> tuple[int, int, int, int, int, str]:
        step, server = steps[server_id], waiting.get(server_id)
        refused = len(step.args["failed_on"].split(",")) if step.args.get("failed_on") else 0
        if server is None:
            return (refused, step.attempt, 0, 0, 0, server_id)
        choices = sum(_zone_fits(server, name, at) and _fits(room, (server,)) for name, room in left.items())
        return (refused, step.attempt, choices, -server.ram_mib, -server.vcpus, server_id)

    return sorted(steps, key=rank)


def place(server: Server, step: Step, at: Board, only: str = "") -> Placement:
    """The target for one server now, or why there is none. only: the one host that it may go to, '' for any."""
    groups = [group for group in at.inventory.groups if server.id in group.members]
    for group in groups:
        if group.policy == "affinity":
            return _with_group(server, group, at, only)
    candidates = [name for name in _receivers(at) if _zone_fits(server, name, at) and _has_room((server,), name, at)]
    if only:
        candidates = [name for name in candidates if name == only]
        if not candidates:
            return Placement("", f"{only}{MAY_HOLD_A_COPY}")
    if not candidates:
        return Placement("", "no host of the segment is up with room for it")
    for group in groups:
        if group.policy == "anti-affinity":
            candidates = [name for name in candidates if _count(group, name, at, server.id) < group.max_per_host]
    if not candidates:
        return Placement("", "every host with room already holds a member of its anti-affinity group")
    free = [name for name in candidates if _below_cap(name, at)]
    if not free:
        return TARGETS_FULL
    failed_on = set(step.args.get("failed_on", "").split(",")) - {""}

    def rank(name: str) -> tuple[bool, bool, int, int, int, str]:
        is_quiet, spread = name in at.case.quiet, _spread(groups, name, at, server.id)
        return (is_quiet, name in failed_on, spread, at.in_flight.get(name, 0), -_free_ram_mib(name, at), name)

    return Placement(min(free, key=rank))


def _with_group(server: Server, group: Group, at: Board, only: str) -> Placement:
    """A hard-affinity group goes as one: to where its members live, else to one host with room for all of them."""
    source = at.case.incident.host
    elsewhere = sorted({at.host_of(one) for one in group.members if one != server.id} - {source, ""})
    if elsewhere:
        arrived = {host for one in group.members if (host := at.inventory.member_hosts.get(one, "")) and host != source}
        if elsewhere[0] not in arrived and not _first_has_arrived(group, elsewhere[0], at):
            if _is_given_up(group, elsewhere[0], at):
                return Placement("", f"one of its affinity group, given up, may arrive on {elsewhere[0]} yet")
            return Placement("", "the first of its affinity group is still on its way", soon=True)
        if elsewhere[0] not in _receivers(at) or not _zone_fits(server, elsewhere[0], at):
            return Placement("", f"its affinity group lives on {elsewhere[0]}, which cannot receive it")
        if not _has_room((server,), elsewhere[0], at):
            return Placement("", f"its affinity group lives on {elsewhere[0]}, which has no room for it")
        if only not in ("", elsewhere[0]):
            return Placement("", f"{only}{MAY_HOLD_A_COPY}")
        return Placement(elsewhere[0]) if _below_cap(elsewhere[0], at) else TARGETS_FULL
    members = tuple(one for one in at.inventory.servers if one.id in group.members)
    if len(group.members) > 1 and len(members) > 1 and not at.case.policy.affinity_groups_movable:
        return Placement(
            "",
            "blocked: Nova cannot evacuate a hard-affinity group that died whole; either set "
            "[workarounds] disable_group_policy_check_upcall on the computes and affinity_groups_movable here, "
            "or delete the server group and order a retry",
            final=True,
        )
    waiting = _complex_allocations(members, at)
    if waiting:
        return Placement("", waiting)
    coming = tuple(one for one in members if one.id in at.coming)
    fit = [name for name in _receivers(at) if all(_zone_fits(one, name, at) for one in coming)]
    fit = [name for name in fit if _has_room(coming, name, at)]
    if not fit:
        return Placement("", f"no host has room for the {len(coming)} members of its affinity group together")
    if only and only not in fit:
        return Placement("", f"{only}{MAY_HOLD_A_COPY}")
    free = [name for name in fit if _below_cap(name, at) and name == (only or name)]
    if not free:
        return TARGETS_FULL
    return Placement(min(free, key=lambda one: (one in at.case.quiet, -_free_ram_mib(one, at), one)), force=True)


def waits_for_group(server: Server, at: Board) -> str:
    """'' or why it is not its turn. Two of an anti-affinity group that move at once can collide in Nova and end in
    ERROR, or meet on one target, for its scheduler sees neither of them there yet: one after another."""
    for group in at.inventory.groups:
        rivals = at.moving & set(group.members) - {server.id}
        if group.policy == "anti-affinity" and server.id in group.members and rivals:
            return "another member of its anti-affinity group is on its way"
    return ""


def _complex_allocations(members: tuple[Server, ...], at: Board) -> str:
    """'' or why Nova will not force them: a VM that came by an evacuation is booked on both hosts until its first one
    returns, and Nova 34 forces no VM with two bookings («complex allocations»)."""
    ids, here = {one.id for one in members}, at.case.incident.host
    for move in at.inventory.migrations:
        is_booked = (move.kind, move.status, move.target) == (EVACUATION, "done", here)
        if is_booked and move.server in ids:
            return f"Nova cannot move its affinity group by force before {move.source} is back and has cleaned up"
    return ""


def _is_given_up(group: Group, target: str, at: Board) -> bool:
    """Nobody tries any more to bring there whoever of the group is placed there."""
    here = {one.id for one in at.inventory.servers}
    return all(one in here - at.coming for one in group.members if at.host_of(one) == target)


def _first_has_arrived(group: Group, target: str, at: Board) -> bool:
    return any(
        step.state is StepState.DONE and step.args.get("target") == target
        for step in at.case.steps
        if step.subject in group.members
    )


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


def _room_left(host: str, at: Board, beside: tuple[Server, ...] = ()) -> Room | None:
    """What is left on it beside these servers, with all that is coming; None where Placement could not be read for it:
    the scheduler decides."""
    room = at.rooms.get(host)
    if room is None:
        return None
    coming = [one for one in at.arriving.get(host, ()) if one not in beside]
    disk_gib = sum(_disk_gib(one) for one in coming)
    vcpus, ram_mib = sum(one.vcpus for one in coming), sum(one.ram_mib for one in coming)
    return Room(host, room.vcpus - vcpus, room.ram_mib - ram_mib, room.disk_gib - disk_gib)


def _fits(room: Room | None, servers: tuple[Server, ...]) -> bool:
    return room is None or (
        sum(one.vcpus for one in servers) <= room.vcpus
        and sum(one.ram_mib for one in servers) <= room.ram_mib
        and sum(_disk_gib(one) for one in servers) <= room.disk_gib
    )


def _disk_gib(server: Server) -> int:
    return 0 if server.volume_backed else server.disk_gib


def _count(group: Group, host: str, at: Board, server_id: str) -> int:
    return sum(1 for one in group.members if one != server_id and at.host_of(one) == host)


def _spread(groups: list[Group], host: str, at: Board, server_id: str) -> int:
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


def _free_ram_mib(host: str, at: Board) -> int:
    """0 where Placement did not say."""
    room = _room_left(host, at)
    return room.ram_mib if room else 0
