# SPDX-License-Identifier: Apache-2.0
"""The times at which a writer's writes were accepted, in a file that the writer and the watcher both have mapped.

A stamp is time.monotonic() of this machine, which all its processes share. It is made when the answer arrived, so it is
never earlier than the write itself.
"""

from __future__ import annotations

import bisect
import mmap
import struct
from pathlib import Path

ROOM = 4_000_000


class Stamps:
    """For one writer, and any number of watchers. A stamp is there before it is counted."""

    def __init__(self, path: Path) -> None:
        size = 8 + 8 * ROOM
        if not path.exists():
            with path.open("wb") as made:
                made.truncate(size)
        with path.open("r+b") as opened:
            self._bytes = mmap.mmap(opened.fileno(), size)

    def add(self, at: float) -> None:
        """Raises IndexError when the room is used up."""
        count = len(self)
        if count == ROOM:
            raise IndexError("no room for another stamp")
        struct.pack_into("<d", self._bytes, 8 + 8 * count, at)
        struct.pack_into("<Q", self._bytes, 0, count + 1)

    def __len__(self) -> int:
        return int(struct.unpack_from("<Q", self._bytes, 0)[0])

    def __getitem__(self, index: int) -> float:
        return float(struct.unpack_from("<d", self._bytes, 8 + 8 * index)[0])

    def last(self) -> float:
        """0 when nothing was accepted yet."""
        count = len(self)
        return self[count - 1] if count else 0.0

    def since(self, at: float) -> int:
        """How many are later than that."""
        count = len(self)
        return count - bisect.bisect_right(range(count), at, key=self.__getitem__)

    def close(self) -> None:
        self._bytes.close()
