# SPDX-License-Identifier: Apache-2.0
"""Who may act for a segment: an owner record that is renewed, and an epoch that every write must carry.

No two clocks need agree. The owner counts from the start of its last confirmed renewal and stops at two thirds of the
lease. A contender counts a full lease from the end of its first reading of an unchanged record, which cannot have been
written before that renewal began. The membership ring says who should; only compare-and-swap in the store says who may.

A renewal whose answer was lost is not confirmed. It may have landed, or land later, so the next renewal reads first:
a record that names us with a count we once sent is ours since the time we *sent* that count, not since we read it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from vmhad.journal import codec, keys
from vmhad.journal.codec import JournalUnreadable
from vmhad.ports import Clock, Compare, Conflict, Membership, Store

ACTING_SHARE = 2 / 3
# How often to renew. Half of it is the least time between two, so that a caller's own pace is never cut to every other.
RENEW_SHARE = 1 / 6
_SENT_MAX = 64


@dataclass(frozen=True, slots=True)
class OwnerRecord:
    """What stands at a segment's owner key. owner '': released. counter: moved by every renewal."""

    owner: str
    counter: int


@dataclass(frozen=True, slots=True)
class _Title:
    """A segment's owner and epoch as stored, read at one revision; None where the key does not exist."""

    owner: bytes | None
    epoch: bytes | None


@dataclass(frozen=True, slots=True)
class _Hold:
    """confirmed_at: when the last renewal known to have landed was sent; -inf if no such is known."""

    epoch: int
    confirmed_at: float


class Ownership:
    """Which segments this engine owns. Thread-safe; only renew and release wait for the store.

    me: unique for each start of a process. lease_s: the same in all engines; it must be well above the store's timeout.
    """

    def __init__(
        self, store: Store, clock: Clock, me: str, segments: Sequence[str], membership: Membership, lease_s: float
    ) -> None:
        if not me:
            raise ValueError("an owner needs a name: the empty one stands for «released»")
        self._store = store
        self._clock = clock
        self._me = me
        self._segments = tuple(segments)
        self._membership = membership
        self._lease_s = lease_s
        self._renewing = threading.Lock()
        # Below: touched only while renewing.
        self._stopped = False
        self._counter = 0
        self._sent: dict[str, dict[int, float]] = {segment: {} for segment in segments}
        self._unchanged: dict[str, tuple[_Title, float]] = {}
        self._state = threading.Lock()
        self._held: dict[str, _Hold] = {}
        self._renewed_at = -inf

    def held(self) -> Mapping[str, int]:
        """Segment -> epoch, of all not known to be lost. Whether there is time left to act is remaining_s()."""
        with self._state:
            return {segment: hold.epoch for segment, hold in self._held.items()}

    def remaining_s(self, segment: str) -> float:
        """How long this engine may still act for the segment; 0 if it does not hold it or its time is up."""
        now = self._clock.now()
        with self._state:
            hold = self._held.get(segment)
        return 0.0 if hold is None else max(0.0, hold.confirmed_at + self._lease_s * ACTING_SHARE - now)

    def lost(self, segment: str) -> None:
        """A commit found another epoch. Should the record still be ours, the next renewal says so."""
        with self._state:
            self._held.pop(segment, None)
            self._renewed_at = -inf

    def renew(self) -> None:
        """Renews what is held and takes what may be taken; may be called as often as one likes.

        Meant for every sixth of the lease. Within a twelfth it does nothing, unless after lost() or a failure: so one
        listing, then one commit a held segment. Raises Unanswered at the first answer that does not come (what
        was not reached is not confirmed, and the next call copes); JournalUnreadable after all others had their turn.
        """
        with self._renewing:
            started = self._clock.now()
            with self._state:
                early = started < self._renewed_at + self._lease_s * RENEW_SHARE / 2
            if self._stopped or early:
                return
            found = self._store.list(keys.SEGMENTS)
            unreadable: JournalUnreadable | None = None
            for segment in self._segments:
                try:
                    self._settle(segment, _title(segment, found))
                except JournalUnreadable as error:
                    unreadable = error
            with self._state:
                self._renewed_at = started
            if unreadable is not None:
                raise unreadable

    def release(self) -> None:
        """Orderly stop, once nothing acts any more: lets another engine take over at once. Raises Unanswered."""
        with self._renewing:
            self._stopped = True
            with self._state:
                self._held.clear()
            found = self._store.list(keys.SEGMENTS)
            for segment in self._segments:
                title = _title(segment, found)
                if _owner(title) == self._me:
                    try:
                        self._write(segment, title, codec.decode_number(keys.epoch(segment), title.epoch), owner="")
                    except Conflict:
                        continue

    def _settle(self, segment: str, title: _Title) -> None:
        """One segment's turn. A conflict is looked at once more: it may be our own write whose answer was lost."""
        for _ in range(2):
            try:
                if _owner(title) == self._me:
                    self._keep(segment, title)
                else:
                    self._contend(segment, title)
                return
            except Conflict:
                title = _title(segment, self._store.list(keys.segment(segment)))
        self._drop(segment)

    def _keep(self, segment: str, title: _Title) -> None:
        self._unchanged.pop(segment, None)
        epoch = codec.decode_number(keys.epoch(segment), title.epoch)
        landed = codec.decode(OwnerRecord, keys.owner(segment), title.owner or b"").counter
        self._confirm(segment, epoch, self._sent[segment].get(landed, -inf))
        self._write(segment, title, epoch, self._me)

    def _contend(self, segment: str, title: _Title) -> None:
        # The end of the reading, not its start: the record may have been written while we read.
        self._drop(segment)
        now = self._clock.now()
        known, since = self._unchanged.get(segment, (None, now))
        if known != title:
            since = now
        self._unchanged[segment] = (title, since)
        if self._may_take(segment, _owner(title), now - since):
            self._write(segment, title, codec.decode_number(keys.epoch(segment), title.epoch) + 1, self._me)
            self._unchanged.pop(segment, None)

    def _may_take(self, segment: str, owner: str | None, unchanged_s: float) -> bool:
        should = self._membership.should_own(segment)
        if not owner:
            return should or unchanged_s >= self._lease_s
        return unchanged_s >= self._lease_s * (1 if should else 2)

    def _write(self, segment: str, title: _Title, epoch: int, owner: str) -> None:
        """Raises Conflict if the title is not as read (nothing was written) and Unanswered."""
        self._counter += 1
        counter, sent = self._counter, self._sent[segment]
        started = self._clock.now()
        sent[counter] = started
        while len(sent) > _SENT_MAX:
            del sent[next(iter(sent))]
        owner_key, epoch_key = keys.owner(segment), keys.epoch(segment)
        puts = {owner_key: codec.encode(OwnerRecord(owner, counter)), epoch_key: codec.encode_number(epoch)}
        try:
            self._store.commit([Compare(owner_key, title.owner), Compare(epoch_key, title.epoch)], puts)
        except Conflict:
            del sent[counter]
            raise
        # What was sent before compares with an older record: it cannot land any more.
        self._sent[segment] = {counter: started}
        if owner:
            self._confirm(segment, epoch, started)

    def _drop(self, segment: str) -> None:
        with self._state:
            self._held.pop(segment, None)

    def _confirm(self, segment: str, epoch: int, at: float) -> None:
        with self._state:
            hold = self._held.get(segment)
            if hold is not None and hold.epoch == epoch:
                at = max(at, hold.confirmed_at)
            self._held[segment] = _Hold(epoch, at)


def _title(segment: str, found: Mapping[str, bytes]) -> _Title:
    return _Title(found.get(keys.owner(segment)), found.get(keys.epoch(segment)))


def _owner(title: _Title) -> str | None:
    """None where there is no record; '?' for one that cannot be read, which is waited out like any owner's."""
    if title.owner is None:
        return None
    try:
        return codec.decode(OwnerRecord, "owner", title.owner).owner
    except JournalUnreadable:
        return "?"
