# SPDX-License-Identifier: Apache-2.0
"""What is slow rather than broken, in a drawn script: targets that say late that a guest runs, chassis that take their
time to go off, a management plane that comes back by itself.

A source of chance of its own, as the ambushes have, so that it can grow without any seed's disasters becoming others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from vmhad.sim.mischief import Cloud, Timed

# Chosen so that the seeds on record in mutants_list.py which are hard to find again draw none of this.
SALT = "late187165"
# With fifteen guests arriving at once real targets waited for more than 6 s; a busy database makes that a minute.
FINISHES_S = (2, 8, 20, 40, 70)
# A chassis is held for some seconds before it goes off.
OFF_S = (0.1, 2, 5, 8, 12)


def lateness(
    seed: int, cloud: Cloud, declared: Sequence[str], faults: Sequence[Timed], until_s: float
) -> tuple[list[str], list[Timed]]:
    """The declarations, some of them slower, and what else comes when."""
    rng = random.Random(f"{SALT} {seed}")
    told, lines = list(declared), []
    if rng.random() < 0.3:
        lines.append((rng.choice((0.0, rng.uniform(0.0, until_s))), f"nova finishes {rng.choice(FINISHES_S)}s late"))
    if rng.random() < 0.2:
        share = rng.choice((0.2, 1.0))
        told = [_slow_chassis(rng, line) if _is_host(line) and rng.random() < share else line for line in told]
    if faults and not cloud.strict and rng.random() < 0.2:
        lines += _planes(rng, cloud, faults)
    return told, [(round(at, 3), line) for at, line in lines if 0.0 <= at < until_s]


def _planes(rng: random.Random, cloud: Cloud, faults: Sequence[Timed]) -> list[Timed]:
    """Not of hosts that are wired to one another: no eye can tell a silent one whose BMC says OFF from a dead one."""
    wired = {word for _, line in faults if " other " in line for word in line.split()}
    hosts = [host for host in cloud.hosts if host not in wired]
    lines = []
    for _ in range(rng.choice((1, 2, 4))):
        at, lasts_s = rng.choice(faults)[0] + rng.uniform(-30.0, 60.0), rng.uniform(20.0, 200.0)
        lines.append((at, f"plane {rng.choice(hosts)} management off {lasts_s:.1f}s"))
    return lines


def _is_host(line: str) -> bool:
    return line.startswith("host ")


def _slow_chassis(rng: random.Random, line: str) -> str:
    return f"{line} off={rng.choice(OFF_S)}s"
