# SPDX-License-Identifier: Apache-2.0
"""Ordinary noise, episode after episode: pauses, flaps, fail-overs, clocks, slow storage, upgrades. Nobody ever dies.

So whoever is called dead here is called so falsely, whether a brake holds it or not, and whoever is suspected is
suspected falsely. One seed draws the same noise for ever, in worlds of some hundred episodes each.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from vmhad.kernel.verdict import Judgement
from vmhad.sim.directives import Stage
from vmhad.sim.failures import failures_of_engines

HOSTS = ("h1", "h2", "h3", "h4", "h5", "h6")
RACKS = ("r1", "r2", "r3")
CLOUD = (
    "agents",
    "host h1 h2 rack=r1",
    "host h3 h4 rack=r2",
    "host h5 h6 rack=r3",
    "vm v1 on h1",
    "vm v2 on h3",
)
POLICIES = ("silent_means=hold", "silent_means=fence")
WORLD_EPISODES = 250
WARM_UP_S = 20.0
# How long a world is left alone after the noise: whatever it was taken for has come out by then.
CALM_S = 9.0
SETTLES_WITHIN_S = 90.0
TWO_AT_ONCE = 0.3
Draw = Callable[[random.Random], tuple[list[str], float]]


@dataclass
class Heard:
    """false_suspect, false_failed: incidents opened, and verdicts FAILED, of hosts that never failed. drawn: kind of
    noise -> its episodes; by: those in which somebody was suspected. failed: the episodes in which somebody was called
    dead, as directives. failures: what the engine's own code failed with."""

    episodes: int = 0
    false_suspect: int = 0
    false_failed: int = 0
    simulated_s: float = 0.0
    by: Counter[str] = field(default_factory=Counter)
    drawn: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Heard) -> None:
        self.episodes += other.episodes
        self.false_suspect += other.false_suspect
        self.false_failed += other.false_failed
        self.simulated_s += other.simulated_s
        self.by += other.by
        self.drawn += other.drawn
        self.failed += other.failed
        self.failures += other.failures


def listen(episodes: int, seed: int = 0, jobs: int = 1) -> tuple[Heard, float]:
    """And how many CPU seconds it took."""
    sizes = [min(WORLD_EPISODES, episodes - first) for first in range(0, episodes, WORLD_EPISODES)]
    worlds = [(f"noise {seed} {number}", size) for number, size in enumerate(sizes)]
    total, spent_s = Heard(), 0.0
    for heard, took_s in _each(worlds, jobs):
        total.add(heard)
        spent_s += took_s
    return total, spent_s


def _each(worlds: Sequence[tuple[str, int]], jobs: int) -> Iterator[tuple[Heard, float]]:
    if jobs <= 1:
        yield from map(_listen, worlds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(_listen, worlds)


def _listen(world: tuple[str, int]) -> tuple[Heard, float]:
    name, episodes = world
    began, heard, chance = time.process_time(), Heard(), random.Random(name)
    with failures_of_engines() as failures:
        room: _Room | None = None
        for number in range(episodes):
            if room is None or room.is_spoilt:
                room = _Room(heard, f"segment east policy {chance.choice(POLICIES)}")
            room.episode(chance, f"{name}/{number}")
    heard.failures += failures
    return heard, time.process_time() - began


class _Room:
    """One cloud that is never anything but noisy. is_spoilt: somebody was called dead; another cloud goes on."""

    def __init__(self, heard: Heard, segment: str) -> None:
        self.heard = heard
        self.stage = Stage()
        for line in (segment, *CLOUD):
            self.stage.perform(line)
        self.world = self.stage.world
        self.is_spoilt = False
        self._suspected = 0
        self._run(WARM_UP_S)

    def episode(self, chance: random.Random, name: str) -> None:
        kinds = [chance.choice(tuple(NOISE)) for _ in range(1 + (chance.random() < TWO_AT_ONCE))]
        lasts_s, lines = 0.0, []
        for kind in kinds:
            drawn, noise_s = NOISE[kind](chance)
            lines += drawn
            lasts_s = max(lasts_s, noise_s)
        self._run(chance.random())
        for line in lines:
            self._perform(line)
        self._run(lasts_s + CALM_S)
        self._settle()
        self.heard.episodes += 1
        kind = kinds[0] if len(kinds) == 1 else "two at once"
        self.heard.drawn[kind] += 1
        suspected = sum(line.word == "SUSPECTED" for line in self.world.said) - self._suspected
        self._suspected += suspected
        self.heard.false_suspect += suspected
        self.heard.by[kind] += suspected > 0
        if self.is_spoilt:
            self.heard.failed.append(f"{name}: {'; '.join(lines)}")

    def _perform(self, line: str) -> None:
        """«later 3s …»: what mends it."""
        if not line.startswith("later "):
            self.stage.perform(line)
            return
        _, after, mends = line.split(" ", 2)
        self.world.agenda.after(float(after.rstrip("s")), lambda: self.stage.perform(mends))

    def _run(self, seconds: float) -> None:
        seen: object = None

        def holds() -> bool:
            nonlocal seen
            verdicts = self.world.nodes["e1"].engine.evidence.verdicts(self.world.segments[0])
            if verdicts is not seen:
                seen = verdicts
                failed = sum(one.judgement is Judgement.FAILED for one in verdicts.values())
                if failed and not self.is_spoilt:
                    self.heard.false_failed += failed
                    self.is_spoilt = True
            return True

        self.world.run_while(holds, seconds)
        self.heard.simulated_s += seconds

    def _settle(self) -> None:
        """The next episode begins in a world that is well."""
        left_s = SETTLES_WITHIN_S
        while left_s > 0.0 and not self.is_spoilt and not self._is_well():
            self._run(1.0)
            left_s -= 1.0

    def _is_well(self) -> bool:
        verdicts = self.world.nodes["e1"].engine.evidence.verdicts(self.world.segments[0])
        return all(one.judgement is Judgement.HEALTHY for one in verdicts.values())


# The noise: each draws what happens, and how long it lasts.


def _pause_of_host(chance: random.Random) -> tuple[list[str], float]:
    seconds = chance.uniform(0.2, 6.0)
    return [f"hang {chance.choice(HOSTS)} {seconds:.2f}s"], seconds


def _pause_of_agent(chance: random.Random) -> tuple[list[str], float]:
    seconds = chance.uniform(0.2, 6.0)
    return [f"agent {chance.choice(HOSTS)} freezes {seconds:.2f}s"], seconds


def _pause_of_engine(chance: random.Random) -> tuple[list[str], float]:
    seconds = chance.uniform(0.2, 6.0)
    return [f"freeze engine e1 {seconds:.2f}s"], seconds


def _flap_of_link(chance: random.Random) -> tuple[list[str], float]:
    plane, seconds = chance.choice(("management", "storage", "tenant")), chance.uniform(0.2, 5.0)
    return [f"plane {chance.choice(HOSTS)} {plane} off {seconds:.2f}s"], seconds


def _flap_of_cable(chance: random.Random) -> tuple[list[str], float]:
    """All planes go over one."""
    host, seconds = chance.choice(HOSTS), chance.uniform(0.2, 5.0)
    return [f"plane {host} {plane} off {seconds:.2f}s" for plane in ("management", "storage", "tenant")], seconds


def _flap_of_switch(chance: random.Random) -> tuple[list[str], float]:
    seconds = chance.uniform(0.2, 5.0)
    return [f"switch {chance.choice(RACKS)} off {seconds:.2f}s"], seconds


def _broker(chance: random.Random) -> tuple[list[str], float]:
    """Nova's heartbeats go over it as well."""
    seconds = chance.uniform(1.0, 20.0)
    return [f"bus down {seconds:.2f}s", f"nova heartbeats-lost {seconds:.2f}s"], seconds


def _clock(chance: random.Random) -> tuple[list[str], float]:
    seconds = chance.uniform(1.0, 20.0)
    return [f"agent {chance.choice(HOSTS)} wrong-clock {seconds:.2f}s"], seconds


def _slow_storage(chance: random.Random) -> tuple[list[str], float]:
    seconds = chance.uniform(0.2, 5.0)
    return [f"storage ceph hangs {seconds:.2f}s"], seconds


def _slow_broker(chance: random.Random) -> tuple[list[str], float]:
    seconds = chance.uniform(2.0, 10.0)
    return [f"agent {chance.choice(HOSTS)} late {chance.uniform(0.2, 3.0):.2f}s {seconds:.2f}s"], seconds


def _upgrade(chance: random.Random) -> tuple[list[str], float]:
    seconds = chance.uniform(1.0, 15.0)
    return [f"agent {chance.choice(HOSTS)} leaves {seconds:.2f}s"], seconds


def _agent_killed(chance: random.Random) -> tuple[list[str], float]:
    host, seconds = chance.choice(HOSTS), chance.uniform(0.5, 10.0)
    return [f"agent {host} stops", f"later {seconds:.2f}s agent {host} starts"], seconds


def _compute_restarts(chance: random.Random) -> tuple[list[str], float]:
    host, seconds = chance.choice(HOSTS), chance.uniform(1.0, 20.0)
    return [f"stop-compute {host}", f"later {seconds:.2f}s restore {host}"], seconds


NOISE: dict[str, Draw] = {
    "pause of a host": _pause_of_host,
    "pause of an agent": _pause_of_agent,
    "pause of the engine": _pause_of_engine,
    "flap of a link": _flap_of_link,
    "flap of a cable": _flap_of_cable,
    "flap of a switch": _flap_of_switch,
    "fail-over of the broker": _broker,
    "step of a clock": _clock,
    "slow storage": _slow_storage,
    "slow broker": _slow_broker,
    "upgrade of an agent": _upgrade,
    "restart of an agent": _agent_killed,
    "restart of nova-compute": _compute_restarts,
}
