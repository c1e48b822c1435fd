# SPDX-License-Identifier: Apache-2.0
"""When a writer's writes were accepted, in memory that it shares with who watches it."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

ROOM = 1 << 20
_ACCEPTED, _REFUSED, _MOUNTED, _STAMPS = 0, 8, 16, 24


class Tally:
    """Of one writer; its last ROOM writes are kept with their times (time.monotonic(), the same for all processes)."""

    def __init__(self, path: str | Path) -> None:
        with open(path, "a+b") as file:
            file.truncate(_STAMPS + 8 * ROOM)
            self._memory = mmap.mmap(file.fileno(), _STAMPS + 8 * ROOM)

    def accepted(self, at: float) -> None:
        count = self._get(_ACCEPTED)
        struct.pack_into("<d", self._memory, _STAMPS + 8 * (count % ROOM), at)
        struct.pack_into("<Q", self._memory, _ACCEPTED, count + 1)

    def refused(self) -> None:
        struct.pack_into("<Q", self._memory, _REFUSED, self._get(_REFUSED) + 1)

    def mounted_anew(self) -> None:
        struct.pack_into("<Q", self._memory, _MOUNTED, self._get(_MOUNTED) + 1)

    @property
    def count(self) -> int:
        return self._get(_ACCEPTED)

    @property
    def refusals(self) -> int:
        return self._get(_REFUSED)

    @property
    def last(self) -> float:
        """0.0 if none was ever accepted."""
        return self._stamp(self.count - 1) if self.count else 0.0

    def since(self, at: float) -> int:
        count = self.count
        found = 0
        while found < min(count, ROOM) and self._stamp(count - 1 - found) > at:
            found += 1
        return found

    def _stamp(self, number: int) -> float:
        return float(struct.unpack_from("<d", self._memory, _STAMPS + 8 * (number % ROOM))[0])

    def _get(self, at: int) -> int:
        return int(struct.unpack_from("<Q", self._memory, at)[0])
