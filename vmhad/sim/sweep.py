# SPDX-License-Identifier: Apache-2.0
"""The crash sweep: a story told again and again, its engine killed at each port call in turn, another one taking over.

However it dies, the end must be the same: the same VMs run, each once, none evacuated twice by us, no rule broken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmhad.sim.directives import Stage
from vmhad.sim.story import directives_of, parse
from vmhad.sim.world import World

TAKES_OVER = "heir"
NOTICED_AFTER_S = 1.0
CALM_S = 120.0


@dataclass(frozen=True)
class Ending:
    """vms: name -> (Nova's state, how many guests run). posts: server -> evacuate requests that reached nova-api."""

    vms: dict[str, tuple[str, int]]
    posts: dict[str, int]
    breaches: tuple[str, ...]
    calls: int


@dataclass(frozen=True)
class Fall:
    """A death after which the story ended otherwise. call: the port call that was the last."""

    call: int
    why: str


def sweep(path: Path, every: int = 1) -> Iterator[Fall]:
    """Kills the story's first engine at every n-th port call; yields the deaths that were not harmless."""
    whole = _ending(path, None)
    for call in range(1, whole.calls + 1, every):
        why = _difference(whole, _ending(path, call))
        if why:
            yield Fall(call, why)


def _ending(path: Path, kill_at_call: int | None) -> Ending:
    stage = Stage()
    armed = False
    for line in directives_of(parse(path.read_text())):
        stage.perform(line)
        if stage.is_built and not armed:
            armed = True
            _arm(stage.world, kill_at_call)
    stage.world.run(CALM_S)
    return _look(stage.world)


def _arm(world: World, kill_at_call: int | None) -> None:
    life = next(iter(world.nodes.values())).life
    life.kill_at_call = kill_at_call

    def replace() -> None:
        world.add_engine(TAKES_OVER)

    def killed() -> None:
        world.agenda.after(NOTICED_AFTER_S, replace)

    life.on_kill = killed


def _look(world: World) -> Ending:
    vms = {
        row.name: (row.state.value, len(world.datacentre.vms[row.id].guests)) for row in world.nova.servers.values()
    }
    posts = Counter(post.server for post in world.checkers.posts)
    first = next(iter(world.nodes.values()))
    return Ending(vms, dict(posts), tuple(world.checkers.breaches), first.life.calls)


def _difference(whole: Ending, cut: Ending) -> str:
    """'' or what is worse than in the story that nobody interrupted."""
    if set(cut.breaches) - set(whole.breaches):
        return "; ".join(sorted(set(cut.breaches) - set(whole.breaches)))
    other = {name: (whole.vms[name], found) for name, found in cut.vms.items() if found != whole.vms.get(name)}
    if other:
        return "; ".join(f"{name} ends {now} instead of {then}" for name, (then, now) in sorted(other.items()))
    twice = [name for name, count in cut.posts.items() if count > max(1, whole.posts.get(name, 0))]
    return f"evacuated more often: {', '.join(sorted(twice))}" if twice else ""
