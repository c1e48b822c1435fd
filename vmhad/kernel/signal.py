# SPDX-License-Identifier: Apache-2.0
"""One thing seen: who saw what, of whom, when.

A reading is three-valued: UNKNOWN says «this eye cannot tell» and is never turned into the bad or the good value.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import NamedTuple

# For so long an OFF that is read again wakes its engine, which waits for it to be read twice, or for longer. A host
# that is off for good wakes nobody.
OFF_IS_NEWS_S = 30.0


class Channel(StrEnum):
    """Which eye."""

    NOVA = "nova"
    POWER = "power"


class Reading(StrEnum):
    """What an eye saw. NOVA answers UP or DOWN, POWER answers ON or OFF; both may answer UNKNOWN."""

    UP = "up"
    DOWN = "down"
    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class Signal(NamedTuple):
    """One reading of one host through one channel. A tuple, as a thousand of them are made every second.

    at: when the reading *began*, so that nothing older can pass for newer.
    life: the reading itself is a sign of life that cannot be older than the reading before it (nova's heartbeat
    counter moved). UP alone is no life: Nova says «up» for 60 s after a host died.
    """

    host: str
    channel: Channel
    reading: Reading
    at: float
    detail: str = ""
    life: bool = False


class Gathered:
    """What one eye has seen and nobody has read yet. What only says again what was said before waits apart, the newest
    for all before it: a thousand calm hosts cost their engine nothing until it asks.

    An OFF always counts for itself, and so does a heartbeat. kept: where nobody reads for long, the oldest are lost.
    """

    def __init__(self, kept: int) -> None:
        self._told: deque[Signal] = deque(maxlen=kept)
        self._again: dict[str, Signal] = {}
        self._newest: dict[str, Signal] = {}

    def put(self, signal: Signal) -> bool:
        """Whether it is another reading than the one before."""
        host = signal.host
        newest = self._newest.get(host)
        is_late = newest is not None and signal.at < newest.at
        changed = newest is None or signal.reading is not newest.reading
        if not is_late:
            self._newest[host] = signal
        is_plain = signal.reading is not Reading.OFF and signal.life == (signal.reading is Reading.ON)
        if is_plain and not changed and not is_late:
            self._again[host] = signal
            return False
        if host in self._again:
            self._told.append(self._again.pop(host))
        self._told.append(signal)
        return changed

    def read(self) -> list[Signal]:
        """As ports.Watch has it."""
        told = list(self._told)
        self._told.clear()
        again = (self._again.pop(host, None) for host in dict.fromkeys(signal.host for signal in told))
        return [*told, *(signal for signal in again if signal is not None)]

    def latest(self, host: str) -> Signal | None:
        return self._again.pop(host, None)
