# SPDX-License-Identifier: Apache-2.0
"""What the eyes of the real world have in common: the signals that their engine has not taken yet."""

from __future__ import annotations

from collections import deque

from vmhad.kernel.signal import Reading, Signal


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
