# SPDX-License-Identifier: Apache-2.0
"""What effects reach the world through, with reads shared: sixty steps that ask the same question ask it once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from vmhad.kernel.cloud import Migration, Server
from vmhad.kernel.signal import Reading
from vmhad.ports import Clock, Compute, Power

Level = TypeVar("Level")
Departures = tuple[tuple[Server, ...], tuple[Migration, ...]]

# A shared read rests for this many times its own cost, so that watching stays a small part of the work.
REST_TIMES_COST = 4.0
DEPARTURES_REST_S = 1.5
# How old the reading of a proof may be when an act follows it.
PROOF_REST_S = 0.5


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
            rest_s = max(self.rest_min_s, self.rest_times_cost * self.cost_s)
            if self.level is not None and self.began_at >= not_before and now < self.began_at + rest_s:
                return self.level
            self.level = None
            level = read()
            self.began_at, self.cost_s, self.level = now, self.clock.now() - now, level
            return level


@dataclass
class World:
    compute: Compute
    power: Power
    clock: Clock
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _departures: dict[str, SharedRead[Departures]] = field(default_factory=dict)
    _powers: dict[str, SharedRead[tuple[Reading, str]]] = field(default_factory=dict)

    def departures(self, host: str, not_before: float) -> Departures:
        with self._lock:
            shared = self._departures.setdefault(host, SharedRead(self.clock, DEPARTURES_REST_S, REST_TIMES_COST))
        return shared.get(lambda: self.compute.departures(host), not_before)

    def power_now(self, host: str, not_before: float) -> tuple[Reading, str]:
        with self._lock:
            shared = self._powers.setdefault(host, SharedRead(self.clock, PROOF_REST_S, 0.0))
        return shared.get(lambda: self.power.read(host), not_before)
