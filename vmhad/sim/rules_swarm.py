# SPDX-License-Identifier: Apache-2.0
"""Rules of recovery in a drawn script: groups kept apart over failure domains, priorities, order groups that wait for
each other, and a storage that only some hosts reach.

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


def with_rules(seed: int, declared: Sequence[str], cloud: Cloud) -> tuple[list[str], list[Timed]]:
    """The declarations with what VMs belong to, and the policies of VMs, which are there from the first moment on.
    What storages there are already have it as they are."""
    rng = random.Random(f"rules {seed}")
    kinds = [kind for kind in KINDS if any(f" {kind}=" in line for line in declared)]
    has_storages = any(line.startswith("backend ") for line in declared)
    reach = sorted(rng.sample(cloud.hosts, max(2, len(cloud.hosts) * 2 // 3))) if rng.random() < 0.4 else []
    reach = [] if has_storages else reach
    told = [_with_rules(rng, line, kinds, reach) for line in declared]
    if reach:
        told[1:1] = ["backend ceph", f"backend nfs reach={','.join(reach)}"]
    policies = [_policy(rng, tier) for tier in TIERS if rng.random() < 0.8]
    return told, [(0.0, line) for line in policies if line]


def _with_rules(rng: random.Random, line: str, kinds: Sequence[str], reach: Sequence[str]) -> str:
    if line.startswith("segment "):
        words = f" order_wait_s={rng.choice((20, 60, 300))}s"
        words += f" spread_over={rng.choice(kinds)}" if kinds and rng.random() < 0.7 else ""
        return f"{line}{'' if ' policy' in line else ' policy'}{words}"
    if not line.startswith("vm "):
        return line
    words = f" tier={rng.choice(TIERS)}" if rng.random() < 0.6 else ""
    words += " HA_Enabled=True" if rng.random() < 0.1 else ""
    may_have = "local-disk" not in line and line.split()[3] in reach
    return line + words + (" backend=nfs" if may_have and rng.random() < 0.4 else "")


def _policy(rng: random.Random, tier: str) -> str:
    said = {"order_group": tier, "after": AFTER.get(tier, "")}
    said["priority"] = rng.choice(("", "", "-5", "3", "100"))
    said["ready_after_s"] = rng.choice(("", "5", "40"))
    told = " ".join(f"{name}={value}" for name, value in said.items() if value and rng.random() < 0.9)
    return f"vm-policy {tier} metadata.tier={tier} says {told}" if told else ""
