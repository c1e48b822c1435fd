# SPDX-License-Identifier: Apache-2.0
"""ports.Nudges in virtual time: one queue that all engines drain, as Nova's notifications come by one queue."""

from __future__ import annotations

from collections.abc import Iterable

from vmhad.ports import Nudge
from vmhad.sim.clock import SimClock


class NudgeQueue:
    """Nudges nobody has taken yet. lost: a story's message bus is dead."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[str, str], Nudge] = {}
        self.clocks: list[SimClock] = []
        self.lost = False

    def put(self, nudge: Nudge) -> None:
        if not self.lost:
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
