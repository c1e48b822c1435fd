# SPDX-License-Identifier: Apache-2.0
"""Hosts that ail in a drawn script with agents, and are emptied, while everything else goes wrong beside it.

A source of chance of its own, drawn only where a shape asks for it: no other seed's disasters become others by it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from vmhad.sim.mischief import Timed

AILS_S = (10.0, 400.0)
WORSE_AFTER_S = (5.0, 60.0)
WORSE = ("hang {host} 6s", "crash {host}", "cut {host}", "stop-compute {host}", "agent {host} freezes 6s")


def with_drains(
    seed: int, declared: Sequence[str], hosts: Sequence[str], until_s: float
) -> tuple[list[str], list[Timed]]:
    """The declarations with policies that empty hosts, and what ails those."""
    rng = random.Random(f"drains {seed}")
    told = [_with_policy(rng, line) if line.startswith("segment ") else line for line in declared]
    faults: list[Timed] = []
    if rng.random() < 0.5:
        faults.append((1.0, f"nova moves {rng.choice((5, 15, 40))}s late"))
    for _ in range(rng.randint(3, 10)):
        host, at, lasts_s = rng.choice(hosts), rng.uniform(15.0, until_s * 0.9), rng.uniform(*AILS_S)
        if rng.random() < 0.6:
            faults += [(at, f"agent {host} complains fan 3 stands still"), (at + lasts_s, f"agent {host} complains")]
        else:
            faults.append((at, f"plane {host} tenant off {lasts_s:.1f}s"))
        if rng.random() < 0.4:
            then, worse = at + rng.uniform(*WORSE_AFTER_S), rng.choice(WORSE).format(host=host)
            faults += [(then, worse), (then + rng.uniform(60.0, 300.0), f"restore {host}")]
    return told, [(round(at, 3), line) for at, line in faults if at < until_s]


def _with_policy(rng: random.Random, line: str) -> str:
    words = f"drain={rng.choice(('both', 'both', 'hardware', 'tenant_plane'))} drain_after_s={rng.choice((5, 20))}s "
    words += f"drain_healthy_s={rng.choice((5, 60))}s drains_max={rng.choice((1, 2))} "
    words += f"live_migrations_max={rng.choice((1, 2, 4))}"
    return f"{line}{'' if ' policy' in line else ' policy'} {words}"
