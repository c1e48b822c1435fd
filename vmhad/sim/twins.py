# SPDX-License-Identifier: Apache-2.0
"""Two engines ask for one evacuation, in a drawn script: the first was stopped between its check and its send, and its
request arrives while that of its heir is carried out. Both may fail where they leave a guest that runs; then that
target stops being the one that is taken first.

A source of chance of its own, as the ambushes have, so that it can grow without any seed's disasters becoming others.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from vmhad.sim.draft import seconds
from vmhad.sim.mischief import Cloud, Timed
from vmhad.sim.rebuild import SPAWN_S
from vmhad.sim.world import Pace

# Chosen so that no seed on record in mutants_list.py or pinned.txt draws this.
SALT = "twins1"
SHARE = 0.06
# After its take-over an heir waits for a record of what its predecessor may have sent, then asks itself.
ASKS_AGAIN_S = 16.2


def twins(seed: int, cloud: Cloud, declared: Sequence[str], faults: Sequence[Timed], until_s: float) -> list[Timed]:
    """None where hosts are wired to one another: an engine that is stopped cannot tell a silent one from a dead one."""
    rng = random.Random(f"{SALT} {seed}")
    if rng.random() >= SHARE or cloud.strict or len(cloud.engines) < 2:
        return []
    if any(" other " in line for _, line in faults):
        return []
    host = cloud.vms[rng.choice(sorted(cloud.vms))]
    segment = next(hosts for hosts in cloud.segments.values() if host in hosts)
    at = rng.uniform(20.0, until_s * 0.6)
    stops_s = _lease_s(declared) + ASKS_AGAIN_S + rng.uniform(*SPAWN_S)
    lines = [(at - 1.0, f"freeze engine {rng.choice(cloud.engines)} {stops_s:.2f}s in evacuate"), (at, f"cut {host}")]
    lines += _passed_by(rng, cloud, [one for one in segment if one != host], at + stops_s + rng.uniform(10.0, 60.0))
    return [(round(when, 3), line) for when, line in lines if when < until_s]


def _lease_s(declared: Sequence[str]) -> float:
    words = (word for line in declared if line.startswith("pace ") for word in line.split())
    return next((seconds(word.partition("=")[2]) for word in words if word.startswith("lease_s=")), Pace().lease_s)


def _passed_by(rng: random.Random, cloud: Cloud, fellows: Sequence[str], at: float) -> list[Timed]:
    """The hosts that receive first are not heard for a while, serve no more, or are filled by another host's VMs."""
    had = Counter(cloud.vms.values())
    emptiest = sorted(fellows, key=lambda one: (had[one], one))[: rng.choice((1, 2))]
    fault = rng.choice(("plane", "stop-compute", "cut"))
    if fault == "plane":
        return [(at, f"plane {one} management off {rng.uniform(100, 300):.1f}s") for one in emptiest]
    if fault == "cut":
        return [(at, f"cut {one}") for one in rng.sample(fellows, min(2, len(fellows))) if one not in emptiest]
    return [(at, f"stop-compute {one}") for one in emptiest]
