# SPDX-License-Identifier: Apache-2.0
"""The engine's clock. It counts the time a suspended machine slept, and no administrator can set it back.

An NTP step or a changed date must not make a lease look fresh or a reading look new, so the wall clock is asked once.
"""

from __future__ import annotations

import threading
import time

# What wakes the engine within so long after another wake is one: three hundred notifications a second cost it no three
# hundred ticks (tests/bench/scale.py), and nothing that it does is as quick as this.
GATHER_S = 0.02


class SystemClock:
    """ports.Clock over CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._changed = threading.Condition()
        self._woken = False

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) + self._offset_s

    def wait(self, timeout_s: float) -> None:
        """A wake that came since the last wait ended is not lost: then this returns at once."""
        with self._changed:
            if timeout_s > 0:
                self._changed.wait_for(lambda: self._woken, min(timeout_s, threading.TIMEOUT_MAX))
            if self._woken and timeout_s > GATHER_S:
                self._changed.wait_for(lambda: False, GATHER_S)
            self._woken = False

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()
