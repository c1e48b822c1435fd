# SPDX-License-Identifier: Apache-2.0
"""The bound for any hosts, against every set of so many on small clouds: played through, and in orders at random."""

from __future__ import annotations

import os
import random
from collections import ChainMap
from dataclasses import replace
from itertools import combinations

import pytest
from clouds import drawn

from vmhad.guards.hosts.board import Board
from vmhad.guards.hosts.place import place, take, waits_for_group
from vmhad.kernel.cloud import ComputeService, Group, Migration, Room, Server, ServerState
from vmhad.kernel.policy import Policy
from vmhad.kernel.step import Step, StepState
from vmhad.kernel.topology import Host, Segment
from vmhad.survivability.bound import bounds_of
from vmhad.survivability.cloud import Cloud
from vmhad.survivability.ground import Ground, ground_of
from vmhad.survivability.trial import lose

SEEDS = int(os.environ.get("BOUND_SEEDS", "100"))
ORDERS = 3


class _AnyOrder:
    """The recoveries of some hosts, where a VM drawn at random is placed next, and lands whenever."""

    def __init__(self, ground: Ground, hosts: frozenset[str], dice: random.Random) -> None:
        self.ground, self.hosts, self.dice = ground, hosts, dice
        self.at: Board = ground.board_without(hosts)
        self.landed: dict[str, str] = {}
        self.cases = ground.cases_of(hosts)
        self.servers = {one.id: one for host in hosts for one in ground.servers[host]}
        self.left: set[str] = set()
        self.waiting: dict[str, Step] = {}
        for step in (step for host in hosts for step in ground.plans[host]):
            if step.state is StepState.FAILED or step.subject in ground.unsettled:
                self.left.add(step.subject)
            else:
                self.waiting[step.subject] = step

    def run(self) -> set[str]:
        """The VMs that are left."""
        resting: dict[str, Step] = {}
        while self.waiting:
            server_id = self.dice.choice(sorted(self.waiting))
            step = self.waiting.pop(server_id)
            again = self.tried(server_id, step)
            if again is not None:
                resting[server_id] = again
            elif server_id not in self.left or not self.waiting:
                self.waiting |= resting
                resting = {}
            if not self.waiting and resting and self.at.moving:
                self.land()
                self.waiting, resting = resting, {}
        return self.left | resting.keys()

    def tried(self, server_id: str, step: Step) -> Step | None:
        """The step, where it waits."""
        server, at = self.servers[server_id], self.at
        at.case = self.cases[server.host]
        at.coming = frozenset(one.subject for one in self.ground.plans[server.host]) - self.left
        members = ChainMap(self.landed, self.ground.homes)
        at.inventory = replace(
            self.ground.inventory, host=server.host, servers=self.ground.servers[server.host], member_hosts=members
        )
        if len(at.moving) >= at.case.policy.evacuations_max or waits_for_group(server, at):
            return step
        found = place(server, step, at)
        needs = set(self.ground.needs.get(server_id, ()))
        if found.soon:
            return step
        if not found.target:
            self.left.add(server_id)
        elif not found.force and needs - set(self.ground.traits.get(found.target, ())):
            self.refused(server_id, step, found.target)
        else:
            take(server, found.target, at)
            if self.dice.random() < 0.5:
                self.land()
        return None

    def refused(self, server_id: str, step: Step, target: str) -> None:
        on = [*filter(None, step.args.get("failed_on", "").split(",")), target]
        if len(on) >= self.at.case.policy.evacuate_attempts_max:
            self.left.add(server_id)
        else:
            self.waiting[server_id] = replace(step, args={**step.args, "failed_on": ",".join(on)})

    def land(self) -> None:
        at = self.at
        self.landed |= {one: at.placed[one] for one in at.moving}
        targets, at.unsent = list(at.in_flight), 0
        at.moving.clear()
        at.in_flight.clear()
        for target in targets:
            at.stand_anew(target)


def left_of(ground: Ground, hosts: frozenset[str], dice: random.Random) -> set[str]:
    """The VMs that are left in the trial, or in one of some orders."""
    left = set(lose(ground, hosts).left)
    return left.union(*(_AnyOrder(ground, hosts, dice).run() for _ in range(ORDERS)))


def by_themselves(ground: Ground) -> set[str]:
    """The VMs that the second bound speaks of."""
    tied = {
        one for group in ground.groups.values() if group.policy == "affinity" and len(group.members) > 1
        for one in group.members
    }  # fmt: skip
    plans = (step for plans in ground.plans.values() for step in plans)
    return {one.subject for one in plans if one.state is not StepState.FAILED} - tied - ground.unsettled.keys()


@pytest.mark.parametrize("plain", [False, True], ids=["all kinds", "plain"])
def test_the_bound_is_never_optimistic(plain: bool) -> None:
    promised = true = 0
    for seed in range(SEEDS):
        dice = random.Random(seed)
        hosts = dice.randint(3, 7)
        cloud = drawn(dice, hosts, dice.randint(hosts, 3 * hosts), plain, dice.choice((4096, 16384, 65536)))
        for segment in cloud.segments:
            ground = ground_of(segment, cloud)
            together, alone = bounds_of(ground)
            assert together.hosts <= alone.hosts < len(segment.names)
            ours, fine = by_themselves(ground), len(segment.names) - 1
            for many in range(1, len(segment.names)):
                for lost in map(frozenset, combinations(segment.names, many)):
                    left = left_of(ground, lost, dice)
                    assert many > together.hosts or not left, f"seed {seed}: {sorted(lost)} leave {sorted(left)}"
                    assert many > alone.hosts or not left & ours, f"seed {seed}: {sorted(lost)} leave {sorted(left)}"
                    if left & ours:
                        fine = min(fine, many - 1)
            promised, true = promised + alone.hosts, true + fine
    print(f"{promised} hosts were promised by themselves; no set of {true} left a VM")
    assert promised > true / 4


def even(hosts: int, group: Group | None = None, **policy: object) -> Cloud:
    """Two equal VMs on each host, and room for two more of them on each."""
    names = [f"h{number}" for number in range(hosts)]
    return Cloud(
        segments=(Segment("s", tuple(map(Host, names))),),
        policies={"s": Policy(**policy)},  # type: ignore[arg-type]
        services=tuple(ComputeService(name, True, True, "", False, "") for name in names),
        rooms={name: Room(name, 2, 2048, 10) for name in names},
        zones={},
        servers=tuple(
            Server(f"{name}v{number}", "", name, ServerState.ACTIVE, volume_backed=True, vcpus=1, ram_mib=1024)
            for name in names for number in range(2)
        ),
        groups=(group,) if group else (),
    )  # fmt: skip


def bounds(cloud: Cloud) -> tuple[int, int]:
    together, alone = bounds_of(ground_of(cloud.segments[0], cloud))
    return together.hosts, alone.hosts


def test_of_equal_vms_half_of_the_hosts_may_fail() -> None:
    assert bounds(even(8)) == (4, 4)


def test_members_of_a_group_are_in_each_others_way() -> None:
    spread = Group("g", "anti-affinity", ("h0v0", "h1v0", "h2v0", "h3v0"))
    assert bounds(even(8, spread)) == (2, 2)
    assert bounds(even(4, spread)) == (0, 0)


def test_what_is_refused_leaves_nothing_to_promise_of_all() -> None:
    cloud = even(8)
    paused = replace(cloud.servers[0], state=ServerState.PAUSED)
    assert bounds(replace(cloud, servers=(paused, *cloud.servers[1:]))) == (0, 4)


def test_a_group_that_goes_as_one_is_promised_only_where_all_fits_everywhere() -> None:
    together = Group("g", "affinity", ("h0v0", "h0v1"))
    assert bounds(even(8, together, affinity_groups_movable=True)) == (1, 4)
    assert bounds(even(8, together)) == (0, 4)


def test_who_may_run_elsewhere_is_not_promised() -> None:
    move = Migration("m", "h0v0", "live-migration", "running", "h0", "h1", "")
    assert bounds(replace(even(8), migrations=(move,))) == (0, 4)


def test_a_refusal_by_nova_may_be_one_too_many() -> None:
    """The plan does not see traits: on more hosts without them than it has tries, it may find no other."""
    cloud = even(8, evacuate_attempts_max=3)
    needs = {"h0v0": ("gpu",)}
    most = {f"h{number}": ("gpu",) for number in range(1, 8)}
    assert bounds(replace(cloud, needs=needs, traits=most))[1] > 0
    few = {f"h{number}": ("gpu",) for number in range(4)}
    assert bounds(replace(cloud, needs=needs, traits=few)) == (0, 0)
