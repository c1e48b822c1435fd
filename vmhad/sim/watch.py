# SPDX-License-Identifier: Apache-2.0
"""ports.Watch in virtual time: the eyes of one engine on Nova's service list and on the BMCs.

They read at the pace of the real ones, and are as late: a reading is of the moment its read began, and is handed over
when the answer came. They freeze and die with their engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmhad.kernel.cloud import ComputeService
from vmhad.kernel.signal import Channel, Reading, Signal
from vmhad.sim.clock import SimClock, Ticket
from vmhad.sim.compute import READ_S, NovaFaults
from vmhad.sim.datacentre import Datacentre
from vmhad.sim.life import Life
from vmhad.sim.nova import SimNova
from vmhad.sim.power import look

OFF_AGAIN_S = 1.0
LOOKS_APART_S = 0.2
MOVED_LATELY_S = 60.0


class _Rounds:
    """When one subject is read: every interval_s, sooner when asked, never while a read is under way."""

    def __init__(self, watch: SimWatch, name: str, first_s: float) -> None:
        self._watch, self._name = watch, name
        self._began_at = 0.0
        self._reading = False
        self._ticket: Ticket = watch.clock_agenda.after(first_s, self._begin)

    def sooner(self) -> None:
        if not self._reading:
            self._next(max(self._watch.clock_agenda.now, self._began_at + LOOKS_APART_S))

    def _next(self, when: float) -> None:
        self._ticket.cancel()
        self._ticket = self._watch.clock_agenda.at(when, self._begin)

    def _begin(self) -> None:
        life, agenda = self._watch.life, self._watch.clock_agenda
        if life.dead:
            return
        if life.frozen:
            self._next(life.thaw_at)
            return
        self._reading, self._began_at = True, agenda.now
        signals, took_s, again_s = self._watch.look_at(self._name)
        life.after(took_s, lambda: self._over(signals, again_s))

    def _over(self, signals: Sequence[Signal], again_s: float) -> None:
        self._reading = False
        self._watch.deliver(signals)
        self._next(max(self._watch.clock_agenda.now, self._began_at + again_s))


class SimWatch:
    """What both eyes share: rounds, and signals kept until the engine asks."""

    def __init__(self, life: Life, clock: SimClock, datacentre: Datacentre, interval_s: float) -> None:
        self.life = life
        self.clock_agenda = datacentre.agenda
        self._clock = clock
        self._interval_s = interval_s
        self._signals: list[Signal] = []
        self._rounds: dict[str, _Rounds] = {}
        self._said: dict[str, Reading] = {}

    def read(self) -> Iterable[Signal]:
        signals, self._signals = self._signals, []
        return signals

    def look(self, hosts: Iterable[str]) -> None:
        raise NotImplementedError

    def look_at(self, name: str) -> tuple[Sequence[Signal], float, float]:
        """One read: its signals, how long it took, and when the next begins, counted from the beginning of this one."""
        raise NotImplementedError

    def deliver(self, signals: Sequence[Signal]) -> None:
        """Wakes the engine for news only, as the real eyes do: another reading than before, or an OFF."""
        self._signals.extend(signals)
        news = [one for one in signals if one.reading is Reading.OFF or self._said.get(one.host) is not one.reading]
        self._said.update((one.host, one.reading) for one in signals)
        if news:
            self._clock.wake()


@dataclass(frozen=True)
class _Row:
    """What of a service row a change of updated_at may come from beside a heartbeat."""

    updated_at: str
    set_by_api: tuple[bool, bool, str]


class SimNovaWatch(SimWatch):
    """One read shows all hosts. A heartbeat counts as life only if nothing else can have moved updated_at meanwhile:
    Nova moves it for every change of the row, our own forced_down and disable too. A service that is forced down always
    reads down; whether it is alive is told by its heartbeats."""

    def __init__(
        self, life: Life, clock: SimClock, nova: SimNova, faults: NovaFaults, interval_s: float, timeout_s: float
    ) -> None:
        super().__init__(life, clock, nova.datacentre, interval_s)
        self._nova, self._faults, self._timeout_s = nova, faults, timeout_s
        self._rows: dict[str, _Row] = {}
        self._moved_at: dict[str, float] = {}
        self._rounds[""] = _Rounds(self, "", 0.05)

    def look(self, hosts: Iterable[str]) -> None:
        if list(hosts):
            self._rounds[""].sooner()

    def look_at(self, name: str) -> tuple[Sequence[Signal], float, float]:
        at = self._clock.now()
        if self.clock_agenda.now < self._faults.down_until:
            unknown = [
                Signal(host, Channel.NOVA, Reading.UNKNOWN, at, "nova-api did not answer")
                for host in sorted(self._nova.services)
            ]
            return unknown, self._timeout_s, self._interval_s
        shown = (self._nova.service(host) for host in sorted(self._nova.services))
        return [self._signal(one, at) for one in shown if one is not None], READ_S, self._interval_s

    def _signal(self, service: ComputeService, at: float) -> Signal:
        row = _Row(service.updated_at, (service.forced_down, service.enabled, service.disabled_reason))
        old = self._rows.get(service.host)
        self._rows[service.host] = row
        moved = old is not None and old.updated_at != row.updated_at and old.set_by_api == row.set_by_api
        if moved:
            self._moved_at[service.host] = at
        up = at - self._moved_at.get(service.host, 0.0) <= MOVED_LATELY_S if service.forced_down else service.up
        detail = ("up" if service.up else "down") + (", forced down" if service.forced_down else "")
        return Signal(service.host, Channel.NOVA, Reading.UP if up else Reading.DOWN, at, detail, moved)


class SimPowerWatch(SimWatch):
    """Each host's BMC at its own turn; an OFF is read again a second later."""

    def __init__(
        self,
        life: Life,
        clock: SimClock,
        datacentre: Datacentre,
        hosts: Sequence[str],
        interval_s: float,
        timeout_s: float,
    ) -> None:
        super().__init__(life, clock, datacentre, interval_s)
        self._datacentre, self._timeout_s = datacentre, timeout_s
        self._last: dict[str, Reading] = {}
        for i, host in enumerate(hosts):
            self._rounds[host] = _Rounds(self, host, 0.1 + i * interval_s / len(hosts))

    def look(self, hosts: Iterable[str]) -> None:
        for host in hosts:
            if host in self._rounds:
                self._rounds[host].sooner()

    def look_at(self, name: str) -> tuple[Sequence[Signal], float, float]:
        at = self._clock.now()
        reading, text, took_s = look(self._datacentre, name, self._timeout_s)
        first_off = reading is Reading.OFF and self._last.get(name) is not Reading.OFF
        self._last[name] = reading
        signal = Signal(name, Channel.POWER, reading, at, text, reading is Reading.ON)
        return [signal], took_s, OFF_AGAIN_S if first_off else self._interval_s
