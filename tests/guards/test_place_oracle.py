# SPDX-License-Identifier: Apache-2.0
"""The shipped planner against the oracle, on small clouds drawn at random: it never breaks a rule by its own choice,
and leaves hardly a VM behind that any planner could have placed.

A planner that decides one VM after another cannot be best always: that would be bin packing. What it misses is counted.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from oracle import DEAD, Nova, Small, best

from vmhad.guards.hosts.board import board
from vmhad.guards.hosts.place import in_order
from vmhad.guards.hosts.recover import recover
from vmhad.kernel.case import Case
from vmhad.kernel.cloud import Group, Migration, Room, Server, ServerState
from vmhad.kernel.evidence import Evidence
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.policy import Policy
from vmhad.kernel.proof import Proof
from vmhad.kernel.step import Answer, Observation, Outcome, Step, StepState, Verb, record
from vmhad.kernel.topology import Backend, Host, Segment
from vmhad.kernel.verdict import Judgement, Verdict

CASES = int(os.environ.get("ORACLE_CASES", "1800"))
# Of the VMs that could be placed, the share that deciding one after another may leave behind: in clouds where room is
# what all fight for, and in clouds with room (there, by what no planner sees: traits beside groups).
GREED_TIGHT, GREED_ROOMY = 0.035, 0.004
ROUNDS_MAX = 200
SOUND = Verdict(Judgement.HEALTHY, "", 8)
FELL = Verdict(Judgement.FAILED, "", 1, positive=True)


@dataclass(frozen=True)
class Result:
    """What the planner made of it. broken: the rules its requests broke. because: of what was left behind."""

    placed: Mapping[str, str]
    broken: tuple[str, ...]
    posts: int
    because: Mapping[str, str]


def draw(seed: int, roomy: bool = False) -> Small:
    """Every kind of rule; a tight cloud has room for most but not for all, a roomy one on each host for all."""
    dice = random.Random(seed)
    targets = [f"t{n}" for n in range(1, dice.randint(2, 4) + 1)]
    names = [f"v{n}" for n in range(1, dice.randint(2, 5) + 1)]
    zones = {name: dice.choice(("a", "a", "b")) for name in targets}
    rooms = {name: Room(name, dice.randint(0, 5), 1024 * dice.randint(1, 6), dice.choice((0, 40))) for name in targets}
    rooms = {name: Room(name, 64, 65536, 1000) for name in targets} if roomy else rooms
    traits = {name: dice.choice(("", "", "gpu")) for name in targets}
    closed = {
        name: dice.choice(("disabled", "down", "forced_down", "busy", "suspect"))
        for name in targets
        if dice.random() < 0.12
    }
    groups, member_hosts = _groups(dice, names, targets)
    as_one = {one for group in groups if group.policy == "affinity" for one in group.members}
    servers = tuple(_server(dice, name) for name in names)
    needs = {name: "gpu" for name in names if name not in as_one and "gpu" in traits.values() and dice.random() < 0.2}
    policy = Policy(
        affinity_groups_movable=dice.random() < 0.7,
        evacuations_max=dice.choice((2, 64)),
        evacuations_per_target_max=dice.choice((1, 2, 16)),
        rebuild_local_disks=dice.random() < 0.5,
    )
    migrations = tuple(_migrations(dice, names, targets))
    proven = frozenset(name for name, why in closed.items() if why == "busy" and dice.random() < 0.5)
    small = Small(policy, rooms, zones, traits, closed, servers, needs, groups, member_hosts, migrations, proven)
    return _with_storages_and_racks(small, random.Random(f"storages and racks of {seed}"))


def _with_storages_and_racks(small: Small, dice: random.Random) -> Small:
    """One third has two storages, one of which not every target reaches; one half has racks to be kept apart over."""
    if dice.random() < 0.35:
        reach = {"nfs": frozenset(name for name in small.rooms if dice.random() < 0.7), "ceph": frozenset(small.rooms)}
        disks = [("cinder/ceph",), ("cinder/ceph",), ("cinder/nfs",), ("cinder/ceph", "cinder/nfs")]
        servers = tuple(replace(one, disks=dice.choice(disks)) for one in small.servers)
        small = replace(small, servers=servers, reach=reach)
    racks = {name: dice.choice(("r1", "r1", "r2", "r3", "")) for name in small.rooms}
    spread_over = dice.choice(("", "rack"))
    return replace(small, racks=racks, policy=replace(small.policy, spread_over=spread_over))


def _server(dice: random.Random, name: str) -> Server:
    states = [ServerState.ACTIVE] * 9 + [ServerState.STOPPED, ServerState.ERROR, ServerState.PAUSED]
    return Server(
        name,
        name,
        DEAD,
        dice.choice(states),
        volume_backed=dice.random() < 0.8,
        vcpus=dice.randint(1, 3),
        ram_mib=1024 * dice.randint(1, 2),
        disk_gib=20,
        zone="a",
        zone_pinned=dice.random() < 0.25,
        metadata={"vmhad": "false"} if dice.random() < 0.05 else {},
    )


def _groups(dice: random.Random, names: list[str], targets: list[str]) -> tuple[tuple[Group, ...], dict[str, str]]:
    """Up to two groups without a common member; some have members that live elsewhere, one of them beyond our sight."""
    free, groups, living = list(names), [], {}
    for number in range(dice.choice((0, 1, 1, 2))):
        policy = dice.choice(("affinity", "anti-affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"))
        members = [free.pop(dice.randrange(len(free))) for _ in range(min(len(free), dice.randint(1, 3)))]
        if not members:
            break
        home = dice.choice([*targets, "beyond"])
        others = {f"g{number}o{n}": home if policy == "affinity" else dice.choice([*targets, "beyond"])
                  for n in range(dice.choice((0, 0, 1, 2)))}  # fmt: skip
        living |= others
        per_host = dice.choice((1, 1, 2)) if policy == "anti-affinity" else 1
        groups.append(Group(f"g{number}", policy, (*members, *others), per_host))
    return tuple(groups), living


def _migrations(dice: random.Random, names: list[str], targets: list[str]) -> list[Migration]:
    rows = []
    for name in names:
        if dice.random() < 0.05:
            rows.append(Migration(f"m-{name}", name, "live-migration", "running", DEAD, dice.choice(targets), ""))
        elif dice.random() < 0.05:
            rows.append(Migration(f"m-{name}", name, "evacuation", "done", "long-dead", DEAD, ""))
    return rows


def play(small: Small, seed: int) -> Result:
    """Runs RECOVERING to its end: what is on its way lands one at a time, in an order drawn from the seed."""
    dice, nova, now = random.Random(seed), Nova(small), 1000.0
    incident = Incident(f"{DEAD}.1", "s", DEAD, State.RECOVERING, 900.0, "", round=1)
    steps = {f"{incident.id}/1/{verb.value}": _host_step(incident, verb) for verb in (Verb.FORCE_DOWN, Verb.DISABLE)}
    for _ in range(ROUNDS_MAX):
        now += 1.0
        case = _case(small, nova, incident, steps, now)
        move = recover(case, now)
        before = dict(steps)
        steps.update((step.id, step) for step in move.steps)
        started = [one for one in steps.values() if one.state is StepState.STARTED and one != before.get(one.id)]
        nova.sent.clear()
        for step in _as_decided(case, steps, started):
            steps[step.id] = _send(nova, step, now)
        if nova.coming:
            landed = dice.choice(sorted(nova.coming))
            nova.land(landed)
            key = f"{incident.id}/{Verb.EVACUATE.value}/{landed}"
            steps[key] = _seen(steps[key], now, Answer.SO, "done")
        elif move.event is not None or (not started and not _due_later(steps, now)):
            break
        elif not started:
            now = min(one.not_before for one in steps.values() if one.not_before > now) - 1.0
    else:
        raise AssertionError(f"seed {seed}: no end of it after {ROUNDS_MAX} rounds")
    because = {one.subject: one.because for one in steps.values() if one.verb is Verb.EVACUATE and one.because}
    placed = {one.id: nova.hosts[one.id] for one in small.servers if nova.hosts[one.id] != DEAD}
    return Result(placed, tuple(nova.broken), nova.posts, because)


def _as_decided(case: Case, steps: Mapping[str, Step], started: list[Step]) -> list[Step]:
    """What was begun together, first whose target was chosen first: what the second one may know of is the first."""
    assert case.inventory is not None
    waited = {one.id: replace(one, state=StepState.PLANNED, attempt=one.attempt - 1) for one in started}
    seen = {one.subject: waited.get(one.id, one) for one in steps.values() if one.verb is Verb.EVACUATE}
    turns = {subject: turn for turn, subject in enumerate(in_order(seen, board(case, case.inventory, seen)))}
    return sorted(started, key=lambda one: turns.get(one.subject, -1))


def _due_later(steps: Mapping[str, Step], now: float) -> bool:
    return any(one.state is StepState.PLANNED and one.not_before > now for one in steps.values())


def _host_step(incident: Incident, verb: Verb) -> Step:
    return Step(f"{incident.id}/1/{verb.value}", incident.id, verb, DEAD, state=StepState.DONE, attempt=1)


def _send(nova: Nova, step: Step, now: float) -> Step:
    if step.verb is not Verb.EVACUATE:
        return _seen(step, now, Answer.SO, "")
    why = nova.evacuate(step.subject, step.args["target"], step.args["force"] == "yes")
    return _seen(step, now, Answer.FAILED if why else Answer.NOT_YET, f"m{nova.posts} {'error' if why else ''}", why)


def _seen(step: Step, now: float, answer: Answer, reading: str, text: str = "") -> Step:
    return record(step, Outcome(step.id, step.attempt, Observation(now, answer, reading, text)))


def segment_of(small: Small) -> Segment:
    names = (DEAD, *small.rooms)
    clients = frozenset(names)
    backends = tuple(
        Backend(name, frozenset({f"cinder/{name}"}), clients, who | {DEAD}) for name, who in small.reach.items()
    )
    racks = {name: {"rack": rack} if rack else {} for name, rack in small.racks.items()}
    return Segment("s", tuple(Host(name, racks.get(name, {})) for name in names), backends)


def _case(small: Small, nova: Nova, incident: Incident, steps: Mapping[str, Step], now: float) -> Case:
    verdicts = dict.fromkeys(small.rooms, SOUND) | {DEAD: FELL}
    verdicts |= {name: FELL for name, why in small.closed.items() if why == "suspect"}
    busy = frozenset(name for name, why in small.closed.items() if why == "busy") | {DEAD}
    proofs = {name: Proof(name, "power_off", 900.0, True, 1, ()) for name in (DEAD, *small.proven)}
    return Case(
        incident=incident,
        steps=tuple(steps.values()),
        segment=segment_of(small),
        policy=small.policy,
        evidence=Evidence(DEAD),
        verdict=FELL,
        verdicts=verdicts,
        proofs=proofs,
        busy_hosts=busy,
        suspected_at={},
        powers={},
        elsewhere=(),
        claimed={},
        inventory=nova.inventory(now),
    )


@pytest.mark.parametrize(("roomy", "greed_max"), [(False, GREED_TIGHT), (True, GREED_ROOMY)], ids=["tight", "roomy"])
def test_no_rule_is_broken_and_hardly_a_vm_left_behind(roomy: bool, greed_max: float) -> None:
    could = missed = 0
    left: list[str] = []
    for seed in range(CASES):
        small = draw(seed, roomy)
        result, ideal = play(small, seed), best(small)
        assert not result.broken, f"seed {seed}: {result.broken}"
        could += len(ideal)
        if len(result.placed) < len(ideal):
            missed += len(ideal) - len(result.placed)
            left.append(f"seed {seed}: {dict(result.placed)} although {dict(ideal)} could be: {dict(result.because)}")
    print(f"{CASES} cases: of {could} VMs that could be placed {missed} were left behind, in {len(left)} cases")
    assert could > CASES
    assert missed <= greed_max * could, "\n".join(left[:10])


@pytest.mark.parametrize(
    ("rule", "without", "word"),
    [
        ("_below_cap", lambda host, at: True, "receives more than its share"),
        ("_zone_fits", lambda server, host, at: True, "out of its zone"),
        ("_receivers", lambda at: tuple(sorted(room.host for room in at.inventory.rooms)), "which is "),
        ("_count", lambda group, host, at, server_id: 0, "which has its anti-affinity group"),
        ("is_reached", lambda storages, host: True, "which does not reach its disk"),
        ("Domains.suit", lambda domains, host: 0, "into the rack of its group"),
    ],
)
def test_a_planner_without_one_rule_is_caught(
    monkeypatch: pytest.MonkeyPatch, rule: str, without: Callable[..., object], word: str
) -> None:
    monkeypatch.setattr(f"vmhad.guards.hosts.place.{rule}", without)
    assert any(word in line for seed in range(200) for line in play(draw(seed), seed).broken)


def member(group: Group, **options: Any) -> Small:
    """One VM v1 in a group, three targets with room; t2 has most."""
    rooms = {name: Room(name, 8, ram_mib, 100) for name, ram_mib in (("t1", 8192), ("t2", 16384), ("t3", 4096))}
    same = dict.fromkeys(rooms, "")
    server = Server("v1", "v1", DEAD, ServerState.ACTIVE, volume_backed=True, ram_mib=1024, zone="nova")
    small = Small(Policy(), rooms, dict.fromkeys(rooms, "nova"), same, {}, (server,), {}, (group,), {})
    return replace(small, **options)


def test_a_member_of_a_hard_affinity_group_goes_nowhere_but_to_the_host_that_may_run_it() -> None:
    """Its group chose another host than the one that may have started it already: two writers."""
    under_way = Migration("m", "v1", "live-migration", "running", DEAD, "t3", "")
    alone = Group("g", "affinity", ("v1",))
    assert play(member(alone), 1).placed == {"v1": "t2"}
    assert play(member(alone, migrations=(under_way,)), 1).placed == {"v1": "t3"}
    with_others = member(Group("g", "affinity", ("v1", "o")), migrations=(under_way,), member_hosts={"o": "t1"})
    assert play(with_others, 1).posts == 0


def test_a_hard_affinity_group_keeps_to_what_its_host_may_receive_at_once() -> None:
    group = Group("g", "affinity", ("v1", "v2", "v3", "o"))
    one = member(group).servers[0]
    servers = tuple(replace(one, id=name) for name in ("v1", "v2", "v3"))
    small = member(group, servers=servers, member_hosts={"o": "t1"}, policy=Policy(evacuations_per_target_max=2))
    result = play(small, 1)
    assert set(result.placed.values()) == {"t1"} and len(result.placed) == 3
    assert not result.broken


def test_one_that_goes_on_from_where_we_brought_it_is_counted_where_it_goes() -> None:
    """v0 came to t1 by us; t1 died, and t1's own incident has v0 on its way to t2: no second member goes there."""
    group = Group("g", "anti-affinity", ("v0", "v1"))
    small = member(group, member_hosts={"v0": "t1"})
    incident = Incident(f"{DEAD}.1", "s", DEAD, State.RECOVERING, 900.0, "", round=1)
    came = Step("a", incident.id, Verb.EVACUATE, "v0", {"target": "t1"}, StepState.DONE)
    goes_on = Step("b", "t1.1", Verb.EVACUATE, "v0", {"target": "t2"}, StepState.STARTED)
    case = replace(_case(small, Nova(small), incident, {}, 1000.0), elsewhere=(goes_on,))
    assert case.inventory is not None
    at = board(case, case.inventory, {"v0": came})
    assert at.host_of("v0") == "t2"
    assert at.moving == {"v0"}
