# SPDX-License-Identifier: Apache-2.0
"""What the agents say of one host, as signals: its own beats, and what its peers see of it.

An absence is no signal. A beat that does not come, or a witness that falls silent itself, is seen by the time that
passes: `until` says when, and the judge counts from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import NamedTuple

from vmhad.kernel.beat import DUMP_HEARD_S, PANIC_KNOWN_S, Beat, HeardBeat, Plane, StorageBeat
from vmhad.kernel.evidence import Seen
from vmhad.kernel.signal import Channel, Reading, Signal

# Looked up once: a member of an enumeration costs ten times what another name does.
UP, DOWN, UNKNOWN = Reading.UP, Reading.DOWN, Reading.UNKNOWN
AGENT, STORAGE, DISKS, HARDWARE = Channel.AGENT, Channel.STORAGE, Channel.DISKS, Channel.HARDWARE
DUMP, SELF_FENCE = Channel.DUMP, Channel.SELF_FENCE
PLANES = (
    (Plane.MANAGEMENT, Channel.MANAGEMENT),
    (Plane.STORAGE, Channel.STORAGE_PLANE),
    (Plane.TENANT, Channel.TENANT),
)
SERVICES = (("nova-compute", Channel.COMPUTE), ("libvirtd", Channel.LIBVIRTD))
# What a witness said longer ago than this is not asked any more; it beats once a second.
FRESH_S = 3.0
# A witness that paused for longer than that speaks of a time that it missed: it has to beat steadily for a while first.
STEADY_S = 2.0
# A peer is called seen for so long after its kernel answered last.
ANSWER_OLD_S = 2.0
# So many complaints of a host, and of their words so much, as an operator reads on one line.
COMPLAINTS_SHOWN, COMPLAINTS_LONG = 3, 200


class Witness(NamedTuple):
    """A peer's newest beat. blind: the planes on which it sees none of its peers, and so cannot speak of one. reads:
    storage -> from when on it has said that it reads it."""

    beat: Beat
    at: float
    blind: frozenset[Plane]
    reads: Mapping[str, float]


class Record(NamedTuple):
    """A host's record on one storage. moved_at: when a peer last saw it move, by the engine's clock. lives: it moved
    while we looked; a peer that reads a dead record for the first time has it «just moved», too."""

    boot: str
    number: int
    moved_at: float
    lives: bool = False


def moved(record: Record | None, read: StorageBeat, at: float) -> Record:
    """The record after one more peer's word. at: when that peer's beat was made."""
    moved_at = at - read.still_s
    if record is None:
        return Record(read.boot, read.count, moved_at)
    if (read.count != record.number or read.boot != record.boot) and moved_at > record.moved_at:
        return Record(read.boot, read.count, moved_at, lives=True)
    return record


def blind_on(beat: Beat) -> frozenset[Plane]:
    views = beat.peers.values()
    return frozenset(plane for plane, _ in PLANES if not any(view.planes.get(plane) is UP for view in views))


class Views(NamedTuple):
    """All that is known of one host by agents. own: its newest beat. witnesses: its peers that beat lately and
    steadily. records: storage -> its record there. still_s: after how long a record has stopped."""

    host: str
    own: HeardBeat | None
    witnesses: Sequence[Witness]
    records: Mapping[str, Record]
    still_s: float

    def until(self) -> float:
        """Until when these witnesses count, if none beats again."""
        return min((one.at for one in self.witnesses), default=inf) + FRESH_S

    def told_at(self) -> float:
        """When the newest of them spoke."""
        return max((one.at for one in self.witnesses), default=0.0)

    def signals(self, seen: Mapping[Channel, Seen], now: float) -> Iterator[Signal]:
        """seen: what each eye saw before; one that saw something once and cannot any more says UNKNOWN."""
        if self.own is not None:
            yield from self._own(self.own, seen)
        yield from self._storage(seen, now)
        yield from self._self_fence(seen)
        yield from self._planes(seen, now)
        yield from self._dump(seen, now)

    def _own(self, own: HeardBeat, seen: Mapping[Channel, Seen]) -> Iterator[Signal]:
        beat, host = own.beat, self.host
        if own.refused or beat.leaving:
            yield Signal(host, AGENT, UNKNOWN, own.at, own.refused or "its agent was told to stop")
            return
        yield Signal(host, AGENT, UP, own.at, beat.boot, True)
        for service, channel in SERVICES:
            reading = beat.services.get(service, UNKNOWN)
            if channel in seen or reading is not UNKNOWN:
                yield from _if_new(seen, Signal(host, channel, reading, own.at))
        lost = ", ".join(sorted(name for name, one in beat.storages.items() if one is DOWN))
        if DISKS in seen or beat.storages:
            yield from _if_new(seen, Signal(host, DISKS, DOWN if lost else UP, own.at, lost))
        if HARDWARE in seen or beat.hardware:
            reading = DOWN if beat.hardware else UP
            yield from _if_new(seen, Signal(host, HARDWARE, reading, own.at, shown(beat.hardware)))

    def _storage(self, seen: Mapping[Channel, Seen], now: float) -> Iterator[Signal]:
        """It lives where one peer reads a record of it that moves; it has stopped where nobody who can read does."""
        stopped_at, doubt = 0.0, False
        for one in self.witnesses:
            for storage, read in one.beat.peers[self.host].storage.items():
                if read.still_s < self.still_s:
                    newest = max(self.records.values(), key=lambda record: record.moved_at)
                    yield Signal(self.host, STORAGE, UP, newest.moved_at, "", newest.lives)
                    return
                if one.at - one.reads.get(storage, one.at) >= self.still_s:
                    stopped_at = max(stopped_at, one.at)
                else:
                    doubt = True
        if stopped_at and not doubt:
            yield Signal(self.host, STORAGE, DOWN, stopped_at)
        elif self.records or STORAGE in seen:
            yield Signal(self.host, STORAGE, UNKNOWN, now)

    def _self_fence(self, seen: Mapping[Channel, Seen]) -> Iterator[Signal]:
        """All who read a record that promised it say that it stood still for that long, or nobody knows."""
        read = [
            (one.at, storage, beat)
            for one in self.witnesses
            for storage, beat in one.beat.peers[self.host].storage.items()
        ]
        promised = {storage for _, storage, beat in read if beat.self_fence_s}
        kept = [(at, beat) for at, storage, beat in read if storage in promised]
        if kept and all(_is_over(beat) for _, beat in kept):
            still_s, promise_s = min(beat.still_s for _, beat in kept), max(beat.self_fence_s for _, beat in kept)
            text = f"its record stood still for {still_s:.0f} s, and its watchdog fires within {promise_s:g} s"
            yield Signal(self.host, SELF_FENCE, DOWN, max(at for at, _ in kept), text)
        elif SELF_FENCE in seen:
            yield Signal(self.host, SELF_FENCE, UNKNOWN, self.told_at())

    def _planes(self, seen: Mapping[Channel, Seen], now: float) -> Iterator[Signal]:
        answered_at = 0.0
        for plane, channel in PLANES:
            said = [
                (one.beat.peers[self.host].planes[plane], one.at)
                for one in self.witnesses
                if plane not in one.blind and plane in one.beat.peers[self.host].planes
            ]
            up_at = max((at for reading, at in said if reading is UP), default=0.0)
            down = [at for reading, at in said if reading is DOWN]
            if up_at:
                answered_at = max(answered_at, up_at)
                yield Signal(self.host, channel, UP, up_at)
            elif len(down) >= 2 or (down and len(down) == len(said)):
                yield Signal(self.host, channel, DOWN, max(down))
            elif said or channel in seen:
                yield Signal(self.host, channel, UNKNOWN, now)
        if answered_at:
            yield Signal(self.host, Channel.MANAGEMENT, UP, answered_at - ANSWER_OLD_S, "", True)

    def _dump(self, seen: Mapping[Channel, Seen], now: float) -> Iterator[Signal]:
        """When its crash kernel was heard first and last by any of them. After a gap it is another dump."""
        said = [(one.at, dump) for one in self.witnesses if (dump := one.beat.peers[self.host].dump) is not None]
        first_at = min((at - dump.first_s for at, dump in said), default=now)
        old = seen.get(DUMP)
        gap_s = DUMP_HEARD_S if said else PANIC_KNOWN_S
        if old is not None and old.reading is UP and old.at + gap_s < first_at:
            yield Signal(self.host, DUMP, UNKNOWN, old.at + gap_s)
        if said:
            yield Signal(self.host, DUMP, UP, first_at)
            yield Signal(self.host, DUMP, UP, max(at - dump.last_s for at, dump in said))


def _is_over(read: StorageBeat) -> bool:
    """Its promise is due: the record stood still for as long as it said."""
    return 0.0 < read.self_fence_s <= read.still_s


def shown(complaints: Sequence[str]) -> str:
    """'' where there are none."""
    text = "; ".join(complaints[:COMPLAINTS_SHOWN])[:COMPLAINTS_LONG]
    more = len(complaints) - COMPLAINTS_SHOWN
    return f"{text}; {more} more" if more > 0 else text


def _if_new(seen: Mapping[Channel, Seen], signal: Signal) -> Iterator[Signal]:
    """What its agent says of its host counts while the agent is heard: said again it is no news."""
    old = seen.get(signal.channel)
    if old is None or (old.reading, old.detail) != (signal.reading, signal.detail):
        yield signal
