# SPDX-License-Identifier: Apache-2.0
"""ports.Watch in virtual time: the eyes of one engine on Nova's service list and on the BMCs.

They read at the pace of the real ones, and are as late: a reading is of the moment its read began, and is handed over
when the answer came. They freeze and die with their engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from vmhad.kernel.signal import OFF_IS_NEWS_S, Channel, Reading, Signal
from vmhad.sim.clock import SimClock, Ticket
from vmhad.sim.compute import READ_S, NovaFaults
from vmhad.sim.datacentre import Bmc, Datacentre
from vmhad.sim.life import Life
from vmhad.sim.nova import SERVICE_DOWN_S, ServiceRow, SimNova
from vmhad.sim.power import look

# Looked up once: a member of an enumeration costs ten times what another name does.
NOVA, POWER = Channel.NOVA, Channel.POWER
ON, OFF, UP, DOWN, UNKNOWN = Reading.ON, Reading.OFF, Reading.UP, Reading.DOWN, Reading.UNKNOWN
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
        self._ticket.cancel()
        self._ticket = self._watch.agenda.every(self._soonest(), self._read)

    def _soonest(self) -> float:
        return max(self._watch.agenda.now, self._began_at + LOOKS_APART_S, self._over_at)

    def _read(self) -> float:
        life, now = self._watch.life, self._watch.agenda.now
        if life.dead or now < life.thaw_at:
            return inf if life.dead else life.thaw_at
        signals, took_s, again_s = self._watch.look_at(self._name)
        self._began_at, self._over_at = now, now + took_s
        self._watch.expect(signals, self._over_at)
        return max(self._over_at, now + again_s)


class _Steady(_Rounds):
    """The rounds of a BMC. While it can only say again what it said, its reads are not stepped but worked out when
    somebody asks for the newest, or when the host is about to change. No engine can tell the difference.

    _again: what it says, or None while its reads are stepped. _next_at: the first read that was not worked out yet.
    _read_at: when the newest one began that is over and was not handed out; _under_way: one that is not over."""

    def __init__(self, watch: SimPowerWatch, name: str, first_s: float) -> None:
        super().__init__(watch, name, first_s)
        self._bmc = watch
        self._again: Signal | None = None
        self._took_s = self._next_at = 0.0
        self._read_at: float | None = None
        self._under_way: float | None = None

    def sooner(self) -> None:
        if self._again is None:
            super().sooner()
            return
        self._work_out()
        self._next_at = self._soonest()

    def latest(self) -> Signal | None:
        if self._again is None:
            return None
        self._work_out()
        read_at, self._read_at = self._read_at, None
        return None if read_at is None else self._signal(read_at)

    def end(self) -> None:
        """From now on its reads are stepped again; what was read so far was read as things were."""
        if self._again is None:
            return
        self._work_out()
        for began_at in (self._read_at, self._under_way):
            if began_at is not None:
                self._watch.coming.append((began_at + self._took_s, (self._signal(began_at),)))
        self._again = self._read_at = self._under_way = None
        self._ticket = self._watch.agenda.every(self._next_at, self._read)

    def _read(self) -> float:
        again_at = super()._read()
        self._again = self._bmc.said_for_long(self._name)
        if self._again is None or again_at == inf or self._over_at <= self._watch.agenda.now:
            self._again = None
            return again_at
        self._took_s, self._next_at = self._over_at - self._began_at, again_at
        return inf

    def _work_out(self) -> None:
        now, took_s = self._watch.agenda.now, self._took_s
        if self._under_way is not None and self._under_way + took_s <= now:
            self._read_at, self._under_way = self._under_way, None
        while self._next_at <= now:
            began_at = self._began_at = self._next_at
            over_at = self._over_at = began_at + took_s
            self._next_at = max(over_at, began_at + self._watch.interval_s)
            if over_at <= now:
                self._read_at = began_at
            else:
                self._under_way = began_at

    def _signal(self, began_at: float) -> Signal:
        assert self._again is not None
        at = began_at + self._watch.clock.offset_s
        return Signal(self._name, POWER, self._again.reading, at, self._again.detail, self._again.life)


class SimWatch:
    """What both eyes share: rounds, and signals kept until the engine asks. coming: what was told, and is there from
    that time on."""

    def __init__(self, life: Life, clock: SimClock, datacentre: Datacentre, interval_s: float) -> None:
        self.life = life
        self.agenda = datacentre.agenda
        self.clock = clock
        self.interval_s = interval_s
        self.coming: list[tuple[float, Sequence[Signal]]] = []
        self._said: dict[str, Reading] = {}
        self._since: dict[str, float] = {}

    def read(self) -> Iterable[Signal]:
        now, coming = self.agenda.now, self.coming
        if not coming:
            return ()
        self.coming = [one for one in coming if one[0] > now]
        signals = [signal for at, signals in coming if at <= now for signal in signals]
        again = [self.latest(host) for host in dict.fromkeys(signal.host for signal in signals)]
        return [*signals, *(signal for signal in again if signal is not None)]

    def latest(self, host: str) -> Signal | None:
        raise NotImplementedError

    def look(self, hosts: Iterable[str]) -> None:
        raise NotImplementedError

    def look_at(self, name: str) -> tuple[Sequence[Signal], float, float]:
        """One read: its signals, how long it took, and when the next begins, counted from the beginning of this one."""
        raise NotImplementedError

    def expect(self, signals: Sequence[Signal], at: float) -> None:
        """They are there at that time. Wakes the engine for news only, as the real eyes do: another reading than
        before, or an OFF of late. Only a new reading is the beginning of something; an OFF is read while it lasts."""
        if not signals:
            return
        self.coming.append((at, signals))
        changed = off = False
        for one in signals:
            if self._said.get(one.host) is not one.reading:
                self._said[one.host], self._since[one.host] = one.reading, self.agenda.now
                changed = True
            off = off or (one.reading is OFF and self.agenda.now - self._since[one.host] < OFF_IS_NEWS_S)
        if changed or off:
            self.life.at(at, self.clock.wake, periodic=not changed)


@dataclass(slots=True)
class _Calm:
    """A row that says «up» in every poll from number `since` on, which nobody was handed yet. shown: the row."""

    since: int
    shown: tuple[str, bool, str]


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
        self._calm: dict[str, _Calm] = {}
        # Number, begin by the engine's clock, and end of the newest two polls: one may be under way.
        self._polls = [(0, 0.0, -inf), (0, 0.0, -inf)]
        self._rounds = _Rounds(self, "", 0.05)

    def look(self, hosts: Iterable[str]) -> None:
        if list(hosts):
            self._rounds.sooner()

    def latest(self, host: str) -> Signal | None:
        calm = self._calm.get(host)
        if calm is None:
            return None
        number, at, over_at = self._polls[1] if self._polls[1][2] <= self.agenda.now else self._polls[0]
        if number < calm.since or over_at > self.agenda.now:
            return None
        calm.since = number + 1
        return Signal(host, NOVA, UP, at, "up", False)

    def look_at(self, name: str) -> tuple[Sequence[Signal], float, float]:
        at, now = self.clock.now(), self.agenda.now
        number = self._polls[1][0] + 1
        takes_s = READ_S + self._faults.late_s(now)
        if now < self._faults.down_until or takes_s >= self._timeout_s:
            for host in sorted(self._calm):
                self._end_calm(host)
            unknown = [
                Signal(host, NOVA, UNKNOWN, at, "nova-api did not answer")
                for host in sorted(self._nova.services)
            ]
            self._polls = [self._polls[1], (number, at, now + self._timeout_s)]
            return unknown, self._timeout_s, self.interval_s
        signals = []
        for host, row in sorted(self._nova.services.items()):
            calm = self._calm.get(host)
            if calm is not None:
                shown = (row.updated_at, row.enabled, row.disabled_reason)
                is_up = now - row.last_seen <= SERVICE_DOWN_S and not row.forced_down
                if is_up and shown == calm.shown and not self._nova.is_hidden(host):
                    continue
                self._end_calm(host)
            if not self._nova.is_hidden(host):
                signals.append(self._signal(row, at))
                if signals[-1].reading is UP and not row.forced_down:
                    self._calm[host] = _Calm(number + 1, (row.updated_at, row.enabled, row.disabled_reason))
        self._polls = [self._polls[1], (number, at, now + takes_s)]
        return signals, takes_s, self.interval_s

    def _end_calm(self, host: str) -> None:
        """What the polls before this one said of it comes before what this one says."""
        number, at, over_at = self._polls[1]
        if self._calm.pop(host).since <= number:
            self.coming.append((over_at, (Signal(host, NOVA, UP, at, "up", False),)))

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
        return Signal(host, NOVA, UP if up else DOWN, at, detail, moved)


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
        self._rounds: dict[str, _Steady] = {}
        for i, host in enumerate(hosts):
            self._rounds[host] = rounds = _Steady(self, host, 0.1 + i * interval_s / len(hosts))
            life.before_freeze.append(rounds.end)
            if host in datacentre.hosts:
                datacentre.hosts[host].watchers.append(rounds.end)

    def look(self, hosts: Iterable[str]) -> None:
        for host in hosts:
            if host in self._rounds:
                self._rounds[host].sooner()

    def latest(self, host: str) -> Signal | None:
        rounds = self._rounds.get(host)
        return None if rounds is None else rounds.latest()

    def look_at(self, name: str) -> tuple[Sequence[Signal], float, float]:
        at = self.clock.now()
        reading, text, took_s = look(self._datacentre, name, self._timeout_s)
        first_off = reading is OFF and self._said.get(name) is not OFF
        signal = Signal(name, POWER, reading, at, text, reading is ON)
        return (signal,), took_s, OFF_AGAIN_S if first_off else self.interval_s

    def said_for_long(self, name: str) -> Signal | None:
        """What the BMC says until somebody changes its host; None if it may become another by itself, or is OFF: each
        OFF is news."""
        truth = self._datacentre.hosts.get(name)
        if truth is None or truth.bmc is Bmc.OTHER or self.agenda.now < truth.blips_until:
            return None
        reading, text, _ = look(self._datacentre, name, self._timeout_s)
        if reading is OFF:
            return None
        return Signal(name, POWER, reading, self.agenda.now, text, reading is ON)
