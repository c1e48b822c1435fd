# SPDX-License-Identifier: Apache-2.0
"""ports.Storage of one engine over the simulated backends: they cut a host off, or are silent, refuse, are late.

What a cut does is true of the datacentre: a guest of a host that is cut off writes nothing, and one that was left there
writes on as soon as the host is given back. A real storage may be kinder than that, none is worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from vmhad.kernel.signal import Access
from vmhad.kernel.topology import Backend
from vmhad.ports import Refused, Unanswered
from vmhad.sim.clock import SimClock
from vmhad.sim.datacentre import Datacentre
from vmhad.sim.life import Life

ANSWER_S = 0.15
LAGS_S = 2.5
HANGS_S = 12.0


class Mood(StrEnum):
    """How a backend takes orders. SILENT: it answers nothing. LAGS: it accepts, and the cut is true only later; until
    then it says so. HANGS: it does what it is told when nobody waits for it any more. LOSES_ANSWERS: it does what it is
    told, and nobody hears that it did. IN_VAIN: it accepts, and does nothing."""

    OK = "ok"
    SILENT = "silent"
    REFUSES = "refuses"
    LAGS = "lags"
    HANGS = "hangs"
    LOSES_ANSWERS = "loses-answers"
    IN_VAIN = "in-vain"


@dataclass
class CutOrder:
    """One cut, or its taking back, as it left for a backend; kept for the checkers."""

    at: float
    engine: str
    verb: str
    host: str
    backend: str


@dataclass
class Backends:
    """The truth of all of them. moods: backend -> how it takes orders now; lags_s: how much later it does what it was
    told, where it LAGS. on_order: told of each before a backend sees it; on_late: of one that reaches it when its
    sender has slept. orders: all of them."""

    datacentre: Datacentre
    on_order: Callable[[CutOrder], None] = lambda order: None
    on_late: Callable[[CutOrder], None] = lambda order: None
    moods: dict[str, Mood] = field(default_factory=dict)
    lags_s: dict[str, float] = field(default_factory=dict)
    orders: list[CutOrder] = field(default_factory=list)

    def mood(self, backend: str) -> Mood:
        if backend in self.datacentre.hung_storages:
            return Mood.SILENT
        return self.moods.get(backend, Mood.OK)


class SimStorage:
    """One engine's way to one backend."""

    def __init__(self, backends: Backends, backend: Backend, life: Life, clock: SimClock, timeout_s: float) -> None:
        self._backends, self._backend = backends, backend
        self._life, self._clock, self._timeout_s = life, clock, timeout_s

    def read(self, host: str) -> tuple[Access, str]:
        self._life.count_call()
        name = self._backend.name
        if host not in self._backend.clients:
            return Access.UNKNOWN, f"{name} knows no client {host}"
        if self._backends.mood(name) in (Mood.SILENT, Mood.HANGS):
            self._clock.spend(self._timeout_s)
            return Access.UNKNOWN, f"{name} did not answer in {self._timeout_s:g} s"
        self._clock.spend(ANSWER_S)
        if host in self._backends.datacentre.fenced.get(name, ()):
            return Access.CUT, f"{name} takes nothing of {host}"
        return Access.OPEN, f"{name} takes what {host} writes"

    def cut(self, host: str) -> None:
        self._order("cut_storage", host, True)

    def restore(self, host: str) -> None:
        self._order("restore_storage", host, False)

    def _order(self, verb: str, host: str, cut: bool) -> None:
        self._life.count_call()
        backends, name, datacentre = self._backends, self._backend.name, self._backends.datacentre
        if host not in self._backend.clients:
            raise Refused(f"{name} knows no client {host}")
        order = CutOrder(datacentre.agenda.now, self._life.name, verb, host, name)
        backends.orders.append(order)
        backends.on_order(order)
        mood = backends.mood(name)
        if mood is Mood.SILENT or mood is Mood.HANGS:
            if mood is Mood.HANGS:
                datacentre.agenda.after(HANGS_S, lambda: datacentre.fence_client(name, host, cut))
            self._clock.spend(self._timeout_s)
            raise Unanswered(f"{name} did not answer in {self._timeout_s:g} s")
        self._clock.spend(ANSWER_S)
        if mood is Mood.REFUSES:
            raise Refused(f"{name} declined")
        if mood is Mood.IN_VAIN:
            return
        lag_s = backends.lags_s.get(name, LAGS_S) if mood is Mood.LAGS else 0.0
        self._life.send(verb, lambda: self._land(order, cut, lag_s))
        if mood is Mood.LOSES_ANSWERS:
            self._clock.spend(self._timeout_s)
            raise Unanswered(f"{name} did not answer in {self._timeout_s:g} s")

    def _land(self, order: CutOrder, cut: bool, lag_s: float) -> None:
        datacentre, name, host = self._backends.datacentre, order.backend, order.host
        if self._life.is_late:
            self._backends.on_late(order)
        if lag_s:
            datacentre.agenda.after(lag_s, lambda: datacentre.fence_client(name, host, cut))
        else:
            datacentre.fence_client(name, host, cut)
