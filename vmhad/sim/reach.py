# SPDX-License-Identifier: Apache-2.0
"""One engine's way to the shared store: counted for the crash sweep, and cut when a story says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vmhad.ports import Compare, Store, Unanswered
from vmhad.sim.clock import Agenda
from vmhad.sim.life import Life


@dataclass
class StoreFaults:
    """down_until: nobody reaches the store. cut_off: engine -> until when it alone does not."""

    down_until: float = 0.0
    cut_off: dict[str, float] = field(default_factory=dict)


class ReachedStore:
    """ports.Store through a network that may be down."""

    def __init__(self, store: Store, faults: StoreFaults, agenda: Agenda, life: Life) -> None:
        self._store, self._faults, self._agenda, self._life = store, faults, agenda, life

    def get(self, key: str) -> bytes | None:
        self._reach()
        return self._store.get(key)

    def list(self, prefix: str) -> Mapping[str, bytes]:
        self._reach()
        return self._store.list(prefix)

    def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        self._reach()
        return self._store.commit(compares, puts, deletes)

    def revision(self, prefix: str) -> int:
        self._reach()
        return self._store.revision(prefix)

    def _reach(self) -> None:
        self._life.count_call()
        until = max(self._faults.down_until, self._faults.cut_off.get(self._life.name, 0.0))
        if self._agenda.now < until:
            raise Unanswered("the store cannot be reached")
