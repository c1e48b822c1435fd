# SPDX-License-Identifier: Apache-2.0
"""Every way in which a few things can go wrong, tried: bounded model checking of the shipped engine itself.

A run is a script: at which of the points where the adversary was asked it chose what; everywhere else it lets things
go well. Depth n means every script of at most n such choices, at every point, in every order. Each run begins at the
beginning (the engines are real, and nothing of them is copied); one that comes to a state that was seen with as many
choices left is not followed any further, for it would go on alike. States are compared between events only, exactly.

What is not covered: times between those of adversary.SLEEPS_S and LATE_S, faults of the third host, two engines' events
that fall together in another order than by their times, and whatever happens after arena.HORIZON_S. A run ends before
that where nothing is under way any more.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vmhad.sim.adversary import Adversary, Point
from vmhad.sim.arena import HORIZON_S, OPENINGS, Arena
from vmhad.sim.failures import failures_of_engines
from vmhad.sim.likeness import Likeness

Script = Mapping[int, str]
# A state is known soon after a choice that did nothing, or hardly ever; a run that will have no further choice costs
# less to follow than to compare.
EVERY_LOOK, LAST_LOOKS = 1_000_000, 2


@dataclass(frozen=True)
class Run:
    """One script played. points: where the adversary was asked. cut: it came to a state already known."""

    points: tuple[Point, ...]
    broken: tuple[str, ...]
    cut: bool


@dataclass(frozen=True)
class Counterexample:
    """A rule that was broken, and the choices that led to it, as they can be read."""

    opening: str
    script: Script
    broken: str
    story: tuple[str, ...]


@dataclass
class Explored:
    """states: different ones met between events. choices: of the run in which all goes well. complete: no limit cut it
    short. counterexamples: one for each rule broken, the first found; violations: how many runs broke one."""

    depth: int
    runs: int = 0
    cut: int = 0
    states: int = 0
    points: int = 0
    choices: int = 0
    violations: int = 0
    cpu_seconds: float = 0.0
    complete: bool = True
    counterexamples: list[Counterexample] = field(default_factory=list)


def explore(
    depth: int, openings: Sequence[str] = OPENINGS, cpu_limit_s: float = 0.0, stop_at_first: bool = False
) -> Explored:
    """All scripts of at most depth choices. cpu_limit_s: 0 for none."""
    found = Explored(depth)
    began = time.process_time()
    for opening in openings:
        for _ in _search(opening, found):
            found.cpu_seconds = round(time.process_time() - began, 2)
            if (cpu_limit_s and found.cpu_seconds > cpu_limit_s) or (stop_at_first and found.counterexamples):
                found.complete = False
                return found
    return found


def _search(opening: str, found: Explored) -> Iterator[None]:
    """Depth first; yields after every run."""
    waiting: list[Script] = [{}]
    seen: dict[int, int] = {}
    while waiting:
        script = waiting.pop()
        left = found.depth - len(script)
        known = found.states - len(seen)
        looks = EVERY_LOOK if left else LAST_LOOKS
        run = play(script, opening, lambda state, left=left: seen.get(state, -1) >= left, looks)  # type: ignore[misc]
        first = max(script, default=-1) + 1
        for number in range(len(run.points) - 1, first - 1, -1):
            point = run.points[number]
            if point.state:
                seen[point.state] = max(left, seen.get(point.state, -1))
            if left:
                waiting.extend({**script, number: option} for option in point.options[1:])
        _count(found, opening, script, run)
        found.states = known + len(seen)
        yield


def _count(found: Explored, opening: str, script: Script, run: Run) -> None:
    found.runs += 1
    found.cut += run.cut
    found.points = max(found.points, len(run.points))
    if not script:
        found.choices += sum(len(point.options) - 1 for point in run.points)
    found.violations += bool(run.broken)
    for broken in run.broken:
        if _kind(broken) not in {_kind(one.broken) for one in found.counterexamples}:
            found.counterexamples.append(Counterexample(opening, script, broken, story_of(script, run)))


def _kind(broken: str) -> str:
    """Two breaches are of one kind if they differ in the numbers of incidents only."""
    return re.sub(r"\.\d{6,}", "", broken)


def play(
    script: Script, opening: str, is_known: Callable[[int], bool] = lambda state: False, looks: int = EVERY_LOOK
) -> Run:
    """Runs a script to the horizon, to the first rule broken, or to a state that is known once the script is over.
    looks: at how many states after that it is asked whether they are known."""
    adversary = Adversary(script)
    with failures_of_engines() as failures:
        arena = Arena(adversary, opening)
        arena.open()
        cut = not _follow(arena, is_known, looks)
    return Run(tuple(adversary.points), (*arena.broken, *failures), cut)


def _follow(arena: Arena, is_known: Callable[[int], bool], looks: int) -> bool:
    """False if it came to a known state."""
    until, likeness, state = arena.agenda.now + HORIZON_S, Likeness(), 0
    arena.ask(state)
    while not arena.broken and arena.agenda.step(until):
        arena.checkers.after_event()
        if arena.has_changed():
            state = 0
            if arena.adversary.is_spent and looks:
                state, looks = likeness.of(arena, arena.contested.epochs.writers), looks - 1
            if state and is_known(state):
                return False
            arena.ask(state)
        elif arena.adversary.is_spent and arena.is_over:
            arena.end()
            break
    return True


def story_of(script: Script, run: Run) -> tuple[str, ...]:
    """The choices of a script in words."""
    return tuple(f"+{run.points[n].at:.3f}s {run.points[n].what}: {script[n]}" for n in sorted(script))
