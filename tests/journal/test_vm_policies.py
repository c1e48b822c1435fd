# SPDX-License-Identifier: Apache-2.0
"""Policies of VMs in every store: one value, changed by compare-and-swap, so that nobody's change is lost unseen."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from vmhad.journal import keys
from vmhad.journal.change import PART_BYTES_MAX, Contended
from vmhad.journal.codec import JournalUnreadable
from vmhad.journal.policies import PolicyShelf, changed, created, deleted
from vmhad.kernel.policy import OnIoError
from vmhad.kernel.vm_policy import Match, Protect, Settings, VmPolicies, VmPolicy
from vmhad.ports import Compare, Refused, Store
from vmhad.sim.store import MemoryStore

FULL = VmPolicy(
    "databases – \u00fc",
    Match(project=("p1", "p2"), metadata={"role": ("db",), "tier": ("1", "2")}, group=("g",), tag=("x",)),
    Settings(Protect.FLAGGED, -5, "db", ("mq", "web"), 5.0, "port", False, True, 2, 60.0, on_io_error=OnIoError.RESUME),
)
REST = VmPolicy("rest", Match(), Settings(priority=-100))


def named(name: str, priority: int = 1) -> VmPolicy:
    """Each is for a server of its own, so that no two are a tie."""
    return VmPolicy(name, Match(server=(name,)), Settings(priority=priority))


def test_they_come_back_as_they_were_and_each_change_is_a_version(store: Store) -> None:
    mine, theirs = PolicyShelf(store), PolicyShelf(store)
    assert mine.newest() == VmPolicies()
    held = mine.replace(0, created(mine.newest(), FULL))
    assert held == theirs.newest() == VmPolicies(1, (FULL,))
    held = theirs.replace(1, created(held, REST))
    assert mine.newest() == held == VmPolicies(2, (FULL, REST))
    more = VmPolicy("rest", Match(), Settings(priority=7))
    held = mine.replace(2, changed(held, more))
    assert theirs.newest() == VmPolicies(3, (FULL, more))
    mine.replace(3, deleted(held, FULL.name))
    assert theirs.newest() == VmPolicies(4, (more,))
    mine.replace(4, ())
    assert theirs.newest() == VmPolicies(5, ())


def test_who_looked_at_another_version_is_told_so_and_changes_nothing(store: Store) -> None:
    mine, theirs = PolicyShelf(store), PolicyShelf(store)
    looked_at = mine.newest()
    theirs.replace(0, (REST,))
    with pytest.raises(Contended, match="at version 1 now, and this was made from version 0: look again"):
        mine.replace(looked_at.version, created(looked_at, FULL))
    for version in (0, 2, 99):
        with pytest.raises(Contended):
            mine.replace(version, ())
    assert mine.newest() == VmPolicies(1, (REST,))


def test_of_many_operators_at_once_each_change_counts_or_is_refused(store: Store) -> None:
    """Nobody's change is taken back by another's who did not see it."""
    begin, done, lost = threading.Barrier(5), [], []

    def operator(number: int) -> None:
        shelf = PolicyShelf(store)
        begin.wait()
        for turn in range(4):
            name = f"{number}-{turn}"
            try:
                shelf.replace(shelf.newest().version, created(shelf.newest(), named(name)))
                done.append(name)
            except Contended:
                lost.append(name)

    threads = [threading.Thread(target=operator, args=(number,)) for number in range(5)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    held = PolicyShelf(store).newest()
    assert sorted(one.name for one in held.policies) == sorted(done)
    assert held.version == len(done) and len(done) + len(lost) == 20 and done


def test_a_tie_that_two_operators_make_together_is_refused(store: Store) -> None:
    mine, theirs = PolicyShelf(store), PolicyShelf(store)
    gold, silver = (VmPolicy(tag, Match(tag=(tag,)), Settings(priority=n)) for n, tag in enumerate(("gold", "silver")))
    assert mine.newest() == theirs.newest()
    mine.replace(0, (gold,))
    with pytest.raises(Contended):
        theirs.replace(0, (silver,))
    with pytest.raises(Refused, match="'gold' and 'silver' are a tie"):
        theirs.replace(1, created(theirs.newest(), silver))
    assert theirs.newest() == VmPolicies(1, (gold,))


def test_a_name_is_taken_once_and_known_or_not() -> None:
    there = VmPolicies(3, (FULL, REST))
    with pytest.raises(Refused, match="there is a policy 'rest' already"):
        created(there, REST)
    for change in (lambda: changed(there, named("x")), lambda: deleted(there, "x")):
        with pytest.raises(Refused, match=f"there is no policy 'x'; there are: {FULL.name}, rest"):
            change()
    with pytest.raises(Refused, match="there are: none"):
        deleted(VmPolicies(), "x")


def test_too_many_for_one_value_are_refused_before_the_store_is_asked() -> None:
    many = [VmPolicy(f"p{n}", Match(server=("x" * 250, str(n))), Settings(priority=1)) for n in range(2000)]
    with pytest.raises(Refused, match=f"more than {PART_BYTES_MAX}"):
        PolicyShelf(MemoryStore()).replace(0, many)


def test_what_cannot_be_read_is_named_and_not_written_over() -> None:
    store = MemoryStore()
    store.commit([], {keys.vm_policies(): b"{"})
    for act in (PolicyShelf(store).newest, lambda: PolicyShelf(store).replace(0, ())):
        with pytest.raises(JournalUnreadable, match="/vmhad/v1/vm-policy/all"):
            act()
    assert store.get(keys.vm_policies()) == b"{"


class Counted:
    """A store that counts its reads."""

    def __init__(self, store: Store) -> None:
        self.store, self.reads = store, 0

    def get(self, key: str) -> bytes | None:
        self.reads += 1
        return self.store.get(key)

    def list(self, prefix: str) -> dict[str, bytes]:
        return dict(self.store.list(prefix))

    def commit(self, compares: Sequence[Compare], puts: dict[str, bytes], deletes: Sequence[str] = ()) -> int:
        return self.store.commit(compares, puts, deletes)

    def revision(self, prefix: str) -> int:
        return self.store.revision(prefix)


def test_they_are_read_only_after_a_change(store: Store) -> None:
    counted = Counted(store)
    engine = PolicyShelf(counted)  # type: ignore[arg-type]
    assert engine.newest() == engine.newest() == VmPolicies()
    assert counted.reads == 1
    PolicyShelf(store).replace(0, (REST,))
    store.commit([], {"/vmhad/v1/order/east/1": b"x"})
    assert engine.newest() == engine.newest() == VmPolicies(1, (REST,))
    assert counted.reads == 2
