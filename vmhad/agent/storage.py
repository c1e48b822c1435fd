# SPDX-License-Identifier: Apache-2.0
"""Storage beats: this host writes a record on each shared storage once a second and reads there those of its peers.

Whoever still writes to the storage of the guests lives, whatever else is silent; and a record that stands still is seen
by every peer without any network between them. Each storage has a thread of its own, and one that hangs costs only its
own word.

Rules kept: nothing is written before the marker was read, for a host without the mount would write into its own root
disk. Only bytes that came from the storage itself count. A record that cannot be read now is not one that stands still.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vmhad.agent.bootclock import boot_s
from vmhad.agent.loop import Identity
from vmhad.agent.record import Record, Torn, from_block, to_block
from vmhad.agent.told import Rounds, Told
from vmhad.kernel.beat import StorageBeat
from vmhad.kernel.signal import Reading

LOG = logging.getLogger(__name__)


class Unfit(Exception):
    """The storage cannot carry beats, in words for the operator."""


class Store(Protocol):
    """One shared storage. Every call may hang; what fails raises OSError or Unfit."""

    def marker(self) -> str:
        """The identity written on it; '' where there is none."""

    def write(self, host: str, block: bytes) -> None:
        """Returns when the block is on the storage."""

    def read(self, host: str) -> bytes | None:
        """None if the host has never written."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A peer's record. moved_at: when it was first read so. read_at: when the latest reading of it began."""

    record: Record
    moved_at: float
    read_at: float


class SharedStorage:
    """The eye on one storage. marker: what must be written on it. promise_s: asked before each write, what its record
    shall say as self_fence_s. writes: False where somebody else beats for this host."""

    def __init__(
        self,
        name: str,
        marker: str,
        store: Store,
        who: Identity,
        peers: Sequence[str],
        *,
        interval_s: float = 1.0,
        down_after_s: float = 5.0,
        writes: bool = True,
    ) -> None:
        self.name = name
        self._marker = marker
        self._store = store
        self._who = who
        self._turn = deque(peers)
        self._interval_s = interval_s
        self._down_after_s = down_after_s
        self.promise_s: Callable[[], float] = lambda: 0.0
        self._writes = writes
        self._rounds = Rounds(f"storage {name}", self._look, interval_s)
        self._count = 0
        self._seen: dict[str, _Seen] = {}
        # What other threads read is replaced as a whole and never changed.
        self._begun_at = boot_s()
        self._marked_at: float | None = None
        self._written: tuple[float, float] | None = None
        self._missing = ""
        self._failed = ""

    def start(self) -> None:
        self._begun_at = boot_s()
        self._rounds.start()

    def stop(self) -> None:
        self._rounds.stop()

    def renewed(self) -> tuple[float, float] | None:
        """Of the newest write that is known to have landed: when it began, and the self_fence_s that it said. Peers see
        the record move no earlier than that. None: there was none yet."""
        return self._written

    def tell(self, now: float) -> Told:
        reading = self._reading(now)
        records = {}
        if reading is Reading.UP:
            for peer, seen in sorted(self._seen.copy().items()):
                if now - seen.read_at <= self._down_after_s:
                    still_s = max(0.0, seen.read_at - seen.moved_at)
                    said = seen.record
                    records[peer] = {self.name: StorageBeat(said.boot, said.count, still_s, said.self_fence_s)}
        complaint = self._missing or (self._failed if self._is_lasting(reading, now) else "")
        told = (f"storage {self.name}: {complaint}",) if complaint else ()
        return Told(storages={self.name: reading}, records=records, hardware=told)

    def _is_lasting(self, reading: Reading, now: float) -> bool:
        """One read or write that fails is ordinary noise, and no complaint."""
        landed_at = self._written[0] if self._written is not None else self._begun_at
        return reading is Reading.DOWN or (self._writes and now - landed_at > self._down_after_s)

    def _reading(self, now: float) -> Reading:
        if self._missing:
            return Reading.DOWN
        if self._marked_at is None and now - self._begun_at <= self._down_after_s:
            return Reading.UNKNOWN
        marked_at = self._marked_at if self._marked_at is not None else self._begun_at
        return Reading.UP if now - marked_at <= self._down_after_s else Reading.DOWN

    def _look(self) -> None:
        began = boot_s()
        try:
            self._missing = self._complaint()
        except OSError as error:
            # It may pass: what this means is left to the age of the last good reading.
            self._failed = f"its marker cannot be read: {error.strerror}"
            return
        if self._missing:
            return
        self._marked_at = began
        self._failed = self._write() if self._writes else ""
        for peer in tuple(self._turn):
            self._turn.rotate(-1)
            self._read(peer)
            # The next write does not wait until a slow storage has given all of them; they come in turn.
            if boot_s() - began > self._interval_s:
                break

    def _complaint(self) -> str:
        """'' where the marker is the right one. Raises OSError if that cannot be told."""
        try:
            found = self._store.marker()
        except Unfit as error:
            return str(error)
        except FileNotFoundError:
            return "there is no such place"
        if found == self._marker:
            return ""
        return "it has no marker: it is not there, or nobody marked it" if not found else "its marker is another one's"

    def _write(self) -> str:
        self._count += 1
        said_s = self.promise_s()
        who = self._who
        began = boot_s()
        try:
            self._store.write(who.host, to_block(Record(who.host, who.boot, who.run, self._count, said_s)))
        except OSError as error:
            return f"its record cannot be written: {error.strerror}"
        self._written = (began, said_s)
        return ""

    def _read(self, peer: str) -> None:
        began = boot_s()
        try:
            block = self._store.read(peer)
            record = from_block(block, peer) if block is not None else None
        except Torn:
            # A writer that died in the middle leaves it so: what it wrote last before that goes on standing still.
            record = self._seen[peer].record if peer in self._seen else None
        except OSError as error:
            LOG.debug("the record of %s on %s cannot be read: %s", peer, self.name, error.strerror)
            return
        if record is None:
            self._seen.pop(peer, None)
            return
        old = self._seen.get(peer)
        moved_at = old.moved_at if old is not None and old.record == record else boot_s()
        self._seen[peer] = _Seen(record, moved_at, began)
