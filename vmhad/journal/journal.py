# SPDX-License-Identifier: Apache-2.0
"""The hard memory, written once over the store's narrow port.

Every write of a segment's owner compares the segment's epoch in the same transaction: an owner that was replaced
while it slept cannot write. It also compares and raises the segment's commit count: a commit whose answer was lost may
still land later, and must not land on top of what was decided after it. So a commit rests on the last load: after a
Conflict or Unanswered load again, look at what is there, and decide again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vmhad.journal import codec, keys
from vmhad.journal.change import OPERATIONS_MAX, Change, Contended, Operation, parts
from vmhad.kernel.incident import Incident
from vmhad.kernel.order import Order
from vmhad.kernel.step import Step
from vmhad.ports import Compare, Conflict, Nudge, Store

__all__ = ["Change", "Contended", "EpochLost", "Journal", "SegmentRecord"]

# Puts a certificate of this file name where it outlives the journal.
Export = Callable[[str, bytes], None]
# Up to this many claims are read one by one; beyond it one listing is cheaper.
_SINGLE_READS_MAX = 8


class EpochLost(Conflict):
    """Another engine owns the segment now: stop acting for it."""


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """incidents: open ones and ended ones not yet pruned, oldest first. steps: in the order of their incidents."""

    incidents: tuple[Incident, ...]
    steps: tuple[Step, ...]


class Journal:
    """load and commit of a segment belong to one thread; any other reader has a Journal of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._nudges_at: dict[str, int] = {}
        self._commits: dict[str, int] = {}
        self._orders: dict[str, tuple[int, tuple[Order, ...]]] = {}

    def load(self, segment: str) -> SegmentRecord:
        """Raises Unanswered; JournalUnreadable when any value of the segment is not what it should be."""
        self._commits.pop(segment, None)
        # The count first: what lands while we read makes the next commit fail rather than be overwritten by it.
        # Steps before incidents: these are written the other way round, so no step lacks its incident.
        key = keys.commits(segment)
        count = codec.decode_number(key, self._store.get(key))
        stored = self._store.list(keys.steps(segment))
        incidents = sorted(
            (codec.decode(Incident, key, raw) for key, raw in self._store.list(keys.incidents(segment)).items()),
            key=lambda incident: (incident.opened_at, incident.id),
        )
        place = {incident.id: index for index, incident in enumerate(incidents)}
        steps = [codec.decode(Step, key, raw) for key, raw in stored.items()]
        # One without its incident was pruned between the two readings.
        kept = sorted((step for step in steps if step.incident in place), key=lambda step: place[step.incident])
        self._commits[segment] = count
        return SegmentRecord(tuple(incidents), tuple(kept))

    def commit(self, segment: str, epoch: int, change: Change) -> None:
        """Writes a change; in one transaction unless it is too large, then in parts that may be cut anywhere.

        Raises EpochLost; Contended (also when there was no load since the last failure); Unanswered, after which
        nothing, a first part or everything may have landed, or lands later if no load and commit came before it.
        """
        if segment not in self._commits:
            raise Contended(f"segment {segment} has to be loaded before it is written")
        for part in parts(segment, change, self._present(change.read_first)):
            self._write(segment, epoch, part)

    def _write(self, segment: str, epoch: int, part: Sequence[Operation]) -> None:
        # Forgotten until it is known to have landed.
        count = self._commits.pop(segment)
        epoch_key, count_key = keys.epoch(segment), keys.commits(segment)
        compares = [
            Compare(epoch_key, codec.encode_number(epoch)),
            Compare(count_key, codec.encode_number(count) if count else None),
            *(operation.compare for operation in part if operation.compare is not None),
        ]
        puts = {operation.key: operation.value for operation in part if operation.value is not None}
        deletes = [operation.key for operation in part if operation.value is None]
        try:
            self._store.commit(compares, puts | {count_key: codec.encode_number(count + 1)}, deletes)
        except Conflict:
            now = codec.decode_number(epoch_key, self._store.get(epoch_key))
            if now != epoch:
                raise EpochLost(f"segment {segment} is at epoch {now}, this engine had {epoch}") from None
            subjects = [c.key for c in compares if c.key.startswith(keys.OPEN)]
            raise Contended(f"the journal of segment {segment} changed since it was read", subjects) from None
        self._commits[segment] = count + 1

    def _present(self, wanted: Sequence[str]) -> Mapping[str, bytes | None]:
        if len(wanted) <= _SINGLE_READS_MAX:
            return {key: self._store.get(key) for key in wanted}
        found: dict[str, bytes] = {}
        for prefix in keys.OPEN:
            if any(key.startswith(prefix) for key in wanted):
                found |= self._store.list(prefix)
        return {key: self._store.get(key) if key == keys.FENCES else found.get(key) for key in wanted}

    def fences(self) -> frozenset[str]:
        """The ids of all incidents of the cloud with an open fence: what Change.fences takes as its before."""
        return codec.decode_names(keys.FENCES, self._store.get(keys.FENCES))

    def orders(self, segment: str) -> tuple[Order, ...]:
        """What operators asked of the segment and its owner has not yet handled, by id. Cheap while nothing changes."""
        prefix = keys.orders(segment)
        revision = self._store.revision(prefix)
        read_at, orders = self._orders.get(segment, (-1, ()))
        if revision != read_at:
            orders = tuple(codec.decode(Order, key, raw) for key, raw in self._store.list(prefix).items())
            self._orders[segment] = (revision, orders)
        return orders

    def put_nudge(self, segment: str, nudge: Nudge) -> None:
        """Leaves a nudge for whoever owns the segment; of several with one subject the last one stays."""
        key = keys.nudge(segment, f"{nudge.host} {nudge.server} {nudge.why}")
        self._store.commit([], {key: codec.encode(nudge)})

    def take_nudges(self, segment: str) -> tuple[Nudge, ...]:
        """What other engines left for its owner, once. Cheap while there is nothing."""
        prefix = keys.nudges(segment)
        revision = self._store.revision(prefix)
        if revision == self._nudges_at.get(segment, 0):
            return ()
        found = dict(list(self._store.list(prefix).items())[: OPERATIONS_MAX - 1])
        if found:
            self._store.commit([], {}, tuple(found))
        else:
            self._nudges_at[segment] = revision
        return tuple(codec.decode(Nudge, key, raw) for key, raw in found.items())

    def put_order(self, order: Order) -> None:
        """Leaves an order for whoever owns the segment. Raises Contended if the id stands for another one."""
        key, raw = keys.order(order.segment, order.id), codec.encode(order)
        try:
            self._store.commit([Compare(key, None)], {key: raw})
        except Conflict:
            if self._store.get(key) != raw:
                raise Contended(f"another order has the id {order.id}") from None

    def drop_order(self, order: Order) -> None:
        """Takes an order back. The owner that has handled one names its key in Change.deletes instead."""
        self._store.commit([], {}, [keys.order(order.segment, order.id)])

    def certificates(self, incident_id: str = "", server_id: str = "") -> Mapping[str, bytes]:
        """Key -> JSON: all of them, those of one incident, or of one VM in it; each VM's in their order."""
        return self._store.list(keys.certificates(incident_id, server_id))

    def prune(
        self, segment: str, now: float, keep_s: float, keep_count: int, export: Export | None = None
    ) -> int:
        """Deletes ended incidents, with their steps, that ended over keep_s ago or are beyond the newest keep_count.

        What has certificates goes when export has them all; where there is none, no sooner than keep_s, however many
        there are. The newest incident of each host itself always stays: what befell it last can be asked however long
        ago it was. Slow, for a worker; it needs no epoch, as an ended incident never changes. Returns how many went.
        Raises what export raises.
        """
        found = self._store.list(keys.incidents(segment))
        records = [(codec.decode(Incident, key, raw), raw) for key, raw in found.items()]
        newest: dict[str, str] = {}
        for incident, _ in sorted(records, key=lambda record: record[0].opened_at):
            if incident.is_of_host:
                newest[incident.host] = incident.id
        ended = sorted((r for r in records if not r[0].is_open), key=lambda r: _ended_at(r[0]), reverse=True)
        gone = 0
        for rank, (incident, raw) in enumerate(ended):
            expired = _ended_at(incident) < now - keep_s
            if (expired or rank >= keep_count) and newest.get(incident.host) != incident.id:
                certificates = self.certificates(incident.id)
                if export is not None:
                    for certificate, text in certificates.items():
                        export(keys.file_of(certificate), text)
                elif certificates and not expired:
                    continue
                gone += self._erase(segment, incident, raw, certificates)
        return gone

    def _erase(self, segment: str, incident: Incident, raw: bytes, certificates: Iterable[str]) -> bool:
        """Its certificates and steps before the incident, so that one cut short is found again."""
        key = keys.incident(segment, incident.id)
        doomed = [*certificates, *self._store.list(keys.steps(segment, incident.id)), key]
        size = OPERATIONS_MAX - 1
        try:
            for start in range(0, len(doomed), size):
                self._store.commit([Compare(key, raw)], {}, doomed[start : start + size])
        except Conflict:
            return False
        return True


def _ended_at(incident: Incident) -> float:
    return incident.turns[-1].at if incident.turns else incident.opened_at
