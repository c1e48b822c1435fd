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
SERVICES_MAX = 8
OF_A_SERVICE = (
    "dies", "dies", "dies", "dies {lasts}", "dies again", "stops", "stops", "is-masked", "starts", "is-mended",
)  # fmt: skip
HANGS = ("hangs", "hangs again")
# What befalls it once more, while it is decided what to do about the first time.
NEXT_S = (5.0, 20.0)
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
    return told, faults + _of_services(seed, hosts, until_s)


def _of_services(seed: int, hosts: Sequence[str], until_s: float) -> list[Timed]:
    """Drawn apart, so that no other disaster becomes another by them."""
    rng = random.Random(f"services {seed}")
    faults: list[Timed] = []
    for _ in range(rng.choice((0, 0, rng.randint(1, SERVICES_MAX)))):
        host, at = rng.choice(hosts), rng.uniform(25.0, until_s * 0.9)
        if rng.random() < 0.4:
            # Its host has an incident of its own then, and its agent is heard all the time.
            lost_at, lasts_s = at - rng.uniform(0.0, 9.0), rng.uniform(20.0, 90.0)
            faults.append((round(lost_at, 3), f"plane {host} storage off {lasts_s:.1f}s"))
        for _ in range(rng.choice((1, 1, 2, 3))):
            service = rng.choice(("nova-compute", "nova-compute", "libvirtd"))
            kinds = (*OF_A_SERVICE, *HANGS) if service == "nova-compute" else OF_A_SERVICE
            does = rng.choice(kinds).format(lasts=f"{rng.uniform(1.0, 20.0):.1f}s")
            faults.append((round(at, 3), f"service {host} {service} {does}"))
            at += rng.uniform(*NEXT_S)
    return [one for one in faults if one[0] < until_s]


def _with_policy(rng: random.Random, line: str) -> str:
    isolated, storage_lost = rng.choice(("leave", "fence")), rng.choice(("leave", "fence"))
    words = f"isolated={isolated} storage_lost={storage_lost} isolated_after_s={rng.choice((30, 120))}s"
    return f"{line}{'' if ' policy' in line else ' policy'} {words}"
