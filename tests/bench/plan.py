# SPDX-License-Identifier: Apache-2.0
"""What a plan costs, and what is known before a failure: 1,000 hosts, 20,000 VMs in groups of all kinds.

A plan is the targets of all VMs of some dead hosts, by the very function that recovers (recover), each incident with
its own reading of the cloud, as an engine decides them one after another; with half and with twice the hosts it says
whether the cost is linear. Limits of what may be under way are lifted there, so that one pass names all targets.
Survivability is asked of every single host and rack from nothing, and again after one VM came. All times are CPU time
of this one thread, so what else runs on the machine counts little; it still shares caches with that.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

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
from vmhad.survivability.survey import survey  # noqa: E402

HOSTS_OF_RACK = 20
# vCPUs, RAM in MiB: what clouds are made of.
FLAVORS = ((1, 2048), (2, 4096), (4, 8192), (8, 16384), (16, 32768))
HOST_VCPUS, HOST_RAM_MIB, HOST_DISK_GIB = 256, 512 * 1024, 4000
GROUP_KINDS = ("anti-affinity", "anti-affinity", "soft-anti-affinity", "affinity", "soft-affinity")
GROUPED_SHARE = 0.25
WELL = Verdict(Judgement.HEALTHY, "", 0)
FELL = Verdict(Judgement.FAILED, "", 0, positive=True, is_off=True)
NOW = 1000.0
Result = TypeVar("Result")
Row = dict[str, Any]


def drawn(hosts: int, vms: int, seed: int) -> Cloud:
    """One segment; a quarter of the VMs in groups of three to five; racks of twenty."""
    dice = random.Random(seed)
    names = [f"compute{number:04d}" for number in range(hosts)]
    policy = Policy(affinity_groups_movable=True, shared_ephemeral=True)
    left = {name: [HOST_VCPUS, HOST_RAM_MIB, HOST_DISK_GIB] for name in names}
    servers: list[Server] = []
    groups: list[Group] = []
    spread = (name for _ in range(1 + vms // hosts) for name in dice.sample(names, hosts))

    def add(host: str) -> str:
        vcpus, ram_mib = dice.choice(FLAVORS)
        zone = "az1" if dice.random() < 0.1 else ""
        server_id = f"vm{len(servers):05d}"
        servers.append(Server(server_id, server_id, host, ServerState.ACTIVE, volume_backed=dice.random() < 0.7,
                              vcpus=vcpus, ram_mib=ram_mib, disk_gib=20, zone=zone, zone_pinned=bool(zone)))  # fmt: skip
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
    rooms = {name: Room(name, *figures) for name, figures in left.items()}
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
