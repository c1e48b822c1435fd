# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of this host's hardware, out of /sys and /proc: memory, machine checks, heat, links.

A complaint makes the host one that nothing is sent to any more, and by policy one that is emptied. So each source has
a rule of its own that ordinary life does not meet: what is corrected, throttled, or over in a moment is no complaint. A
host without the sensors complains of nothing. Not read: the alarms of fans and of limits below the critical one, which
an empty slot or a busy day raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vmhad.agent.bootclock import boot_s
from vmhad.agent.told import Rounds, Told

INTERVAL_S = 5.0
# A beat stays small however broken its host is.
COMPLAINTS_MAX = 16
# To correct errors is what ECC is for; a module that goes bad gives them by the thousand.
CORRECTED_MAX, CORRECTED_WITHIN_S = 1000, 3600.0
# A sensor may misread once, and a link goes down and up where its switch is restarted or a cable is moved.
ALARM_LASTS_S = 30.0
LINK_LOST_S = 30.0
# A frame or two are damaged on every link. A bad cable damages one of a hundred, and goes on.
DAMAGED_MIN, DAMAGED_SHARE, DAMAGED_WITHIN_S = 100, 0.01, 60.0
# What a link did is told for so long: it must not come and go with the traffic.
DAMAGED_TOLD_S = 600.0


class Hardware:
    """The eye on them. links: the network interfaces that must have a carrier. root: where /sys and /proc are."""

    def __init__(
        self, links: Sequence[str], root: Path = Path("/"), clock: Callable[[], float] = boot_s
    ) -> None:
        self._links = tuple(links)
        self._root, self._clock = root, clock
        self._rounds = Rounds("hardware", self._look, INTERVAL_S)
        self._since: dict[str, float] = {}
        self._corrected: dict[str, _Counted] = {}
        self._damaged: dict[str, tuple[_Counted, _Counted]] = {}
        self._damaged_at: dict[str, float] = {}
        self._word: tuple[str, ...] = ()

    def start(self) -> None:
        self._rounds.start()

    def stop(self) -> None:
        self._rounds.stop()

    def tell(self, now: float) -> Told:
        return Told(hardware=self._word)

    def _look(self) -> None:
        now = self._clock()
        found = [*self._memory(now), *self._machine_checks(), *self._heat(now), *self._cables(now)]
        self._word = tuple(found[:COMPLAINTS_MAX])

    def _memory(self, now: float) -> Iterator[str]:
        """One uncorrectable error is one too many: the next one may take the host with it."""
        for path in sorted(self._root.glob("sys/devices/system/edac/mc/mc*")):
            if lost := _number(path / "ue_count"):
                yield f"memory controller {path.name}: {lost} uncorrectable errors since the host booted"
            counted = self._corrected.setdefault(path.name, _Counted(CORRECTED_WITHIN_S))
            if counted.grown(_number(path / "ce_count"), now) >= CORRECTED_MAX:
                yield f"memory controller {path.name}: more than {CORRECTED_MAX} corrected errors within an hour"

    def _machine_checks(self) -> Iterator[str]:
        """Exceptions only; the polls, which find what was corrected, stand in a line of their own."""
        for line in _text(self._root / "proc/interrupts").splitlines():
            name, _, rest = line.partition(":")
            if name.strip() == "MCE" and any(word not in ("", "0") for word in rest.split() if word.isdigit()):
                yield "processor: machine check exceptions since the host booted"

    def _heat(self, now: float) -> Iterator[str]:
        """Where the limit is the critical one: a processor that gets hot only works more slowly."""
        for path in sorted(self._root.glob("sys/class/hwmon/hwmon*/*_crit_alarm")):
            sensor = path.name.removesuffix("_crit_alarm")
            chip = _text(path.parent / "name") or path.parent.name
            if self._lasts(f"alarm {path}", _number(path) != 0, now) >= ALARM_LASTS_S:
                yield f"sensor {sensor} of {chip}: beyond its critical limit"

    def _cables(self, now: float) -> Iterator[str]:
        for link in self._links:
            place = self._root / "sys/class/net" / link
            is_lost = _text(place / "carrier") != "1"
            if self._lasts(f"link {link}", is_lost, now) >= LINK_LOST_S:
                yield f"link {link}: " + ("no carrier" if place.exists() else "there is none of that name")
            if self._is_damaging(link, place / "statistics", now):
                yield f"link {link}: more than one of a hundred frames arrives damaged"

    def _is_damaging(self, link: str, counters: Path, now: float) -> bool:
        fresh = _Counted(DAMAGED_WITHIN_S), _Counted(DAMAGED_WITHIN_S)
        bad, good = self._damaged.setdefault(link, fresh)
        damaged = bad.grown(_number(counters / "rx_crc_errors"), now)
        arrived = good.grown(_number(counters / "rx_packets"), now)
        if damaged >= DAMAGED_MIN and damaged >= DAMAGED_SHARE * (damaged + arrived):
            self._damaged_at[link] = now
        return link in self._damaged_at and now < self._damaged_at[link] + DAMAGED_TOLD_S

    def _lasts(self, what: str, is_so: bool, now: float) -> float:
        """For how long it has been so; below zero where it is not."""
        if not is_so:
            self._since.pop(what, None)
            return -1.0
        return now - self._since.setdefault(what, now)


class _Counted:
    """By how much a counter has grown within a time. One that was set back begins anew."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._read: deque[tuple[float, int]] = deque()

    def grown(self, count: int, now: float) -> int:
        if self._read and count < self._read[-1][1]:
            self._read.clear()
        self._read.append((now, count))
        while self._read[0][0] < now - self._within_s:
            self._read.popleft()
        return count - self._read[0][1]


def _number(path: Path) -> int:
    """0 where there is none: a sensor that cannot be read says nothing."""
    text = _text(path)
    return int(text) if text.isdigit() else 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
