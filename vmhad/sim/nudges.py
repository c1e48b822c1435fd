# SPDX-License-Identifier: Apache-2.0
"""ports.Nudges in virtual time: one queue that all engines drain, as Nova's notifications come by one queue."""

from __future__ import annotations

import random
from collections.abc import Iterable

from vmhad.ports import Nudge
from vmhad.sim.clock import Agenda, SimClock

LATE_S = 8.0


class NudgeQueue:
    """Nudges nobody has taken yet. lost: a story's message bus is dead. loses: the share of them that never comes.

    doubles: each comes again a while later. shuffles: each comes a while later, and so in another order.
    """

    def __init__(self, agenda: Agenda, seed: int = 0) -> None:
        self._agenda = agenda
        self._draw = random.Random(seed)
        self.waiting: dict[tuple[str, str], Nudge] = {}
        self.clocks: list[SimClock] = []
        self.lost = False
        self.loses = 0.0
        self.doubles_until = self.shuffles_until = self.loses_until = 0.0

    def put(self, nudge: Nudge) -> None:
        now = self._agenda.now
        if self.lost or (now < self.loses_until and self._draw.random() < self.loses):
            return
        if now < self.doubles_until:
            self._agenda.after(self._draw.uniform(0.0, LATE_S), lambda: self._arrive(nudge))
        if now < self.shuffles_until:
            self._agenda.after(self._draw.uniform(0.0, LATE_S), lambda: self._arrive(nudge))
        else:
            self._arrive(nudge)

    def heal(self) -> None:
        self.lost = False
        self.doubles_until = self.shuffles_until = self.loses_until = 0.0

    def _arrive(self, nudge: Nudge) -> None:
        self.waiting[(nudge.host, nudge.server)] = nudge
        for clock in self.clocks:
            clock.wake()


class SimNudges:
    """One engine's end of the queue: whoever reads first has them."""

    def __init__(self, queue: NudgeQueue, clock: SimClock) -> None:
        self._queue = queue
        queue.clocks.append(clock)

    def read(self) -> Iterable[Nudge]:
        taken = tuple(self._queue.waiting.values())
        self._queue.waiting.clear()
        return taken
