# SPDX-License-Identifier: Apache-2.0
"""The crash sweep: a story told again and again, its engine killed at each port call in turn, another one taking over.

It dies just before a call that writes (to the journal, to a BMC, to Nova), and then again after the call had its effect
and before anybody knows. A process that dies leaves nothing but what it wrote, so between two writes its deaths differ
by their moment alone: it dies once before each call that only reads, and there the calls may be thinned. Renewing a
lease counts as reading.

However it dies, the end must be the same: the same VMs run, each once, none evacuated more often, no rule broken. Where
a story is about a moment that a take-over misses, its file says so: «# sweep: differs, because ...»; its rules hold all
the same.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from vmhad.journal import keys
from vmhad.kernel.cloud import ARRIVED
from vmhad.sim.directives import Stage
from vmhad.sim.draft import StoryError
from vmhad.sim.failures import failures_of_engines
from vmhad.sim.hands import SimHands
from vmhad.sim.inbox import order
from vmhad.sim.life import Killed, Life
from vmhad.sim.story import directives_of, parse
from vmhad.sim.world import Node, World

TAKES_OVER = "heir"
NOTICED_AFTER_S = 1.0
# What the story does next comes so much later, beside the longest that a take-over takes: its moments are its point.
SETTLES_S = 20.0
# After its last directive a story is let run on; one with a death in it until it ends alike, or this long.
CALM_S = 200.0
CATCHES_UP_WITHIN_S = 400.0
HEALS_WITHIN_S = 1200.0
LOOK_EVERY_S = 50.0
DIFFERS = "# sweep: differs, because "
# In such a story a death breaks a rule by what is known and open (tests/seeds/record.md): it is not swept until then.
OPEN = "# sweep: open, because "
# What a story itself forbids, which is about its moments too.
FORBIDDEN = "power_off sent although"
MORE_OFTEN = "evacuated more often"
BEFORE, AFTER = "before", "after"
CALLS = {
    "store": ("get", "list", "commit", "revision"),
    "power": ("read", "off", "on"),
    "compute": (
        "services", "service", "inventory", "departures", "evacuations", "server_ids", "fallen", "stopped_lately",
        "server", "actions", "set_forced_down", "set_enabled", "evacuate", "live_migrations", "live_migrate", "start",
        "stop", "reboot",
    ),
    "hands": ("restart_service", "resume_guest"),
}  # fmt: skip
WRITES = {
    "store": ("commit",),
    "power": ("off", "on"),
    "compute": ("set_forced_down", "set_enabled", "evacuate", "live_migrate", "start", "stop", "reboot"),
    "hands": ("restart_service", "resume_guest"),
}


@dataclass(frozen=True)
class Death:
    """call: the port call that was the last, from 1; when: before its effect, or after it."""

    call: int
    when: str


@dataclass(frozen=True)
class Fall:
    """A death after which the story ended otherwise."""

    death: Death
    why: str


@dataclass(frozen=True)
class Swept:
    """healed: of its points, how many ended alike only after all that was broken had been mended."""

    story: str
    points: int
    healed: int
    falls: tuple[Fall, ...]
    cpu_s: float


@dataclass(frozen=True)
class Ending:
    """vms: name -> (Nova's state, how many guests run). right: those that are as their user wants them.

    moves: (server, host) -> evacuations from there that were carried out.
    """

    vms: dict[str, tuple[str, int]]
    right: frozenset[str]
    moves: dict[tuple[str, str], int]
    breaches: tuple[str, ...]
    calls: int


def sweep(path: Path, every: int = 1, calls_max: int | None = None) -> Swept:
    """Kills the story's first engine at every call that writes, in both ways, and at every n-th of the others.
    calls_max: at no more of each kind than these, all over the story. Raises StoryError."""
    began = time.process_time()
    text = path.read_text()
    if OPEN in text:
        return Swept(path.stem, 0, 0, (), 0.0)
    lines = directives_of(parse(text))
    with failures_of_engines() as failures:
        story = _Sweep(lines, DIFFERS in text)
        falls, points = [], 0
        for death in story.deaths(every, calls_max, first=len(text)):
            failures.clear()
            why = story.harm(death) or "; ".join(dict.fromkeys(failures))
            points += 1
            falls += [Fall(death, why)] if why else []
    return Swept(path.stem, points, story.healed_points, tuple(falls), time.process_time() - began)


def sweep_all(paths: Sequence[Path], every: int = 1, jobs: int = 1) -> Iterator[Swept]:
    if jobs <= 1:
        yield from (sweep(path, every) for path in paths)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(partial(sweep, every=every), paths)


@dataclass
class _Sweep:
    """One story. writes: the calls of its first engine that wrote something; known once whole is.
    healed_points: deaths after which it ended alike only when all that was broken had been mended."""

    lines: Sequence[str]
    may_differ: bool
    healed_points: int = 0
    writes: set[int] = field(default_factory=set)

    @cached_property
    def whole(self) -> Ending:
        return _look(_told(self.lines, None, self.writes.update))

    def deaths(self, every: int, calls_max: int | None, first: int) -> Iterator[Death]:
        """first: where among the calls the thinning begins, so that stories alike are not all thinned alike."""
        last = self.whole.calls
        writes = sorted(self.writes)
        reads = [call for call in range(1, last + 1) if call not in self.writes][first % every :: every]
        if calls_max is not None:
            writes, reads = _thinned(writes, calls_max, first), _thinned(reads, calls_max, first)
        for call in sorted({*writes, *reads}):
            yield Death(call, BEFORE)
            if call in self.writes:
                yield Death(call, AFTER)

    @cached_property
    def healed(self) -> Ending:
        stage = _told(self.lines, None)
        _heal(stage.world)
        stage.world.run(HEALS_WITHIN_S)
        return _look(stage)

    def harm(self, death: Death) -> str:
        """'' or what this death did."""
        try:
            stage = _told(self.lines, death)
        except (StoryError, KeyError, ValueError, IndexError) as error:
            return f"the story cannot go on: {error!r}"
        why = "" if self.may_differ else _catches_up(stage, self.whole, CATCHES_UP_WITHIN_S)
        if why and not _catches_up(stage, self.whole, 0.0).startswith(MORE_OFTEN):
            _heal(stage.world)
            if not _catches_up(stage, self.healed, HEALS_WITHIN_S):
                self.healed_points += 1
                why = ""
        broken = set(_look(stage).breaches) - set(self.whole.breaches)
        if self.may_differ:
            broken = {one for one in broken if FORBIDDEN not in one}
        return "; ".join(sorted(broken - set(self.healed.breaches if broken else ()))) or why


def _thinned(calls: list[int], most: int, first: int) -> list[int]:
    step = max(1, -(-len(calls) // most))
    return calls[first % step :: step]


def _told(lines: Sequence[str], death: Death | None, on_write: Callable[[Iterable[int]], None] | None = None) -> Stage:
    """The story to its end, and on until it is calm. on_write is told the number of each call that wrote."""
    stage, armed, waited = Stage(), False, False
    for line in lines:
        stage.perform(line)
        if stage.is_built and not armed:
            armed = True
            _arm(stage.world, death)
            if on_write is not None:
                _listen(_first(stage.world), on_write)
        elif armed and death is not None and not waited and _first(stage.world).life.dead:
            waited = True
            if any(one.is_open for one in stage.world.ledger.incidents.values()):
                stage.world.run(2 * stage.world.pace.lease_s + SETTLES_S)
    stage.world.run(CALM_S)
    return stage


def _catches_up(stage: Stage, like: Ending, within_s: float) -> str:
    until = stage.world.agenda.now + within_s
    while (why := _difference(like, _look(stage))) and stage.world.agenda.now < until:
        stage.world.run(LOOK_EVERY_S)
    return why


def _heal(world: World) -> None:
    world.heal()
    order(world, ["retry", "stuck"])


def _first(world: World) -> Node:
    return next(iter(world.nodes.values()))


def _arm(world: World, death: Death | None) -> None:
    node = _first(world)

    def replace() -> None:
        world.add_engine(TAKES_OVER)

    def killed() -> None:
        world.agenda.after(NOTICED_AFTER_S, replace)

    if death is not None:
        node.life.on_kill = killed
        if death.when == BEFORE:
            node.life.kill_at_call = death.call
        else:
            _kill_after(node, death.call)


def _ports(node: Node) -> dict[str, Any]:
    engine = node.engine
    world = engine.executor.world
    ports = {"store": engine.journal._store, "power": world.power, "compute": engine.compute}
    return ports | ({"hands": world.hands} if isinstance(world.hands, SimHands) else {})


def _listen(node: Node, on_write: Callable[[Iterable[int]], None]) -> None:
    for name, port in _ports(node).items():
        for verb in WRITES[name]:
            setattr(port, verb, _noted(getattr(port, verb), node.life, on_write))


def _noted(ask: Callable[..., Any], life: Life, on_write: Callable[[Iterable[int]], None]) -> Callable[..., Any]:
    def noting(*args: Any, **options: Any) -> Any:
        call = life.calls + 1
        try:
            return ask(*args, **options)
        finally:
            if not _renews(args):
                on_write([call])

    return noting


def _renews(args: tuple[Any, ...]) -> bool:
    """A commit of nothing but who owns a segment."""
    puts = args[1] if len(args) > 1 and isinstance(args[1], Mapping) else {}
    return bool(puts) and all(key.startswith(keys.SEGMENTS) for key in puts) and not any(args[2:])


def _kill_after(node: Node, call: int) -> None:
    """Its ports let it die when they have done what they were asked, and before it hears of it."""
    for name, port in _ports(node).items():
        for verb in CALLS[name]:
            setattr(port, verb, _deadly(getattr(port, verb), node.life, call))


def _deadly(ask: Callable[..., Any], life: Life, call: int) -> Callable[..., Any]:
    def answered(*args: Any, **options: Any) -> Any:
        try:
            return ask(*args, **options)
        finally:
            if life.calls >= call and not life.dead:
                life.kill()
            if life.dead:
                raise Killed(life.name)

    return answered


def _look(stage: Stage) -> Ending:
    world = stage.world
    vms = {row.name: (row.state.value, len(world.datacentre.vms[row.id].guests)) for row in world.nova.servers.values()}
    wished = {row.name: world.nova.wished[row.id] for row in world.nova.servers.values()}
    right = frozenset(
        name for name, (state, guests) in vms.items() if state == wished[name] and guests == (state == "active")
    )
    moves = Counter((one.server, one.source) for one in world.nova.migrations if one.status in ARRIVED)
    return Ending(vms, right, dict(moves), stage.unexpected_breaches(), _first(world).life.calls)


def _difference(whole: Ending, cut: Ending) -> str:
    """'' or what is worse than in the story that nobody interrupted. A VM that is as its user wants it is not."""
    other = {name: (whole.vms.get(name), found) for name, found in cut.vms.items() if found != whole.vms.get(name)}
    other = {name: (then, now) for name, (then, now) in other.items() if name not in cut.right}
    if other:
        return "; ".join(f"{name} ends {now} instead of {then}" for name, (then, now) in sorted(other.items()))
    twice = [key[0] for key, count in cut.moves.items() if count > max(1, whole.moves.get(key, 0))]
    return f"{MORE_OFTEN}: {', '.join(sorted(twice))}" if twice else ""
