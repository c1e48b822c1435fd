# SPDX-License-Identifier: Apache-2.0
"""What effects reach the world through, with reads shared: sixty steps that ask the same question ask it once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Generic, TypeVar

from vmhad.engine.guests import Guests
from vmhad.engine.units import Units
from vmhad.kernel.beat import Unit
from vmhad.kernel.cloud import BROKEN, EVACUATION, OVER, Inventory, Migration, Server, Standing
from vmhad.kernel.signal import Access, Reading
from vmhad.kernel.step import Step
from vmhad.ports import Clock, Compute, Hands, Power, Refused, Storage, Unanswered

Level = TypeVar("Level")

# A shared read rests for this many times its own cost, so that watching stays a small part of the work.
REST_TIMES_COST = 4.0
# A read that was slow because Nova was frozen must not blind us for long once Nova answers again.
REST_MAX_S = 6.0
DEPARTURES_REST_S = 1.5
# The more servers are still to leave, the less one of them tells, and the more it costs Nova to be asked meanwhile.
REST_PER_SERVER_S = 0.15
# A server may be deleted, or leave by another hand, without any evacuation's end.
IDS_REST_S = 10.0
# The rows cost Nova ten times what the ids do. Asked this seldom, and only while Nova may have given something up: for
# as long as one request after the other is taken up, those that are not only wait for their turn.
ROWS_REST_S = 15.0
# How old the reading of a proof may be when an act follows it.
PROOF_REST_S = 0.5
# How old the word of an agent may be that is heard.
BEAT_OLD_S = 4.0


@dataclass(frozen=True, slots=True)
class Departures:
    """What Nova still has on a host, and the evacuations away from it, newest first. at: when the read began.

    before: the evacuations that were on record before the servers were listed. Nova gives a server its task before it
    makes the record, so only of those does a server without a task say that it is over; the list itself may be an
    earlier read's."""

    servers: tuple[Server, ...]
    evacuations: tuple[Migration, ...]
    before: frozenset[str]
    at: float


@dataclass
class SharedRead(Generic[Level]):
    """One read of one thing at a time; whoever comes while it runs waits for it and takes its result."""

    clock: Clock
    rest_min_s: float
    rest_times_cost: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    began_at: float = 0.0
    cost_s: float = 0.0
    level: Level | None = None

    def get(self, read: Callable[[], Level], not_before: float) -> Level:
        """The level as read at not_before or later, and no longer ago than the rest a read is given."""
        with self.lock:
            now = self.clock.now()
            rest_s = max(self.rest_min_s, min(REST_MAX_S, self.rest_times_cost * self.cost_s))
            if self.level is not None and self.began_at >= not_before and now < self.began_at + rest_s:
                return self.level
            self.level = None
            level = read()
            self.began_at, self.cost_s, self.level = now, self.clock.now() - now, level
            return level


@dataclass
class DeparturesRead:
    """What left a host and what is still there: by the evacuations, then by the servers' ids where one of these ended,
    and by the servers' rows only where Nova may have given one up."""

    compute: Compute
    clock: Clock
    host: str
    shared: SharedRead[Departures]
    servers: tuple[Server, ...] = ()
    before: frozenset[str] = frozenset()
    ended: frozenset[str] = frozenset()
    untaken: frozenset[str] = frozenset()
    taken_at: float = -inf
    counted_at: float = -inf
    listed_at: float = -inf

    def get(self, not_before: float) -> Departures:
        self.shared.rest_min_s = max(DEPARTURES_REST_S, min(REST_MAX_S, REST_PER_SERVER_S * len(self.servers)))
        return self.shared.get(self._read, not_before)

    def put(self, inventory: Inventory) -> None:
        evacuations = tuple(m for m in inventory.migrations if m.source == self.host and m.kind == EVACUATION)
        with self.shared.lock:
            if inventory.at > self.shared.began_at:
                self._listed(inventory.servers, (), inventory.at)
                self.shared.began_at = inventory.at
                self.shared.level = Departures(inventory.servers, evacuations, self.before, inventory.at)

    def _read(self) -> Departures:
        now = self.clock.now()
        evacuations = self.compute.evacuations(self.host)
        if self._may_be_given_up(evacuations, now) or not self._count(evacuations, now):
            servers, later = self.compute.departures(self.host)
            self._listed(servers, evacuations, now)
            evacuations = later
        return Departures(self.servers, evacuations, self.before, now)

    def _may_be_given_up(self, evacuations: tuple[Migration, ...], now: float) -> bool:
        broken = {one.id for one in evacuations if one.status in BROKEN}
        untaken = frozenset(one.id for one in evacuations if one.status == "accepted")
        if not self.untaken <= untaken:
            self.taken_at = now
        self.untaken = untaken
        is_stalled = now >= max(self.listed_at, self.taken_at) + ROWS_REST_S
        return not broken <= self.before or (bool(untaken) and is_stalled)

    def _count(self, evacuations: tuple[Migration, ...], now: float) -> bool:
        """Forgets the servers that left; False where one is there that is not known."""
        if _ended(evacuations) != self.ended or now >= self.counted_at + IDS_REST_S:
            here = self.compute.server_ids(self.host)
            if not here <= {one.id for one in self.servers}:
                return False
            self.servers = tuple(one for one in self.servers if one.id in here)
            self.ended, self.counted_at = _ended(evacuations), now
        return True

    def _listed(self, servers: tuple[Server, ...], before: tuple[Migration, ...], at: float) -> None:
        """before: the evacuations as read before the servers were listed."""
        self.servers, self.before = servers, frozenset(one.id for one in before)
        self.ended, self.counted_at, self.listed_at = _ended(before), at, at


def _ended(evacuations: tuple[Migration, ...]) -> frozenset[str]:
    return frozenset(one.id for one in evacuations if one.status in OVER)


class NoHands:
    """ports.Hands where no agents are listened to."""

    def restart_service(self, host: str, service: str, known: str) -> None:
        raise Refused("no agents are listened to: nobody takes an order")

    def resume_guest(self, host: str, server_id: str) -> None:
        raise Refused("no agents are listened to: nobody takes an order")


@dataclass
class World:
    compute: Compute
    power: Power
    clock: Clock
    hands: Hands = field(default_factory=NoHands)
    guests: Guests = field(default_factory=Guests)
    units: Units = field(default_factory=Units)
    storages: Mapping[str, Storage] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _departures: dict[str, DeparturesRead] = field(default_factory=dict)
    _active: dict[str, SharedRead[frozenset[str]]] = field(default_factory=dict)
    _powers: dict[str, SharedRead[tuple[Reading, str]]] = field(default_factory=dict)
    _accesses: dict[tuple[str, str], SharedRead[tuple[Access, str]]] = field(default_factory=dict)

    def departures(self, host: str, not_before: float) -> Departures:
        return self._departures_of(host).get(not_before)

    def standing(self, server_id: str) -> Standing:
        """As it is now: what a restart rests on is never shared."""
        at = self.clock.now()
        server = self.compute.server(server_id)
        return Standing(server_id, at, server, self.compute.actions(server_id) if server is not None else ())

    def unit(self, host: str, service: str) -> tuple[Unit | None, float]:
        """As its host's agent said last, and when; (None, 0.0) while that is not heard."""
        told = self.units.of(host, self.clock.now(), BEAT_OLD_S)
        return (told.units.get(service), told.at) if told is not None else (None, 0.0)

    def moved(self, server_id: str) -> tuple[Server | None, tuple[Migration, ...]]:
        """The server first: a live migration that ends in between is not yet seen to have brought it anywhere."""
        server = self.compute.server(server_id)
        return server, self.compute.live_migrations(server_id) if server is not None else ()

    def remember(self, inventory: Inventory) -> None:
        """The plan was made from it, so the first acts of that plan need not read the same again."""
        self._departures_of(inventory.host).put(inventory)

    def _departures_of(self, host: str) -> DeparturesRead:
        with self._lock:
            if host not in self._departures:
                shared: SharedRead[Departures] = SharedRead(self.clock, DEPARTURES_REST_S, REST_TIMES_COST)
                self._departures[host] = DeparturesRead(self.compute, self.clock, host, shared)
            return self._departures[host]

    def active_on(self, host: str, not_before: float) -> frozenset[str]:
        """The servers that read ACTIVE there."""
        with self._lock:
            shared = self._active.setdefault(host, SharedRead(self.clock, DEPARTURES_REST_S, REST_TIMES_COST))
        return shared.get(lambda: self.compute.server_ids(host, active=True), not_before)

    def storage(self, step: Step) -> Storage:
        """The one that it names. Raises Unanswered where this engine was not told of it."""
        name = step.args["backend"]
        if name not in self.storages:
            raise Unanswered(f"this engine's topology names no storage {name!r}")
        return self.storages[name]

    def access_now(self, host: str, backend: str, not_before: float) -> tuple[Access, str]:
        if backend not in self.storages:
            return Access.UNKNOWN, f"this engine's topology names no storage {backend!r}"
        with self._lock:
            shared = self._accesses.setdefault((host, backend), SharedRead(self.clock, PROOF_REST_S, 0.0))
        return shared.get(lambda: self.storages[backend].read(host), not_before)

    def power_now(self, host: str, not_before: float) -> tuple[Reading, str]:
        with self._lock:
            shared = self._powers.setdefault(host, SharedRead(self.clock, PROOF_REST_S, 0.0))
        return shared.get(lambda: self.power.read(host), not_before)
