# SPDX-License-Identifier: Apache-2.0
"""Mutants of safety: the shipped core with one guard switched off must be found by seeds, or by the story on record.

A mutant that survives is a missing checker, a disaster that is never drawn, or a guard that guards nothing. Nothing is
written to any file: a guard is cut out in this process, and put back.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from vmhad.sim.cuts import Cut
from vmhad.sim.mutant import Mutant
from vmhad.sim.mutants_list import MUTANTS
from vmhad.sim.seeds import Played, play
from vmhad.sim.story import tell
from vmhad.sim.swarm import Shape, draw

# Small and busy: two or three disasters among ten hosts.
NASTY = Shape(hosts=10, hours=0.3)
CORE = ("vmhad.kernel", "vmhad.guards", "vmhad.engine", "vmhad.journal")


@dataclass(frozen=True)
class Verdict:
    """seed, story: the one that found it; of a survivor None and ''. why: the rule that it broke. seeds: how many were
    tried."""

    name: str
    seed: int | None
    why: str
    seeds: int
    cpu_s: float
    story: str = ""

    @property
    def is_killed(self) -> bool:
        return self.seed is not None or bool(self.story)


def named(name: str) -> Mutant:
    """Raises KeyError."""
    found = {one.name: one for one in MUTANTS}
    return found[name]


@contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """The core without this guard."""
    undo: list[tuple[Any, Any, Any]] = []
    try:
        for cut in mutant.cuts:
            undo += _cut(cut)
        yield
    finally:
        for owner, name, was in reversed(undo):
            _set(owner, name, was)


def _cut(cut: Cut) -> list[tuple[Any, Any, Any]]:
    was = cut.owner[cut.name] if isinstance(cut.owner, dict) else vars(cut.owner)[cut.name]
    now = cut.wrap(was)
    places = [(cut.owner, cut.name)]
    if isinstance(cut.owner, ModuleType) and isinstance(was, FunctionType):
        places += [one for one in _imports(was) if one != (cut.owner, cut.name)]
    for owner, name in places:
        _set(owner, name, now)
    return [(owner, name, was) for owner, name in places]


def _imports(function: FunctionType) -> list[tuple[Any, Any]]:
    """Wherever the core has it by name."""
    return [
        (module, name)
        for key, module in sorted(sys.modules.items())
        if key.startswith(CORE)
        for name, one in vars(module).items()
        if one is function
    ]


def _set(owner: Any, name: Any, value: Any) -> None:
    if isinstance(owner, dict):
        owner[name] = value
    else:
        setattr(owner, name, value)


@lru_cache(maxsize=4096)
def _unmutated(seed: int, shape: Shape) -> Played:
    return play(seed, shape)


def broken_by(mutant: Mutant, seed: int, shape: Shape = NASTY) -> str:
    """'' or what it breaks with this seed; only a seed that breaks nothing in the core as it is can tell."""
    with mutated(mutant):
        played = play(seed, shape)
    if not played.failed or _unmutated(seed, shape).failed:
        return ""
    return played.failed[0]


def hunt(mutant: Mutant, seeds: Sequence[int], shape: Shape = NASTY, stories: Path | None = None) -> Verdict:
    """Tries the story or the seed that is on record, then these. stories: the folder. Raises StoryError, OSError."""
    began = time.process_time()
    if mutant.story and stories is not None:
        why = _breach_in(mutant, stories / f"{mutant.story}.txt")
        return Verdict(mutant.name, None, why, 0, time.process_time() - began, mutant.story if why else "")
    kinds = {"lonely": mutant.lonely, "agents": mutant.agents, "drains": mutant.drains, "storages": mutant.storages}
    shape = replace(shape, **kinds)
    order = [*([mutant.seed] if mutant.seed is not None else []), *(one for one in seeds if one != mutant.seed)]
    tried = 0
    for seed in order:
        if not _has(seed, shape, mutant.needs):
            continue
        tried += 1
        why = broken_by(mutant, seed, shape)
        if why:
            return Verdict(mutant.name, seed, why, tried, time.process_time() - began)
    return Verdict(mutant.name, None, "", tried, time.process_time() - began)


def _breach_in(mutant: Mutant, story: Path) -> str:
    """'' or the first rule that it breaks with this story, which breaks none in the core as it is: a test has that."""
    with mutated(mutant):
        return next(iter(tell(story).breaches), "")


def _has(seed: int, shape: Shape, needs: Sequence[str]) -> bool:
    """Its script has what the guard is there for."""
    if not needs:
        return True
    script = draw(seed, shape)
    text = "".join(f"{line}\n" for line in (*script.declarations, *(line for _, line in script.faults)))
    return all(one in text for one in needs)


def hunt_all(
    mutants: Sequence[Mutant], seeds: Sequence[int], jobs: int = 1, stories: Path | None = None
) -> Iterator[Verdict]:
    if jobs <= 1:
        for mutant in mutants:
            yield hunt(mutant, seeds, stories=stories)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(partial(_hunt_named, seeds=seeds, stories=stories), [one.name for one in mutants])


def _hunt_named(name: str, seeds: Sequence[int], stories: Path | None) -> Verdict:
    return hunt(named(name), seeds, stories=stories)


def figures(verdicts: Sequence[Verdict]) -> Mapping[str, Any]:
    killed = [one for one in verdicts if one.is_killed]
    return {
        "mutants": len(verdicts),
        "killed": len(killed),
        "survivors": [one.name for one in verdicts if not one.is_killed],
        "seeds_per_mutant_max": max((one.seeds for one in verdicts), default=0),
        "by": {one.name: {"story" if one.story else "seed": one.story or one.seed, "why": one.why} for one in killed},
        "cpu_seconds": round(sum(one.cpu_s for one in verdicts), 2),
    }
