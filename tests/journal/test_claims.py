# SPDX-License-Identifier: Apache-2.0
"""Claims of every kind in one commit: those that are read one by one, and those that are read among many."""

from __future__ import annotations

import pytest

from vmhad.journal import keys
from vmhad.journal.journal import Change, Journal
from vmhad.kernel.incident import Event, opened, turn
from vmhad.ports import Compare
from vmhad.sim.store import MemoryStore

S = "s1"
KINDS = (keys.open_host, keys.open_drain, keys.open_vm, lambda name: keys.open_service("h1", name))


@pytest.mark.parametrize("count", [1, 5])
def test_every_kind_of_claim_is_kept_and_released(count: int) -> None:
    store = MemoryStore()
    store.commit([Compare(keys.epoch(S), None)], {keys.epoch(S): b"1"})
    journal = Journal(store)
    journal.load(S)
    begun = opened("h1.1", S, "h1", 1.0, "silent")
    claims: dict[str, str | None] = {key(f"x{n}"): begun.id for key in KINDS for n in range(count)}
    for _ in range(2):
        journal.commit(S, 1, Change((begun,), claims=claims))
    assert set(store.list(keys.ROOT + "open/")) == set(claims)
    over = turn(begun, Event.DISMISSED, 3.0, "it was nothing")
    journal.commit(S, 1, Change((over,), claims=dict.fromkeys(claims)))
    assert not store.list(keys.ROOT + "open/")
