# SPDX-License-Identifier: Apache-2.0
"""Virtual time: one queue of events that is stepped, and the clock each engine reads.

Nothing here sleeps. Ties go to the event that was put in first, so that a story always runs the same way.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

START_S = 1_800_000_000.0


@dataclass(order=True)
class Ticket:
    """One event to come. Cancelled tickets are skipped."""

    at: float
    number: int
    call: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class Agenda:
    """What will happen, in order. now: Unix seconds of the simulated world."""

    def __init__(self, start_s: float = START_S) -> None:
        self.start_s = start_s
        self.now = start_s
        self._number = 0
        self._tickets: list[Ticket] = []

    def at(self, when: float, call: Callable[[], None]) -> Ticket:
        """Puts call at a time; a time that has passed means now, after what is already due."""
        self._number += 1
        ticket = Ticket(max(when, self.now), self._number, call)
        heapq.heappush(self._tickets, ticket)
        return ticket

    def after(self, delay_s: float, call: Callable[[], None]) -> Ticket:
        return self.at(self.now + delay_s, call)

    def step(self, until: float) -> bool:
        """Runs the next event due by then. Without one the time becomes `until` and the answer False."""
        while self._tickets and self._tickets[0].at <= until:
            ticket = heapq.heappop(self._tickets)
            if not ticket.cancelled:
                self.now = ticket.at
                ticket.call()
                return True
        self.now = max(self.now, until)
        return False

    @property
    def elapsed_s(self) -> float:
        return self.now - self.start_s

    def iso(self) -> str:
        """Now as Nova writes it: UTC, whole seconds, so that two rows of one second tie as they do in MySQL."""
        return datetime.fromtimestamp(int(self.now), UTC).strftime("%Y-%m-%dT%H:%M:%S.000000")


class SimClock:
    """ports.Clock of one engine. offset_s: how far its clock is from the world's; engines' clocks need not agree."""

    def __init__(self, agenda: Agenda, offset_s: float = 0.0) -> None:
        self._agenda = agenda
        self.offset_s = offset_s
        self.spent_s = 0.0
        self.on_wake: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self._agenda.now + self.offset_s + self.spent_s

    def wait(self, timeout_s: float) -> None:
        """Nothing may block here: the world steps, and ticks the engine when its wait is over."""
        raise AssertionError("the simulated clock does not wait: tick the engine from the world")

    def wake(self) -> None:
        self.on_wake()

    def spend(self, seconds: float) -> None:
        """A port call took this long: the rest of the same worker call sees a later time."""
        self.spent_s += seconds
