# SPDX-License-Identifier: Apache-2.0
"""What an operator does in a story: reads the journal and leaves orders in it, as the API would."""

from __future__ import annotations

from vmhad.journal.journal import Journal
from vmhad.kernel.incident import Incident
from vmhad.kernel.order import Order, OrderKind
from vmhad.sim.draft import StoryError, seconds
from vmhad.sim.world import World


def incidents(world: World) -> list[Incident]:
    """Of all segments, in the order they were opened."""
    journal = Journal(world.store)
    found = [one for segment in world.segments for one in journal.load(segment.name).incidents]
    return sorted(found, key=lambda one: (one.opened_at, one.host))


def order(world: World, words: list[str]) -> None:
    """pause SEGMENT|HOST FOR why... | resume SEGMENT|HOST | retry HOST | close HOST"""
    kind = OrderKind(words[0])
    segment, host = _place(world, words[1])
    until, why = 0.0, " ".join(words[2:])
    if kind is OrderKind.PAUSE:
        until, why = world.agenda.now + seconds(words[2]), " ".join(words[3:])
    number = f"{world.agenda.elapsed_s:012.3f}"
    Journal(world.store).put_order(Order(number, kind, segment, host, until, "operator", why))


def _place(world: World, name: str) -> tuple[str, str]:
    for segment in world.segments:
        if segment.name == name:
            return name, ""
        if name in segment.names:
            return segment.name, name
    raise StoryError(f"{name} is neither a segment nor a host")
