# SPDX-License-Identifier: Apache-2.0
"""ports.Watch in virtual time: the eyes of one engine on Nova's service list and on the BMCs.

They read at the pace of the real ones, and are as late: a reading is of the moment its read began, and is handed over
when the answer came. They freeze and die with their engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from vmhad.kernel.signal import Channel, Reading, Signal
from vmhad.sim.clock import SimClock, Ticket
from vmhad.sim.compute import READ_S, NovaFaults
from vmhad.sim.datacentre import Datacentre
from vmhad.sim.life import Life
from vmhad.sim.nova import ServiceRow, SimNova
from vmhad.sim.power import look

OFF_AGAIN_S = 1.0
LOOKS_APART_S = 0.2
MOVED_LATELY_S = 60.0


class _Rounds:
    """When one subject is read: every interval_s, sooner when asked, after the read that is under way."""

    def __init__(self, watch: SimWatch, name: str, first_s: float) -> None:
        self._watch, self._name = watch, name
        self._began_at = self._over_at = 0.0
        self._ticket: Ticket = watch.agenda.every(watch.agenda.now + first_s, self._read)

    def sooner(self) -> None:
        when = max(self._watch.agenda.now, self._began_at + LOOKS_APART_S, self._over_at)
        self._ticket.cancel()
        self._ticket = self._watch.agenda.every(when, self._read)

    def _read(self) -> float:
        life, now = self._watch.life, self._watch.agenda.now
        if life.dead or now < life.thaw_at:
            return inf if life.dead else life.thaw_at
        signals, took_s, again_s = self._watch.look_at(self._name)
        self._began_at, self._over_at = now, now + took_s
        self._watch.expect(signals, self._over_at)
        return max(self._over_at, now + again_s)


class SimWatch:
    """What both eyes share: rounds, and signals kept until the engine asks."""

    def __init__(self, life: Life, clock: SimClock, datacentre: Datacentre, interval_s: float) -> None:
        self.life = life
        self.agenda = datacentre.agenda
        self._clock = clock
        self._interval_s = interval_s
        self._coming: list[tuple[float, Sequence[Signal]]] = []
        self._rounds: dict[str, _Rounds] = {}
        self._said: dict[str, Reading] = {}

    def read(self) -> Iterable[Signal]:
        now, coming = self.agenda.now, self._coming
        if not coming:
            return ()
        self._coming = [one for one in coming if one[0] > now]
        return [signal for at, signals in coming if at <= now for signal in signals]

    def look(self, hosts: Iterable[str]) -> None:
        raise NotImplementedError

    def look_at(self, name: str) -> tuple[Sequence[Signal], float, float]:
        """One read: its signals, how long it took, and when the next begins, counted from the beginning of this one."""
        raise NotImplementedError

    def expect(self, signals: Sequence[Signal], at: float) -> None:
        """They are there at that time. Wakes the engine for news only, as the real eyes do: another reading than
        before, or an OFF. Only a new reading is the beginning of something; an OFF is read for as long as it lasts."""
        self._coming.append((at, signals))
        changed = off = False
        for one in signals:
            off = off or one.reading is Reading.OFF
            if self._said.get(one.host) is not one.reading:
                self._said[one.host] = one.reading
                changed = True
        if changed or off:
            self.life.at(at, self._clock.wake, periodic=not changed)


class SimNovaWatch(SimWatch):
    """One read shows all hosts. A heartbeat counts as life only if nothing else can have moved updated_at meanwhile:
    Nova moves it for every change of the row, our own forced_down and disable too. A service that is forced down always
    reads down; whether it is alive is told by its heartbeats."""

    def __init__(
        self, life: Life, clock: SimClock, nova: SimNova, faults: NovaFaults, interval_s: float, timeout_s: float
    ) -> None:
        super().__init__(life, clock, nova.datacentre, interval_s)
        self._nova, self._faults, self._timeout_s = nova, faults, timeout_s
        self._shown: dict[str, tuple[str, tuple[bool, bool, str]]] = {}
        self._moved_at: dict[str, float] = {}
        self._rounds[""] = _Rounds(self, "", 0.05)

    def look(self, hosts: Iterable[str]) -> None:
        if list(hosts):
            self._rounds[""].sooner()

    def look_at(self, name: str) -> tuple[Sequence[Signal], float, float]:
        at = self._clock.now()
        takes_s = READ_S + self._faults.late_s(self.agenda.now)
        if self.agenda.now < self._faults.down_until or takes_s >= self._timeout_s:
            unknown = [
                Signal(host, Channel.NOVA, Reading.UNKNOWN, at, "nova-api did not answer")
                for host in sorted(self._nova.services)
            ]
            return unknown, self._timeout_s, self._interval_s
        listed = [row for name, row in sorted(self._nova.services.items()) if not self._nova.is_hidden(name)]
        return [self._signal(row, at) for row in listed], takes_s, self._interval_s

    def _signal(self, row: ServiceRow, at: float) -> Signal:
        host = row.host
        shown = (row.updated_at, (row.forced_down, row.enabled, row.disabled_reason))
        before = self._shown.get(host, shown)
        self._shown[host] = shown
        moved = before[0] != shown[0] and before[1] == shown[1]
        if moved:
            self._moved_at[host] = at
        if row.forced_down:
            up, detail = at - self._moved_at.get(host, 0.0) <= MOVED_LATELY_S, "down, forced down"
        else:
            up = self._nova.is_up(host)
            detail = "up" if up else "down"
        return Signal(host, Channel.NOVA, Reading.UP if up else Reading.DOWN, at, detail, moved)


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
        for i, host in enumerate(hosts):
            self._rounds[host] = _Rounds(self, host, 0.1 + i * interval_s / len(hosts))

    def look(self, hosts: Iterable[str]) -> None:
        for host in hosts:
            if host in self._rounds:
                self._rounds[host].sooner()

    def look_at(self, name: str) -> tuple[Sequence[Signal], float, float]:
        at = self._clock.now()
        reading, text, took_s = look(self._datacentre, name, self._timeout_s)
        first_off = reading is Reading.OFF and self._said.get(name) is not Reading.OFF
        signal = Signal(name, Channel.POWER, reading, at, text, reading is Reading.ON)
        return (signal,), took_s, OFF_AGAIN_S if first_off else self._interval_s
