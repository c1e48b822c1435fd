# SPDX-License-Identifier: Apache-2.0
"""Engines that contend for a segment: each with a clock moved by hand, a ring, and a lossy way to one store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vmhad.engine.ownership import Ownership
from vmhad.ports import Compare, Conflict, Store, Unanswered

S = "s1"
LEASE_S = 15.0
STEP_S = LEASE_S / 6


class HandClock:
    """A clock that only the test moves."""

    def __init__(self, at: float = 1000.0) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def wait(self, timeout_s: float) -> None:
        self.at += timeout_s

    def wake(self) -> None:
        return None


@dataclass
class Ring:
    mine: set[str] = field(default_factory=lambda: {S})

    def beat(self) -> None:
        return None

    def should_own(self, segment: str) -> bool:
        return segment in self.mine


class Lossy:
    """One engine's way to the store. The next commits lose their answer: 'landed', 'late' (kept in held) or 'never'."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.next: list[str] = []
        self.dead = False
        self.held: list[tuple[Sequence[Compare], Mapping[str, bytes], Sequence[str]]] = []
        self.takes_s = 0.0
        self.clock: HandClock | None = None

    def get(self, key: str) -> bytes | None:
        return self._ask().get(key)

    def list(self, prefix: str) -> Mapping[str, bytes]:
        found = self._ask().list(prefix)
        if self.clock is not None:
            self.clock.at += self.takes_s
        return found

    def revision(self, prefix: str) -> int:
        return self._ask().revision(prefix)

    def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        how = self.next.pop(0) if self.next else ""
        if how == "late":
            self.held.append((compares, puts, deletes))
        if how in ("late", "never"):
            raise Unanswered("no answer")
        revision = self._ask().commit(compares, puts, deletes)
        if how == "landed":
            raise Unanswered("the answer was lost")
        return revision

    def land(self) -> bool:
        """The oldest late commit arrives; True if it was taken."""
        try:
            self.store.commit(*self.held.pop(0))
        except Conflict:
            return False
        return True

    def _ask(self) -> Store:
        if self.dead:
            raise Unanswered("the store is away")
        return self.store


class Engine:
    """One contender with its own clock (far from the others'), ring and way to the store."""

    def __init__(self, store: Store, name: str, skew_s: float = 0.0, segments: tuple[str, ...] = (S,)) -> None:
        self.clock, self.ring, self.way = HandClock(1000.0 + skew_s), Ring(), Lossy(store)
        self.own = Ownership(self.way, self.clock, name, segments, self.ring, LEASE_S)

    def pass_s(self, seconds: float) -> None:
        self.clock.at += seconds

    def renew(self) -> bool:
        """False if the store gave no answer."""
        try:
            self.own.renew()
        except Unanswered:
            return False
        return True

    @property
    def may_act(self) -> bool:
        return self.own.remaining_s(S) > 0.0


def pair(store: Store) -> tuple[Engine, Engine]:
    """a owns the segment; b has seen a's first record."""
    a, b = Engine(store, "a#1"), Engine(store, "b#1", skew_s=86400.0)
    a.renew()
    b.renew()
    assert a.own.held() == {S: 1} and b.own.held() == {}
    return a, b


def both(a: Engine, b: Engine, seconds: float) -> None:
    a.pass_s(seconds)
    b.pass_s(seconds)
