# SPDX-License-Identifier: Apache-2.0
"""One loss played through: the recoveries of all its hosts side by side, each evacuation as recovery would start it.

Taken for granted: every death is proven, every evacuation succeeds, and what is under way arrives when no more may be
started beside it. The hosts come one after another, by name, as their incidents do. Where room is only just enough,
another order of arrivals may end elsewhere; the bound for any hosts (bound.py) holds for every order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vmhad.guards.hosts.board import Board, Kind, Turn
from vmhad.guards.hosts.place import END, Placement, in_order, place, take, waits_for_group
from vmhad.kernel.case import Case
from vmhad.kernel.cloud import Inventory, Server
from vmhad.kernel.step import Step, StepState
from vmhad.survivability.ground import Ground

# How often each kind of server could choose when an order was made: only who has fewer than whom counts.
Choices = tuple[tuple[Kind, int], ...]

WAITS_IN_VAIN = "it waits for others that do not come"


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of the VMs of some hosts of one segment. recovered: server id -> where it comes back; left: server
    id -> why it does not.

    depth, named, orders, fewest: what this rests on beside the servers themselves: the receivers before that turn,
    those that were asked by name, how many hosts each kind of server could choose from when its order was made, and
    how many at the end."""

    hosts: frozenset[str]
    recovered: Mapping[str, str]
    left: Mapping[str, str]
    depth: Turn = (-1, 0, "")
    named: frozenset[str] = frozenset()
    orders: tuple[Choices, ...] = ()
    fewest: Mapping[Kind, int] = field(default_factory=dict)


def lose(ground: Ground, hosts: frozenset[str]) -> Fate:
    """hosts: of the ground's segment."""
    return _Trial(ground, hosts).fate()


class _Trial:
    """homes: the members of groups -> where they are now. waiting: host -> its servers that may start now; resting:
    those that found no place, and whose group may yet open one. is_last: who finds none now does not come back."""

    def __init__(self, ground: Ground, hosts: frozenset[str]) -> None:
        self._ground, self._hosts = ground, hosts
        self._at: Board = ground.board_without(hosts)
        self._cases = ground.cases_of(hosts)
        self._homes = dict(ground.homes)
        self._recovered: dict[str, str] = {}
        self._left: dict[str, str] = {}
        self._orders: list[Choices] = []
        self._servers = {one.id: one for host in hosts for one in ground.servers[host]}
        self._inventories = {host: self._inventory_of(host) for host in self._cases}
        self._waiting: dict[str, dict[str, Step]] = {}
        self._resting: dict[str, dict[str, Step]] = {host: {} for host in self._cases}
        for host in self._cases:
            steps = ground.plans[host]
            self._left.update((step.subject, step.because) for step in steps if step.state is StepState.FAILED)
            self._waiting[host] = {step.subject: step for step in steps if step.state is not StepState.FAILED}

    def fate(self) -> Fate:
        self._run(is_last=False)
        while any(self._resting.values()):
            self._waiting, self._resting = self._resting, {host: {} for host in self._cases}
            if not self._run(is_last=False):
                break
        self._waiting, self._resting = self._resting, self._waiting
        self._run(is_last=True)
        for steps in self._resting.values():
            self._left.update((one, step.because or WAITS_IN_VAIN) for one, step in steps.items())
        kinds = {self._ground.kinds[one] for one in self._servers}
        fewest = {kind: self._at.choices[kind] for kind in kinds if kind in self._at.choices}
        named = frozenset(self._at.named)
        orders = tuple(dict.fromkeys(self._orders))
        return Fate(self._hosts, self._recovered, self._left, self._at.depth, named, orders, fewest)

    def _inventory_of(self, host: str) -> Inventory:
        base = self._ground.inventory
        return replace(base, host=host, servers=self._ground.servers[host], member_hosts=self._homes)

    def _run(self, is_last: bool) -> int:
        """Until nothing starts any more and all has arrived; gives how many were started."""
        all_started = 0
        while True:
            started = self._starts(is_last)
            all_started += started
            if not self._at.moving or not any(self._waiting.values()) and not any(self._resting.values()):
                break
            self._land()
        for host, steps in self._waiting.items():
            # What only waits, and for nothing.
            self._resting[host].update(steps)
        self._waiting = {host: {} for host in self._cases}
        return all_started

    def _starts(self, is_last: bool) -> int:
        started = 0
        for host, case in self._cases.items():
            if not self._waiting[host]:
                continue
            if len(self._at.moving) >= case.policy.evacuations_max:
                break
            started += self._starts_of(host, case, is_last)
        return started

    def _starts_of(self, host: str, case: Case, is_last: bool) -> int:
        at, waiting, started = self._at, self._waiting[host], 0
        at.case, at.inventory = case, self._inventories[host]
        at.coming = frozenset(step.subject for step in self._ground.plans[host]) - self._left.keys()
        order = in_order(waiting, at)
        if len(order) > 1:
            kinds = dict.fromkeys(self._ground.kinds[one] for one in order)
            self._orders.append(tuple((kind, at.choices[kind]) for kind in kinds))
        for server_id in order:
            if len(at.moving) >= case.policy.evacuations_max:
                break
            server = self._servers[server_id]
            if waits_for_group(server, at):
                continue
            unproven = [one for one in self._ground.ends.get(server_id, ()) if one not in self._hosts]
            found = self._place(server, waiting[server_id], unproven)
            if found.soon:
                continue
            step = waiting.pop(server_id)
            if found.target:
                take(server, found.target, at)
                self._recovered[server_id] = found.target
                started += 1
            elif found.final or is_last or unproven or not self._may_yet(server):
                self._left[server_id] = found.because
                at.coming -= {server_id}
            else:
                self._resting[host][server_id] = replace(step, because=found.because)
        return started

    def _may_yet(self, server: Server) -> bool:
        """Room only becomes less, and members of a group only more: none but a group that keeps together may find a
        place after it found none."""
        return any(group.policy == "affinity" for group in self._at.groups_of.get(server.id, ()))

    def _place(self, server: Server, step: Step, unproven: list[str]) -> Placement:
        """unproven: who else may run it; where that is one it can go there only."""
        if len(unproven) > 1:
            return Placement("", f"it may run on {unproven[0]}, which is not proven off", final=True)
        self._at.named.update(unproven)
        only = "".join(unproven)
        found = place(server, step, self._at, only)
        needs = set(self._ground.needs.get(server.id, ()))
        while needs and found.target and not found.force and needs - set(self._ground.traits.get(found.target, ())):
            # Nova's scheduler refuses it there, as it would: that costs a try, and another host is asked for.
            self._at.depth = END
            refused = set(step.args.get("failed_on", "").split(",")) - {""}
            again, refused = found.target in refused, refused | {found.target}
            if again or len(refused) >= self._at.case.policy.evacuate_attempts_max:
                missing = ", ".join(sorted(needs))
                because = f"Nova refuses it, for want of {missing}, on {len(refused)} hosts with room"
                # By the next try what is under way to better ones has arrived.
                return Placement("", because, final=True, soon=again and bool(self._at.moving))
            step = replace(step, args={**step.args, "failed_on": ",".join(sorted(refused))})
            self._waiting[self._at.case.incident.host][server.id] = step
            found = place(server, step, self._at, only)
        return found

    def _land(self) -> None:
        at = self._at
        for server_id in at.moving:
            if server_id in self._homes:
                self._homes[server_id] = at.placed[server_id]
        targets, at.unsent = list(at.in_flight), 0
        at.moving.clear()
        at.in_flight.clear()
        for target in targets:
            at.stand_anew(target)
