# SPDX-License-Identifier: Apache-2.0
"""Orders are asked for every two seconds in every segment: while there is nothing new, that reads no order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vmhad.journal.journal import Journal
from vmhad.kernel.order import Order, OrderKind
from vmhad.ports import Compare, Store
from vmhad.sim.store import MemoryStore


class Counted:
    """ports.Store that counts its listings."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.listings = 0

    def get(self, key: str) -> bytes | None:
        return self.store.get(key)

    def list(self, prefix: str) -> Mapping[str, bytes]:
        self.listings += 1
        return self.store.list(prefix)

    def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        return self.store.commit(compares, puts, deletes)

    def revision(self, prefix: str) -> int:
        return self.store.revision(prefix)


def test_orders_are_listed_only_after_a_change() -> None:
    store = Counted(MemoryStore())
    owner, operator = Journal(store), Journal(store.store)
    assert owner.orders("east") == owner.orders("east") == ()
    assert store.listings == 1
    order = Order("1", OrderKind.RETRY, "east", "h1")
    operator.put_order(order)
    operator.put_order(Order("2", OrderKind.RETRY, "west", "h9"))
    assert owner.orders("east") == owner.orders("east") == (order,)
    assert store.listings == 2
    operator.drop_order(order)
    assert owner.orders("east") == ()
