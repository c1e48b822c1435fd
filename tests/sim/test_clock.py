# SPDX-License-Identifier: Apache-2.0
"""What recurs for ever costs no event, and comes at its own time among the events."""

from __future__ import annotations

from math import inf

from vmhad.sim.clock import Agenda


def test_a_look_comes_at_its_time_and_is_no_event() -> None:
    agenda = Agenda(0.0)
    seen: list[tuple[str, float]] = []

    def look() -> float:
        seen.append(("look", agenda.now))
        return agenda.now + 2.0 if agenda.now < 5.0 else inf

    agenda.every(1.0, look)
    agenda.after(4.0, lambda: seen.append(("event", agenda.now)))
    events = 0
    while agenda.step(20.0):
        events += 1
    assert seen == [("look", 1.0), ("look", 3.0), ("event", 4.0), ("look", 5.0)]
    assert events == 1
    assert agenda.now == 20.0


def test_what_a_look_puts_is_not_passed_over() -> None:
    agenda = Agenda(0.0)
    seen: list[float] = []

    def look() -> float:
        if agenda.now == 1.0:
            agenda.after(0.5, lambda: seen.append(agenda.now))
        return agenda.now + 1.0

    ticket = agenda.every(1.0, look)
    assert agenda.step(10.0)
    assert seen == [1.5]
    ticket.cancel()
    assert not agenda.step(10.0)


def test_only_what_recurs_leaves_the_world_at_rest() -> None:
    agenda = Agenda(0.0)
    agenda.every(1.0, lambda: agenda.now + 1.0)
    agenda.after(1.0, lambda: None, periodic=True)
    assert agenda.restless == 0
    cancelled = agenda.after(2.0, lambda: None)
    agenda.after(3.0, lambda: None)
    cancelled.cancel()
    cancelled.cancel()
    assert agenda.restless == 1
    while agenda.step(5.0):
        pass
    assert agenda.restless == 0
