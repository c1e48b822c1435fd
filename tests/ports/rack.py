# SPDX-License-Identifier: Apache-2.0
"""Hosts with BMCs whose power and moods a test sets, as the power watch reads them: in real time, from many threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from vmhad.kernel.signal import Reading


class Rack:
    """Counts reads and how many were under way at once."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self.power = dict.fromkeys(hosts, Reading.ON)
        self.hung = dict.fromkeys(hosts, False)
        self.release = threading.Event()
        self.began: dict[str, list[float]] = {host: [] for host in hosts}
        self.under_way: dict[str, int] = dict.fromkeys(hosts, 0)
        self.most = 0
        self.doubled = False
        self.closed = 0
        self._lock = threading.Lock()

    def open(self, host: str) -> RackReader:
        return RackReader(self, host)

    def read(self, host: str) -> tuple[Reading, str]:
        with self._lock:
            self.began[host].append(time.monotonic())
            self.under_way[host] += 1
            self.doubled |= self.under_way[host] > 1
            self.most = max(self.most, sum(self.under_way.values()))
        try:
            if self.hung[host]:
                self.release.wait(1.5)
                return Reading.UNKNOWN, "no answer"
            return self.power[host], f"power {self.power[host]}"
        finally:
            with self._lock:
                self.under_way[host] -= 1


class RackReader:
    def __init__(self, rack: Rack, host: str) -> None:
        self._rack, self._host = rack, host

    def read(self) -> tuple[Reading, str]:
        return self._rack.read(self._host)

    def close(self) -> None:
        self._rack.closed += 1
