# SPDX-License-Identifier: Apache-2.0
"""Rules of recovery in a drawn script: groups kept apart over failure domains, priorities, order groups that wait for
each other, and a storage that only some hosts reach; what each VM is there for, and how long that takes to be ready.

A source of chance of its own, drawn only where a shape asks for it: no other seed's disasters become others by it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from vmhad.sim.mischief import Cloud, Timed

# Who comes after whom; the last one waits in a circle.
TIERS = ("db", "app", "web", "snake")
AFTER = {"app": "db", "web": "app", "snake": "snake,tail"}
KINDS = ("rack", "power", "site")
GATES = ("", "port", "agent", "tcp:5432", "http:8080/healthz", "tcp:192.0.2.7:5432")


def with_rules(
    seed: int, declared: Sequence[str], cloud: Cloud, calm_from_s: float
) -> tuple[list[str], list[Timed]]:
    """The declarations with what VMs belong to, and the policies of VMs, which are there from the first moment on; and
    what befalls the services of VMs. What storages there are already have it as they are."""
    rng = random.Random(f"rules {seed}")
    kinds = [kind for kind in KINDS if any(f" {kind}=" in line for line in declared)]
    has_storages = any(line.startswith("backend ") for line in declared)
    reach = sorted(rng.sample(cloud.hosts, max(2, len(cloud.hosts) * 2 // 3))) if rng.random() < 0.4 else []
    reach = [] if has_storages else reach
    told = [_with_rules(rng, line, kinds, reach) for line in declared]
    if reach:
        told[1:1] = ["backend ceph", f"backend nfs reach={','.join(reach)}"]
    policies = [_policy(rng, tier) for tier in TIERS if rng.random() < 0.8]
    said = [(0.0, line) for line in policies if line]
    return told, said + _services(random.Random(f"services {seed}"), sorted(cloud.vms), calm_from_s)


def _services(rng: random.Random, vms: Sequence[str], calm_from_s: float) -> list[Timed]:
    """How long each VM takes to be ready is so from the first moment on; some lose it meanwhile, or do not answer."""
    found = [(0.0, "domains")] if rng.random() < 0.3 else []
    for vm in vms:
        takes = rng.choice(("", "after 5s", "after 20s", "after 90s", "never"))
        found += [(0.0, f"ready {vm} {takes}")] if takes else []
    for vm in rng.sample(vms, min(len(vms), rng.choice((0, 2, 5)))):
        at = round(rng.uniform(30.0, calm_from_s), 1)
        if rng.random() < 0.5:
            found.append((at, f"ready {vm} silent {rng.choice((5, 30, 120))}s"))
        else:
            found += [(at, f"ready {vm} lost"), (round(at + rng.choice((10.0, 60.0, 200.0)), 1), f"ready {vm} now")]
    return found


def _with_rules(rng: random.Random, line: str, kinds: Sequence[str], reach: Sequence[str]) -> str:
    if line.startswith("segment "):
        words = f" order_wait_s={rng.choice((20, 60, 300))}s"
        words += f" spread_over={rng.choice(kinds)}" if kinds and rng.random() < 0.7 else ""
        return f"{line}{'' if ' policy' in line else ' policy'}{words}"
    if not line.startswith("vm "):
        return line
    words = f" tier={rng.choice(TIERS)}" if rng.random() < 0.8 else ""
    words += " HA_Enabled=True" if rng.random() < 0.1 else ""
    may_have = "local-disk" not in line and line.split()[3] in reach
    return line + words + (" backend=nfs" if may_have and rng.random() < 0.4 else "")


def _policy(rng: random.Random, tier: str) -> str:
    said = {"order_group": tier, "after": AFTER.get(tier, "")}
    said["priority"] = rng.choice(("", "", "-5", "3", "100"))
    said["ready_after_s"] = rng.choice(("", "5", "40"))
    said["ready"] = rng.choice(GATES)
    told = " ".join(f"{name}={value}" for name, value in said.items() if value and rng.random() < 0.9)
    return f"vm-policy {tier} metadata.tier={tier} says {told}" if told else ""
