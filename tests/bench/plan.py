# SPDX-License-Identifier: Apache-2.0
"""What a plan costs, and what is known before a failure: 1,000 hosts, 20,000 VMs, a quarter of them in groups.

A plan is a target for every VM of some dead hosts, by the very function that recovers (recover), each incident with its
own reading of the cloud, as an engine decides them one after another. What may be under way at once is not limited
there, and all that is sent arrives before the next look: members of a group still go one after another. With a quarter
of the hosts up to twice as many it says whether the cost is linear in VMs.

Survivability is asked of every single host and rack from nothing, then again after one VM came, many times; and once
more of a cloud that is nearly full, where looking for room takes longest. All times are CPU time of this one thread, so
what else runs on the machine counts little, though it shares caches and clock with that; wall time stands beside.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from vmhad.guards.hosts.board import less  # noqa: E402
from vmhad.guards.hosts.recover import recover  # noqa: E402
from vmhad.kernel.case import Case  # noqa: E402
from vmhad.kernel.cloud import ComputeService, Group, Inventory, Room, Server, ServerState  # noqa: E402
from vmhad.kernel.evidence import Evidence  # noqa: E402
from vmhad.kernel.incident import Incident, State  # noqa: E402
from vmhad.kernel.policy import Policy  # noqa: E402
from vmhad.kernel.proof import POWER_OFF, Proof  # noqa: E402
from vmhad.kernel.step import Step, StepState, Verb  # noqa: E402
from vmhad.kernel.topology import Host, Segment  # noqa: E402
from vmhad.kernel.verdict import Judgement, Verdict  # noqa: E402
from vmhad.survivability.cloud import HOST, Cloud, single_losses  # noqa: E402
from vmhad.survivability.document import document  # noqa: E402
from vmhad.survivability.survey import Survey, survey  # noqa: E402

HOSTS_OF_RACK = 20
# vCPUs, RAM in MiB: what clouds are made of.
FLAVORS = ((1, 2048), (2, 4096), (4, 8192), (8, 16384), (16, 32768))
HOST_VCPUS, HOST_RAM_MIB, HOST_DISK_GIB = 256, 512 * 1024, 4000
FULL_RAM_MIB = 256 * 1024
GROUP_KINDS = ("anti-affinity", "anti-affinity", "soft-anti-affinity", "affinity", "soft-affinity")
GROUPED_SHARE = 0.25
UNLIMITED = 1 << 20
WELL = Verdict(Judgement.HEALTHY, "", 8)
FELL = Verdict(Judgement.FAILED, "", 1, positive=True, is_off=True)
Result = TypeVar("Result")
Row = dict[str, Any]


def drawn(hosts: int, vms: int, seed: int, ram_mib_of_host: int = HOST_RAM_MIB) -> Cloud:
    """One segment; a quarter of the VMs in groups of three to five; racks of twenty."""
    dice = random.Random(seed)
    names = [f"compute{number:04d}" for number in range(hosts)]
    policy = Policy(affinity_groups_movable=True, shared_ephemeral=True)
    left = {name: [HOST_VCPUS, ram_mib_of_host, HOST_DISK_GIB] for name in names}
    servers: list[Server] = []
    groups: list[Group] = []
    spread = (name for _ in range(1 + vms // hosts) for name in dice.sample(names, hosts))

    def add(host: str) -> str:
        vcpus, ram_mib = dice.choice(FLAVORS)
        zone = "az1" if dice.random() < 0.1 else ""
        server_id = f"vm{len(servers):05d}"
        servers.append(
            Server(
                server_id,
                server_id,
                host,
                ServerState.ACTIVE,
                volume_backed=dice.random() < 0.7,
                vcpus=vcpus,
                ram_mib=ram_mib,
                disk_gib=20,
                zone=zone,
                zone_pinned=bool(zone),
            )  # fmt: skip
        )
        left[host] = [left[host][0] - vcpus, left[host][1] - ram_mib, left[host][2] - 20]
        return server_id

    while len(servers) < vms:
        if dice.random() >= GROUPED_SHARE / 4:
            add(next(spread))
            continue
        kind, size = dice.choice(GROUP_KINDS), min(dice.randint(3, 5), vms - len(servers))
        home = next(spread)
        members = tuple(add(home if kind == "affinity" else next(spread)) for _ in range(size))
        groups.append(Group(f"group{len(groups):05d}", kind, members))
    rooms = {name: Room(name, *(max(0, one) for one in figures)) for name, figures in left.items()}
    return Cloud(
        segments=(Segment("all", tuple(_host(number, name) for number, name in enumerate(names))),),
        policies={"all": policy},
        services=tuple(ComputeService(name, True, True, "", False, "") for name in names),
        rooms=rooms,
        zones=dict.fromkeys(names, "az1"),
        servers=tuple(servers),
        groups=tuple(groups),
    )


def _host(number: int, name: str) -> Host:
    return Host(name, {"rack": f"rack{number // HOSTS_OF_RACK:02d}", "power": f"feed{number % 2}"})


class Recovery:
    """The incidents of some dead hosts, decided as an engine does: each in turn, knowing the steps of the others."""

    def __init__(self, cloud: Cloud, dead: list[str]) -> None:
        (self.segment,) = cloud.segments
        self.cloud, self.now = cloud, 1000.0
        self.policy = replace(
            cloud.policies[self.segment.name], evacuations_max=UNLIMITED, evacuation_requests_max=UNLIMITED
        )
        self.incidents = {host: Incident(f"{host}.1", "all", host, State.RECOVERING, 0.0, "", round=1) for host in dead}
        self.steps = {host: self.told(incident) for host, incident in self.incidents.items()}
        self.proofs = {host: Proof(host, POWER_OFF, 0.0, True, 1, ()) for host in dead}
        self.servers = {host: [one for one in cloud.servers if one.host == host] for host in dead}
        self.by_id = {one.id: one for one in cloud.servers}
        self.flying: list[tuple[str, Step]] = []
        self.rooms = dict(cloud.rooms)
        self.homes = {one.id: one.host for one in cloud.servers}
        self.cpu_s = 0.0
        self.looks = 0

    def told(self, incident: Incident) -> dict[str, Step]:
        ids = {f"{incident.id}/1/{verb.value}": verb for verb in (Verb.FORCE_DOWN, Verb.DISABLE)}
        return {
            one: Step(one, incident.id, verb, incident.host, state=StepState.DONE, attempt=1)
            for one, verb in ids.items()
        }

    def run(self) -> int:
        """Until no look starts anything and nothing is tried again later; gives how many VMs have a target."""
        placed, later = 0, self.now
        while self.now <= later:
            self.now = max(self.now, later)
            started = sum(self.look(host) for host in self.incidents)
            self.land()
            placed += started
            self.now += 1.0
            later = self.now if started else self.tried_next_at()
        return placed

    def tried_next_at(self) -> float:
        waiting = (step for steps in self.steps.values() for step in steps.values() if step.state is StepState.PLANNED)
        return min((step.not_before for step in waiting if step.not_before > self.now), default=0.0)

    def look(self, host: str) -> int:
        case = self.case(host)
        gc.disable()
        began_s = time.thread_time()
        move = recover(case, self.now)
        self.cpu_s += time.thread_time() - began_s
        gc.enable()
        self.looks += 1
        self.steps[host].update((step.id, step) for step in move.steps)
        started = [one for one in move.steps if one.verb is Verb.EVACUATE and one.state is StepState.STARTED]
        self.flying.extend((host, step) for step in started)
        return len(started)

    def land(self) -> None:
        for host, step in self.flying:
            target, server = step.args["target"], self.by_id[step.subject]
            self.steps[host][step.id] = replace(step, state=StepState.DONE, ended_at=self.now)
            self.servers[host].remove(server)
            self.rooms[target] = less(self.rooms[target], (server,))
            self.homes[server.id] = target
        self.flying = []

    def rooms_for(self, host: str) -> dict[str, Room]:
        """As Placement has them; what this incident has sent itself is taken off by its own plan."""
        rooms = dict(self.rooms)
        for other, step in self.flying:
            if other != host:
                rooms[step.args["target"]] = less(rooms[step.args["target"]], (self.by_id[step.subject],))
        return rooms

    def case(self, host: str) -> Case:
        servers = tuple(self.servers[host])
        here = {one.id for one in servers}
        groups = tuple(group for group in self.cloud.groups if here & set(group.members))
        names = [name for name in self.segment.names if name not in self.incidents]
        rooms = self.rooms_for(host)
        inventory = Inventory(
            host=host, at=self.now + 0.5, servers=servers, migrations=(), groups=groups,
            member_hosts={one: self.homes[one] for group in groups for one in group.members},
            services=self.cloud.services, rooms=tuple(rooms[name] for name in names), zones=self.cloud.zones,
        )  # fmt: skip
        return Case(
            incident=self.incidents[host], steps=tuple(self.steps[host].values()), segment=self.segment,
            policy=self.policy, evidence=Evidence(host), verdict=FELL,
            verdicts=dict.fromkeys(names, WELL) | dict.fromkeys(self.incidents, FELL), proofs=self.proofs,
            busy_hosts=frozenset(self.incidents), suspected_at={}, powers={},
            elsewhere=tuple(
                step for other, steps in self.steps.items() if other != host
                for step in steps.values() if step.verb is Verb.EVACUATE
            ),
            claimed={}, inventory=inventory,
        )  # fmt: skip


def planned(cloud: Cloud, hosts: int) -> Row:
    names = [name for segment in cloud.segments for name in segment.names]
    recovery = Recovery(cloud, names[:hosts])
    vms = sum(len(servers) for servers in recovery.servers.values())
    placed = recovery.run()
    return {
        "hosts_lost": hosts, "vms": vms, "placed": placed, "looks": recovery.looks, "cpu_s": recovery.cpu_s,
        "ms_per_vm": 1000 * recovery.cpu_s / vms,
    }  # fmt: skip


def timed(call: Callable[[], Result]) -> tuple[Result, float, float]:
    """The result, CPU seconds, wall seconds."""
    gc.collect()
    at, cpu_s = time.monotonic(), time.thread_time()
    result = call()
    return result, time.thread_time() - cpu_s, time.monotonic() - at


def memory_mib() -> dict[str, float]:
    """Of this process, now and at most so far."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"now": int(rows["VmRSS"].split()[0]) / 1024, "peak": int(rows["VmHWM"].split()[0]) / 1024}


def foretold(cloud: Cloud, changes: int) -> tuple[Row, Survey]:
    """Every single host and rack from nothing; then one VM after another comes, with what is told after each."""
    losses = [one for one in single_losses(cloud.segments) if one.kind in (HOST, "rack")]
    found, cpu_s, wall_s = timed(lambda: survey(cloud, losses))
    told, document_cpu_s, _ = timed(lambda: document(found))
    dice, again_s, played = random.Random(1), [], []
    for number in range(changes):
        cloud = with_one_more(cloud, dice, number)
        (found, _), again, _ = timed(lambda now=cloud, old=found: then(old, now))  # type: ignore[misc]
        again_s.append(again)
        played.append(found.played)
    fresh = survey(cloud, losses)
    return {
        "losses": len(losses), "from_nothing_cpu_s": cpu_s, "from_nothing_wall_s": wall_s,
        "document_cpu_s": document_cpu_s, "changes": changes,
        "after_one_vm_cpu_s": max(again_s), "after_one_vm_median_cpu_s": statistics.median(again_s),
        "played_again_most": max(played), "played_again_median": statistics.median(played),
        "kept_is_as_new": all(
            (dict(one.recovered), dict(one.left)) == (dict(found.fates[key].recovered), dict(found.fates[key].left))
            for key, one in fresh.fates.items()
        ),
        "losses_survived": sum(row["survived"] for row in told["losses"]),
        "any_hosts": [row["any_hosts"] for row in told["segments"]],
        "any_hosts_alone": [row["any_hosts_alone"] for row in told["segments"]],
    }, found  # fmt: skip


def then(old: Survey, cloud: Cloud) -> tuple[Survey, Row]:
    found = old.after(cloud)
    return found, document(found)


def with_one_more(cloud: Cloud, dice: random.Random, number: int) -> Cloud:
    """On the emptiest host, as Nova's scheduler likes it and where every loss looks first; every other one anywhere."""
    vcpus, ram_mib = dice.choice(FLAVORS)
    can = [one for one in sorted(cloud.rooms) if cloud.rooms[one].ram_mib >= ram_mib]
    host = dice.choice(can) if number % 2 else max(can, key=lambda one: cloud.rooms[one].ram_mib)
    one = Server(f"new{number:05d}", "", host, ServerState.ACTIVE, volume_backed=True, vcpus=vcpus, ram_mib=ram_mib)
    return replace(cloud, servers=(*cloud.servers, one), rooms={**cloud.rooms, host: less(cloud.rooms[host], (one,))})


def measured(told: argparse.Namespace) -> Row:
    cloud = drawn(told.hosts, told.vms, told.seed)
    gc.collect()
    memory = {"cloud": memory_mib()["now"]}
    planned(cloud, told.lost // 4)  # once for nothing: what Python makes ready counts for no plan
    plans = [planned(cloud, told.lost * quarters // 4) for quarters in (1, 2, 4, 8)]
    memory["plan_peak"] = memory_mib()["peak"]
    roomy, found = foretold(cloud, told.changes)
    memory["survivability_peak"], memory["survivability_kept"] = memory_mib()["peak"], memory_mib()["now"]
    del found
    full, _ = foretold(drawn(told.hosts, told.vms, told.seed, FULL_RAM_MIB), told.changes)
    return {
        "hosts": told.hosts, "vms": told.vms, "plans": plans, "plan_cpu_s": plans[2]["cpu_s"],
        "vms_lost": plans[2]["vms"], "vms_placed": plans[2]["placed"],
        "cost_per_vm_8_times_to_1": plans[3]["ms_per_vm"] / plans[0]["ms_per_vm"],
        "survivability": roomy, "survivability_nearly_full": full, "memory_mib": memory,
    }  # fmt: skip


def show(row: Row) -> None:
    for one in row["plans"]:
        what = f"{one['placed']} of {one['vms']} VMs placed in {one['looks']} looks"
        print(f"{one['hosts_lost']:>4} hosts lost: {what}, {one['cpu_s']:.2f} CPU s, {one['ms_per_vm']:.2f} ms a VM")
    print(f"cost of a VM, of 8 times as many to the fewest: {row['cost_per_vm_8_times_to_1']:.2f}")
    for name in ("survivability", "survivability_nearly_full"):
        one = row[name]
        print(
            f"{name}: {one['losses']} losses from nothing in {one['from_nothing_cpu_s']:.2f} CPU s, after one VM"
            f" {one['after_one_vm_cpu_s']:.2f} CPU s at most ({one['played_again_most']} played again),"
            f" {one['losses_survived']} survived, as new: {one['kept_is_as_new']}"
        )
    print(f"MiB: {', '.join(f'{name} {mib:.0f}' for name, mib in row['memory_mib'].items())}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--vms", type=int, default=20000)
    parser.add_argument(
        "--lost", type=int, default=40, help="hosts whose plan is made; the others are a quarter to twice that"
    )
    parser.add_argument("--changes", type=int, default=20, help="VMs that come one after another")
    parser.add_argument("--seed", type=int, default=1)
    row = measured(parser.parse_args())
    place = ROOT / "lab" / "run" / "plan.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(row, indent=1) + "\n")
    show(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
