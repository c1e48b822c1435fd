# SPDX-License-Identifier: Apache-2.0
"""One segment as all its trials find it: what each of its hosts would leave to be evacuated, who could receive, and a
board on which nothing has begun.

It is made once and copied for each trial, for a cloud has as many trials as hosts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace

from vmhad.guards.hosts.board import Board, Kind, Turn, groups_by_member
from vmhad.guards.hosts.place import choices_of, fits_alone, kind_of, line_of
from vmhad.guards.hosts.treat import may_run_on, treat
from vmhad.kernel.case import Case
from vmhad.kernel.cloud import EVACUATION, Group, Inventory, Server
from vmhad.kernel.evidence import Evidence
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.policy import Policy
from vmhad.kernel.proof import POWER_OFF, Proof
from vmhad.kernel.step import Step
from vmhad.kernel.topology import Segment
from vmhad.kernel.verdict import Judgement, Verdict
from vmhad.survivability.cloud import Cloud

WELL = Verdict(Judgement.HEALTHY, "", 0)
FELL = Verdict(Judgement.FAILED, "", 0, positive=True, is_off=True)


@dataclass(frozen=True, slots=True)
class Ground:
    """servers: host -> its servers by id. plans: host -> an evacuate step for each protected one of them, FAILED where
    it would not be evacuated at all. kinds: server id -> its kind. fits: host -> the kinds that it has room for now,
    of a receiver. line: the receivers as they stand. homes: the members of groups -> their hosts. ends: server id ->
    the other hosts that may run it. unsettled: server id -> why nobody can be sure of it before a migration is over."""

    segment: Segment
    policy: Policy
    board: Board
    servers: Mapping[str, tuple[Server, ...]]
    plans: Mapping[str, tuple[Step, ...]]
    kinds: Mapping[str, Kind]
    fits: Mapping[str, frozenset[Kind]]
    line: tuple[Turn, ...]
    homes: Mapping[str, str]
    groups: Mapping[str, Group]
    traits: Mapping[str, tuple[str, ...]]
    needs: Mapping[str, tuple[str, ...]]
    ends: Mapping[str, tuple[str, ...]]
    unsettled: Mapping[str, str]

    @property
    def inventory(self) -> Inventory:
        return self.board.inventory

    def board_without(self, hosts: frozenset[str]) -> Board:
        """The board of their incidents before anything has begun: none of them receives."""
        base, line = self.board, list(self.line)
        turns, choices = dict(base.turns), dict(base.choices)
        for name in hosts & turns.keys():
            del line[bisect_left(line, turns.pop(name))]
            for kind in self.fits[name]:
                choices[kind] -= 1
        return Board(
            case=base.case, inventory=base.inventory, placed={}, in_flight={}, moving=set(), unsent=0,
            coming=base.coming, left=dict(base.left), groups_of=base.groups_of, line=line, turns=turns,
            choices=choices, kinds=base.kinds, most=base.most,
        )  # fmt: skip

    def cases_of(self, lost: frozenset[str]) -> dict[str, Case]:
        """As the incident of each is seen once its proof is held: all of them are dead, all others well."""
        seen = replace(self.board.case, busy_hosts=lost, proofs={one: _proof(one) for one in lost})
        return {host: replace(seen, incident=_incident(host, self.segment)) for host in sorted(lost)}


def ground_of(segment: Segment, cloud: Cloud, before: Ground | None = None) -> Ground:
    """before: an older one, of which is taken what did not change."""
    policy = cloud.policies[segment.name]
    servers = _by_host(segment, cloud)
    groups = {one.id: one for one in cloud.groups}
    members = {member for one in cloud.groups for member in one.members}
    homes = {one.id: one.host for one in cloud.servers if one.id in members and one.host}
    names = frozenset(segment.names)
    inventory = Inventory(
        host="", at=0.0, servers=(), migrations=cloud.migrations, groups=tuple(groups.values()), member_hosts=homes,
        services=tuple(one for one in cloud.services if one.host in names and one.host in cloud.rooms),
        rooms=tuple(cloud.rooms[name] for name in segment.names if name in cloud.rooms),
        zones=cloud.zones,
    )  # fmt: skip
    case = _case(segment, policy, inventory)
    rooms = {room.host: room for room in inventory.rooms}
    board = Board(case, inventory, {}, {}, set(), 0, frozenset(), rooms, groups_by_member(inventory.groups))
    old = before if before and (before.segment, before.policy) == (segment, policy) else None
    plans = {name: _plans(name, mine, case, old) for name, mine in servers.items()}
    kinds = {one.id: kind_of(one, board) for mine in servers.values() for one in mine}
    planned = {step.subject for steps in plans.values() for step in steps}
    for mine in servers.values():
        for server in mine:
            if server.id in planned:
                choices_of(server, board)
    line = tuple(line_of(board))
    fits = {
        name: frozenset(kind for kind, one in board.kinds.items() if fits_alone(one, name, board))
        for name in board.turns
    }
    ends, unsettled = _ends(servers, case), _booked_twice(board)
    unsettled |= {one: f"it may run on {hosts[0]}, too, until its migration is over" for one, hosts in ends.items()}
    return Ground(
        segment, policy, board, servers, plans, kinds, fits, line, homes, groups, cloud.traits, cloud.needs,
        ends, unsettled,
    )  # fmt: skip


def _ends(servers: Mapping[str, tuple[Server, ...]], case: Case) -> dict[str, tuple[str, ...]]:
    assert case.inventory is not None
    inventory, found = case.inventory, {}
    moved = {move.server for move in inventory.migrations}
    for host, mine in servers.items():
        of_host = replace(case, incident=_incident(host, case.segment))
        for server in mine:
            if server.id in moved and (others := may_run_on(of_host, server, inventory)):
                found[server.id] = others
    return found


def _booked_twice(board: Board) -> dict[str, str]:
    """Those of hard-affinity groups that came by an evacuation which its source did not clean up after yet."""
    return {
        move.server: f"it came from {move.source}, which has not cleaned up: Nova moves its affinity group by no force"
        for move in board.inventory.migrations
        if (move.kind, move.status) == (EVACUATION, "done")
        and any(group.policy == "affinity" for group in board.groups_of.get(move.server, ()))
    }


def _by_host(segment: Segment, cloud: Cloud) -> dict[str, tuple[Server, ...]]:
    found: dict[str, list[Server]] = {name: [] for name in segment.names}
    for server in cloud.servers:
        if server.host in found:
            found[server.host].append(server)
    return {name: tuple(sorted(mine, key=lambda one: one.id)) for name, mine in found.items()}


def _plans(host: str, servers: tuple[Server, ...], case: Case, old: Ground | None) -> tuple[Step, ...]:
    if old is not None and old.servers[host] == servers:
        return old.plans[host]
    assert case.inventory is not None
    inventory = replace(case.inventory, host=host, servers=servers)
    return treat(replace(case, incident=_incident(host, case.segment)), inventory)


def _case(segment: Segment, policy: Policy, inventory: Inventory) -> Case:
    return Case(
        incident=_incident("", segment),
        steps=(), segment=segment, policy=policy, evidence=Evidence(""), verdict=FELL,
        verdicts=dict.fromkeys(segment.names, WELL), proofs={}, busy_hosts=frozenset(), suspected_at={}, powers={},
        elsewhere=(), claimed={}, inventory=inventory,
    )  # fmt: skip


def _incident(host: str, segment: Segment) -> Incident:
    return Incident(f"{host}.0", segment.name, host, State.RECOVERING, 0.0, "", round=1)


def _proof(host: str) -> Proof:
    return Proof(host, POWER_OFF, 0.0, True, 1, ())
