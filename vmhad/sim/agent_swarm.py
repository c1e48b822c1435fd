# SPDX-License-Identifier: Apache-2.0
"""A drawn script with agents on its hosts, and what goes wrong with those: the same disasters, seen by more eyes.

A source of chance of its own, so that no seed without agents becomes another.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from vmhad.sim.mischief import Timed

FAULTS_MAX = 10
ONE_PLANE = 0.3
LASTS_S = (1.0, 60.0)
OF_A_HOST = (
    "agent {host} leaves {lasts}",
    "agent {host} freezes {lasts}",
    "agent {host} wrong-clock {lasts}",
    "agent {host} late 3s {lasts}",
    "agent {host} unheard {lasts}",
    "agent {host} stops",
    "libvirtd {host} stops",
    "plane {host} storage off {lasts}",
    "plane {host} tenant off {lasts}",
    "plane {host} management off {lasts}",
)
OF_ALL = ("bus down {lasts}", "storage ceph hangs {lasts}")


def with_agents(
    seed: int, declared: Sequence[str], hosts: Sequence[str], until_s: float
) -> tuple[list[str], list[Timed]]:
    """The declarations with agents, and what befalls those."""
    rng = random.Random(f"agents {seed}")
    storage = rng.choice(("ceph", "ceph", "none", "site"))
    # Drawn apart, so that no seed from before becomes another.
    one_plane = random.Random(f"planes {seed}").random() < ONE_PLANE
    told = [f"agents storage={storage}{' planes=management' * one_plane}"]
    told += [_with_policy(rng, line) if line.startswith("segment ") else line for line in declared]
    faults = []
    for _ in range(rng.randint(0, FAULTS_MAX)):
        line = rng.choice((*OF_A_HOST, *OF_ALL)).format(host=rng.choice(hosts), lasts=f"{rng.uniform(*LASTS_S):.1f}s")
        faults.append((round(rng.uniform(15.0, until_s * 0.9), 3), line))
    return told, faults


def _with_policy(rng: random.Random, line: str) -> str:
    isolated, storage_lost = rng.choice(("leave", "fence")), rng.choice(("leave", "fence"))
    words = f"isolated={isolated} storage_lost={storage_lost} isolated_after_s={rng.choice((30, 120))}s"
    return f"{line}{'' if ' policy' in line else ' policy'} {words}"
