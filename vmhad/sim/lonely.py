# SPDX-License-Identifier: Apache-2.0
"""Guests that fail alone, in a drawn script, and users that act on them at the same moment.

A source of chance of its own, drawn only where a shape asks for it: no other seed's disasters become others by it.
"""

from __future__ import annotations

import random

from vmhad.sim.mischief import Cloud, Timed

FAILURES = ("dies", "dies", "dies", "panics", "freezes", "falls-silent")
WISHES = ("stops", "stops", "starts", "reboots", "deletes", "pauses", "resizes")
# Nova finds a guest gone after this long.
FOUND_S = 15.5
AGAIN_AND_AGAIN = 6


def lonely(seed: int, cloud: Cloud, until_s: float) -> list[Timed]:
    rng = random.Random(f"lonely {seed}")
    lines: list[Timed] = [(1.0, "domains")] if rng.random() < 0.6 else []
    for _ in range(rng.randint(4, 10)):
        vm, at = rng.choice(sorted(cloud.vms)), rng.uniform(15.0, until_s * 0.9)
        lines.append((at, f"guest {vm} {rng.choice(FAILURES)}"))
        lines += _worse(rng, cloud, vm, at)
    return [(round(when, 3), line) for when, line in lines if when < until_s]


def paused(seed: int, cloud: Cloud, declared: list[str], until_s: float) -> tuple[list[str], list[Timed]]:
    """Of one seed in three: the segments resume what its disk paused. A host loses its storage for a while, guests on
    it pause, and some pause again whenever they are resumed. Another source of chance yet."""
    rng = random.Random(f"paused {seed}")
    if rng.random() >= 1 / 3:
        return declared, []
    lines: list[Timed] = [(1.0, "domains")]
    for vm in rng.sample(sorted(cloud.vms), min(len(cloud.vms), rng.randint(2, 4))):
        at, lasts_s = rng.uniform(15.0, until_s * 0.8), rng.uniform(10.0, 60.0)
        lines += [(at, f"storage ceph cuts {cloud.vms[vm]}"), (at + 2.0, f"guest {vm} io-pauses")]
        lines += [(at + lasts_s, f"storage ceph lets {cloud.vms[vm]}")]
        if rng.random() < 0.3:
            lines += [(at, f"hands {vm} in-vain")]
        elif rng.random() < 0.5:
            ear = rng.choice(("gone", "hangs", "loses-answers"))
            lines += [(at, f"hands {cloud.vms[vm]} {ear}"), (at + 90.0, f"hands {cloud.vms[vm]} ok")]
        if rng.random() < 0.3:
            lines += [(at + lasts_s + rng.uniform(-2.0, 12.0), f"user {rng.choice(WISHES)} {vm}")]
    told = [_resuming(line) if line.startswith("segment ") else line for line in declared]
    return told, [(round(when, 3), line) for when, line in lines if when < until_s]


def _resuming(line: str) -> str:
    return f"{line}{'' if ' policy ' in line else ' policy'} on_io_error=resume"


def _worse(rng: random.Random, cloud: Cloud, vm: str, at: float) -> list[Timed]:
    """Its user acts just before it is found, or just after; it fails whenever it is started; its host has trouble of
    its own; the engine stops on its way."""
    found = at + rng.choice((1.0, FOUND_S))
    host, kind = cloud.vms[vm], rng.random()
    if kind < 0.45:
        return [(found + rng.uniform(-1.5, 3.0), f"user {rng.choice(WISHES)} {vm}")]
    if kind < 0.6:
        return [(at + 40.0 * n, f"guest {vm} dies") for n in range(1, AGAIN_AND_AGAIN)]
    if kind < 0.75:
        fault = rng.choice((f"cut {host}", f"hang {host} 100s", f"stop-compute {host}", f"storage ceph cuts {host}"))
        trouble = [(found + rng.uniform(-3.0, 3.0), fault), (found + rng.uniform(60.0, 200.0), f"restore {host}")]
        # Where BMCs lie nothing else may be silent, or nobody could tell the two apart.
        return [] if cloud.strict else trouble
    if kind < 0.85:
        verb = rng.choice(("start", "reboot"))
        stop = (found + rng.uniform(0.0, 8.0), f"user stops {vm}")
        return [(at, f"freeze engine {rng.choice(cloud.engines)} {rng.uniform(3.0, 9.0):.1f}s in {verb}"), stop]
    return []
