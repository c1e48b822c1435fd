# SPDX-License-Identifier: Apache-2.0
"""One engine's way to the shared store: counted for the crash sweep, and cut when a story says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vmhad.journal import keys
from vmhad.ports import Compare, Conflict, Unanswered
from vmhad.sim.clock import Agenda
from vmhad.sim.life import Life
from vmhad.sim.store import MemoryStore

# What tells a decision from a renewal.
DECIDED = (keys.ROOT + "incident/", keys.ROOT + "step/")


@dataclass
class StoreFaults:
    """down_until: nobody reaches the store. cut_off: engine -> until when it alone does not. deaf: engine -> until when
    its commits land, and it never hears that they did. late_s: engine -> how long its next decision is on its way."""

    down_until: float = 0.0
    cut_off: dict[str, float] = field(default_factory=dict)
    deaf: dict[str, float] = field(default_factory=dict)
    late_s: dict[str, float] = field(default_factory=dict)

    def mend(self) -> None:
        self.down_until = 0.0
        self.cut_off.clear()
        self.deaf.clear()
        self.late_s.clear()


class ReachedStore:
    """ports.Store through a network that may be down."""

    def __init__(self, store: MemoryStore, faults: StoreFaults, agenda: Agenda, life: Life) -> None:
        self._store, self._faults, self._agenda, self._life = store, faults, agenda, life

    def get(self, key: str) -> bytes | None:
        self._reach()
        return self._store.get(key)

    def list(self, prefix: str) -> Mapping[str, bytes]:
        self._reach()
        return self._store.list(prefix)

    def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        self._reach()
        if any(key.startswith(DECIDED) for key in puts) and (late_s := self._late_s()):
            self._agenda.after(late_s, lambda: self._land_late(compares, puts, deletes))
            raise Unanswered("the store did not answer in time")
        revision = self._land(compares, puts, deletes)
        if self._agenda.now < self._faults.deaf.get(self._life.name, 0.0):
            raise Unanswered("the store's answer was lost")
        return revision

    def _late_s(self) -> float:
        """How long this decision is on its way; 0.0 for one that lands at once. Its engine may stop just before it."""
        life = self._life
        if life.freeze_in_act is not None and life.freeze_in_act[0] == "commit":
            seconds, life.freeze_in_act = life.freeze_in_act[1], None
            life.freeze(seconds)
            return seconds
        return self._faults.late_s.pop(life.name, 0.0)

    def _land(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str]) -> int:
        self._store.writer = self._life.name
        try:
            return self._store.commit(compares, puts, deletes)
        finally:
            self._store.writer = ""

    def _land_late(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str]) -> None:
        """Nobody waits for it any more."""
        try:
            self._land(compares, puts, deletes)
        except Conflict:
            return

    def revision(self, prefix: str) -> int:
        self._reach()
        return self._store.revision(prefix)

    def _reach(self) -> None:
        self._life.count_call()
        until = max(self._faults.down_until, self._faults.cut_off.get(self._life.name, 0.0))
        if self._agenda.now < until:
            raise Unanswered("the store cannot be reached")
