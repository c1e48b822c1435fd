# SPDX-License-Identifier: Apache-2.0
"""ports.Beats in virtual time: what one engine hears of the simulated agents.

Nothing that was said before the engine began to listen is heard, and nothing that was said while the bus was away. It
freezes and dies with its engine.
"""

from __future__ import annotations

from collections.abc import Iterable

from vmhad.kernel.beat import HeardBeat
from vmhad.sim.agents import Agents, Made
from vmhad.sim.clock import SimClock
from vmhad.sim.life import Life


class SimBeats:
    def __init__(self, life: Life, clock: SimClock, agents: Agents) -> None:
        self._clock, self._agents = clock, agents
        self._since = agents.agenda.now
        self._read_at: dict[str, float] = {}
        agents.on_news.append(lambda at: life.at(at, clock.wake))

    def read(self) -> Iterable[HeardBeat]:
        self._agents.settle()
        news = [made for agent in self._agents.agents.values() for made in agent.made if self._is_news(made)]
        newest = {made.beat.host: made for made in sorted(news, key=lambda one: one.at)}
        self._read_at.update({host: made.at for host, made in newest.items()})
        ordered = sorted(newest.values(), key=lambda one: (one.at, one.beat.host))
        return [HeardBeat(one.beat, one.at + self._clock.offset_s, one.refused) for one in ordered]

    def _is_news(self, made: Made) -> bool:
        came_at = made.at + made.late_s
        return made.at > self._read_at.get(made.beat.host, self._since) and came_at <= self._agents.agenda.now
