# SPDX-License-Identifier: Apache-2.0
"""What an operator does in a story: reads the journal and leaves orders in it, as the API would."""

from __future__ import annotations

from functools import lru_cache

from vmhad.journal import codec, keys
from vmhad.journal.journal import Journal
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.order import Order, OrderKind
from vmhad.sim.draft import StoryError, seconds
from vmhad.sim.world import World


def incidents(world: World) -> list[Incident]:
    """Of all segments, in the order they were opened."""
    stored = [entry for segment in world.segments for entry in world.store.list(keys.incidents(segment.name)).items()]
    found = [_decoded(key, raw) for key, raw in stored]
    return sorted(found, key=lambda one: (one.opened_at, one.host, one.id))


@lru_cache(maxsize=1024)
def _decoded(key: str, raw: bytes) -> Incident:
    """Most of them are as they were when they were read last."""
    return codec.decode(Incident, key, raw)


def order(world: World, words: list[str]) -> None:
    """pause SEGMENT|HOST FOR why... | resume SEGMENT|HOST | retry HOST|VM|HOST/SERVICE|stuck | close as retry |
    confirm_down HOST why..."""
    kind = OrderKind(words[0])
    if words[1] == "stuck":
        # An operator leaves a host alone that is just coming back.
        hosts = {one.host for one in incidents(world) if one.state is State.STUCK and one.is_of_host}
        for host in sorted(host for host in hosts if not world.datacentre.hosts[host].powered):
            order(world, [words[0], host])
        return
    if words[1] in world.nova.servers:
        vm, host = words[1], world.nova.servers[words[1]].host
        number = f"{world.agenda.elapsed_s:012.3f}-{kind.value}-{vm}"
        segment = _place(world, host)[0]
        Journal(world.store).put_order(Order(number, kind, segment, host, 0.0, "operator", " ".join(words[2:]), vm))
        return
    if "/" in words[1]:
        host, service = words[1].split("/")
        number, segment = f"{world.agenda.elapsed_s:012.3f}-{kind.value}-{host}-{service}", _place(world, host)[0]
        why = " ".join(words[2:])
        Journal(world.store).put_order(Order(number, kind, segment, host, 0.0, "operator", why, service=service))
        return
    segment, host = _place(world, words[1])
    if kind is OrderKind.RESUME:
        _resume(world, segment, host)
        return
    if kind is OrderKind.CONFIRM_DOWN:
        world.checkers.said_down.add(host)
        world.checkers.excused |= {host} if world.datacentre.hosts[host].powered else set()
    until, why = 0.0, " ".join(words[2:])
    if kind is OrderKind.PAUSE:
        until, why = world.agenda.now + seconds(words[2]), " ".join(words[3:])
    number = f"{world.agenda.elapsed_s:012.3f}-{kind.value}-{host or segment}"
    Journal(world.store).put_order(Order(number, kind, segment, host, until, "operator", why))


def _resume(world: World, segment: str, host: str) -> None:
    """Takes the pauses back, as vmhad-manage does."""
    journal = Journal(world.store)
    for one in journal.orders(segment):
        if (one.kind, one.host) == (OrderKind.PAUSE, host):
            journal.drop_order(one)


def _place(world: World, name: str) -> tuple[str, str]:
    for segment in world.segments:
        if segment.name == name:
            return name, ""
        if name in segment.names:
            return segment.name, name
    raise StoryError(f"{name} is neither a segment nor a host")
