# SPDX-License-Identifier: Apache-2.0
"""Virtual time: one queue of events that is stepped, and the clock each engine reads.

Nothing here sleeps. Ties go to the event that was put in first, so that a story always runs the same way.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from typing import Any

START_S = 1_800_000_000.0


class Ticket:
    """One event to come. Cancelled tickets are skipped. periodic: it recurs for ever in a calm world."""

    __slots__ = ("_agenda", "at", "call", "cancelled", "periodic", "recurs")

    def __init__(self, agenda: Agenda, at: float, call: Callable[[], Any], periodic: bool, recurs: bool) -> None:
        self.at, self.call = at, call
        self.periodic, self.recurs = periodic, recurs
        self.cancelled = False
        self._agenda: Agenda | None = agenda

    def cancel(self) -> None:
        self.over()
        self.cancelled = True

    def over(self) -> None:
        """It ran, or never will: it is no longer counted as pending."""
        if self._agenda is not None and not self.periodic:
            self._agenda.restless -= 1
        self._agenda = None


class Agenda:
    """What will happen, in order. now: Unix seconds of the simulated world. restless: how many pending tickets are not
    periodic; 0 where nothing is under way."""

    def __init__(self, start_s: float = START_S) -> None:
        self.start_s = start_s
        self.now = start_s
        self.restless = 0
        self._number = 0
        self._tickets: list[tuple[float, int, Ticket]] = []
        self._iso = (0, "")

    def at(self, when: float, call: Callable[[], None], periodic: bool = False) -> Ticket:
        """Puts call at a time; a time that has passed means now, after what is already due."""
        self.restless += not periodic
        return self._put(Ticket(self, max(when, self.now), call, periodic, recurs=False))

    def after(self, delay_s: float, call: Callable[[], None], periodic: bool = False) -> Ticket:
        return self.at(self.now + delay_s, call, periodic)

    def every(self, first: float, look: Callable[[], float]) -> Ticket:
        """look runs again and again; it answers when it is due next, inf for never. It may read the world and put
        tickets, but changes nothing that others see: so it is no event, and step() goes on past it."""
        return self._put(Ticket(self, max(first, self.now), look, periodic=True, recurs=True))

    def _put(self, ticket: Ticket) -> Ticket:
        self._number += 1
        heapq.heappush(self._tickets, (ticket.at, self._number, ticket))
        return ticket

    def step(self, until: float) -> bool:
        """Runs the next event due by then. Without one the time becomes `until` and the answer False."""
        tickets = self._tickets
        while tickets and tickets[0][0] <= until:
            at, _, ticket = tickets[0]
            if ticket.cancelled:
                heapq.heappop(tickets)
            elif ticket.recurs:
                self.now = at
                self._recur(ticket)
            else:
                heapq.heappop(tickets)
                ticket.over()
                self.now = at
                ticket.call()
                return True
        self.now = max(self.now, until)
        return False

    def _recur(self, ticket: Ticket) -> None:
        """It is still the foremost when its look is over: what look puts comes after it."""
        ticket.at = ticket.call()
        if ticket.at == inf:
            heapq.heappop(self._tickets)
            return
        self._number += 1
        heapq.heapreplace(self._tickets, (ticket.at, self._number, ticket))

    def pending(self) -> list[Ticket]:
        """What is to come, in no order."""
        return [ticket for *_, ticket in self._tickets if not ticket.cancelled]

    @property
    def elapsed_s(self) -> float:
        return self.now - self.start_s

    def iso(self) -> str:
        """Now as Nova writes it: UTC, whole seconds, so that two rows of one second tie as they do in MySQL."""
        second = int(self.now)
        if second != self._iso[0]:
            self._iso = second, f"{datetime.fromtimestamp(second, UTC).replace(tzinfo=None).isoformat()}.000000"
        return self._iso[1]


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
