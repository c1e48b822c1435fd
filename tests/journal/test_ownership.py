# SPDX-License-Identifier: Apache-2.0
"""Never two engines that may act for one segment, whatever stops, sleeps or loses answers; nor nobody for long."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from vmhad.engine.ownership import ACTING_SHARE, Ownership
from vmhad.journal import keys
from vmhad.journal.codec import JournalUnreadable
from vmhad.journal.journal import Change, EpochLost, Journal
from vmhad.kernel.incident import opened
from vmhad.ports import Compare, Conflict, Store, Unanswered
from vmhad.sim.store import MemoryStore

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


def test_a_free_segment_goes_to_the_one_that_should_have_it() -> None:
    store = MemoryStore()
    a, b = Engine(store, "a#1"), Engine(store, "b#1")
    a.ring.mine = set()
    a.renew()
    assert a.own.held() == {} and store.list(keys.SEGMENTS) == {}
    b.renew()
    assert b.own.held() == {S: 1}
    assert b.own.remaining_s(S) == pytest.approx(LEASE_S * ACTING_SHARE)
    assert b.own.remaining_s("other") == 0.0


def test_a_free_segment_that_the_ring_gives_nobody_is_taken_after_a_lease() -> None:
    a = Engine(MemoryStore(), "a#1")
    a.ring.mine = set()
    taken_after = 0.0
    while not a.own.held():
        a.renew()
        if not a.own.held():
            a.pass_s(STEP_S)
            taken_after += STEP_S
    assert taken_after == LEASE_S


def test_one_that_renews_keeps_its_segment(store: Store) -> None:
    a, b = pair(store)
    for _ in range(40):
        both(a, b, STEP_S)
        a.renew()
        b.renew()
        assert a.own.held() == {S: 1} and a.may_act and not b.own.held()
    assert a.own.remaining_s(S) == pytest.approx(LEASE_S * ACTING_SHARE)


def test_takeover_comes_after_a_full_lease_and_no_sooner(store: Store) -> None:
    a, b = pair(store)
    both(a, b, LEASE_S - 0.01)
    b.renew()
    assert b.own.held() == {}
    both(a, b, LEASE_S / 6)
    b.renew()
    assert b.own.held() == {S: 2}
    assert a.own.held() == {S: 1} and not a.may_act, "a was stopped; it knows nothing yet, and may do nothing"
    a.renew()
    assert a.own.held() == {} and b.may_act


def test_the_time_to_act_runs_out_before_anybody_may_take_over() -> None:
    """Like SIGSTOP: the clocks go on, nothing is renewed."""
    a, b = pair(MemoryStore())
    left, out_at, taken_at = a.own.remaining_s(S), 0.0, 0.0
    for tick in range(1, 200):
        both(a, b, 0.1)
        b.own.lost(S)  # lets it look at every tick
        b.renew()
        assert a.own.remaining_s(S) <= left
        left = a.own.remaining_s(S)
        if left == 0.0 and not out_at:
            out_at = tick * 0.1
        if b.own.held() and not taken_at:
            taken_at = tick * 0.1
    assert out_at == pytest.approx(LEASE_S * 2 / 3, abs=0.11)
    assert taken_at == pytest.approx(LEASE_S, abs=0.11)


def test_a_reading_that_took_long_does_not_shorten_the_lease() -> None:
    store = MemoryStore()
    a, b = Engine(store, "a#1"), Engine(store, "b#1")
    a.renew()
    b.way.clock, b.way.takes_s = b.clock, 4.0
    b.renew()
    b.way.takes_s = 0.0
    b.pass_s(LEASE_S - 4.0)
    b.renew()
    assert b.own.held() == {}, "counted from when the reading began"
    b.pass_s(4.0)
    b.renew()
    assert b.own.held() == {S: 2}


def test_against_the_ring_only_after_two_leases() -> None:
    a, b = pair(MemoryStore())
    b.ring.mine = set()
    b.pass_s(LEASE_S * 2 - 0.01)
    b.renew()
    assert b.own.held() == {}
    b.pass_s(STEP_S)
    b.renew()
    assert b.own.held() == {S: 2}


def test_of_many_contenders_one_wins(store: Store) -> None:
    dead = Engine(store, "dead#1")
    dead.renew()
    others = [Engine(store, f"e{number}#1", skew_s=number) for number in range(6)]
    for one in others:
        one.renew()
        one.pass_s(LEASE_S)
    threads = [threading.Thread(target=one.renew) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(one.own.held()) for one in others) == [0, 0, 0, 0, 0, 1]
    assert store.get(keys.epoch(S)) == b"2"


def test_the_stale_owners_commit_is_rejected(store: Store) -> None:
    a, b = pair(store)
    journal = Journal(store)
    journal.load(S)
    both(a, b, LEASE_S)
    b.renew()
    stale = a.own.held()[S]
    with pytest.raises(EpochLost):
        journal.commit(S, stale, Change((opened("h1.1", S, "h1", 1.0, "silent"),)))
    a.own.lost(S)
    assert a.own.held() == {} and a.own.remaining_s(S) == 0.0
    theirs = Journal(store)
    assert theirs.load(S).incidents == ()
    theirs.commit(S, b.own.held()[S], Change((opened("h1.1", S, "h1", 1.0, "silent"),)))


def test_waking_in_time_keeps_the_segment_and_waking_late_loses_it() -> None:
    a, b = pair(MemoryStore())
    both(a, b, LEASE_S * 0.9)
    assert not a.may_act
    a.renew()
    assert a.may_act and a.own.held() == {S: 1}
    b.renew()
    both(a, b, LEASE_S)
    b.renew()
    a.renew()
    assert b.own.held() == {S: 2} and not a.own.held() and not a.may_act


def test_release_hands_over_at_once_and_for_good(store: Store) -> None:
    a, b = pair(store)
    a.own.release()
    assert a.own.held() == {} and not a.may_act
    a.pass_s(STEP_S)
    a.renew()
    assert a.own.held() == {}, "one that stops does not take it back"
    b.pass_s(STEP_S)
    b.renew()
    assert b.own.held() == {S: 2}
    with pytest.raises(Conflict):
        store.commit([Compare(keys.epoch(S), b"1")], {"/vmhad/v1/x/y": b""})


def test_release_does_not_touch_what_another_took() -> None:
    a, b = pair(MemoryStore())
    both(a, b, LEASE_S)
    b.renew()
    a.own.release()
    b.pass_s(STEP_S)
    b.renew()
    assert b.own.held() == {S: 2} and b.may_act


def test_a_new_start_of_the_same_engine_waits_like_any_other() -> None:
    store = MemoryStore()
    Engine(store, "a#1").renew()
    again = Engine(store, "a#2")
    again.renew()
    assert again.own.held() == {}
    again.pass_s(LEASE_S)
    again.renew()
    assert again.own.held() == {S: 2}


def test_while_the_store_is_away_time_runs_out_and_it_comes_back() -> None:
    a, b = pair(MemoryStore())
    a.way.dead = b.way.dead = True
    both(a, b, LEASE_S * 3)
    assert not a.renew() and not b.renew()
    assert a.own.held() == {S: 1} and not a.may_act
    a.way.dead = b.way.dead = False
    assert a.renew() and a.may_act, "nobody took it: it goes on under its own epoch"
    assert b.renew() and not b.own.held()


def test_a_lost_answer_confirms_nothing_until_it_is_seen_to_have_landed() -> None:
    a, b = pair(MemoryStore())
    a.way.next = ["landed", "never"]
    both(a, b, 4.0)
    assert not a.renew()
    assert a.own.remaining_s(S) == pytest.approx(LEASE_S * ACTING_SHARE - 4.0), "not confirmed"
    both(a, b, 1.0)
    assert not a.renew()
    assert a.own.remaining_s(S) == pytest.approx(LEASE_S * ACTING_SHARE - 1.0), (
        "since it was sent, not since it was read"
    )
    both(a, b, 1.0)
    assert a.renew()
    assert a.own.held() == {S: 1} and a.own.remaining_s(S) == pytest.approx(LEASE_S * ACTING_SHARE)


def test_a_late_renewal_that_lands_between_reading_and_writing_is_our_own() -> None:
    store = MemoryStore()
    a = Engine(store, "a#1")
    a.renew()
    a.way.next = ["late"]
    a.pass_s(3.0)
    assert not a.renew()
    a.pass_s(1.0)
    landing = a.way.commit

    def overtaken(*arguments: object) -> int:
        if a.way.held:
            assert a.way.land()
        return landing(*arguments)  # type: ignore[arg-type]

    a.way.commit = overtaken  # type: ignore[method-assign,assignment]
    assert a.renew()
    assert a.own.held() == {S: 1} and a.own.remaining_s(S) == pytest.approx(LEASE_S * ACTING_SHARE)


def test_a_late_renewal_cannot_land_after_a_newer_one_or_a_takeover() -> None:
    a, b = pair(MemoryStore())
    a.way.next = ["late"]
    both(a, b, 3.0)
    a.renew()
    a.renew()
    assert not a.way.land()
    a.way.next = ["late"]
    b.renew()
    both(a, b, 3.0)
    a.renew()
    both(a, b, LEASE_S)
    b.renew()
    assert b.own.held() == {S: 2}
    assert not a.way.land()
    a.renew()
    assert a.own.held() == {} and b.own.held() == {S: 2}


@pytest.mark.parametrize("how", ["landed", "late"])
def test_a_lost_answer_at_takeover_is_found_out(how: str) -> None:
    a, b = pair(MemoryStore())
    both(a, b, LEASE_S)
    b.way.next = [how]
    assert not b.renew()
    assert b.own.held() == {} and not b.may_act
    if how == "late":
        assert b.way.land()
    b.pass_s(1.0)
    assert b.renew()
    assert b.own.held() == {S: 2} and b.own.remaining_s(S) == pytest.approx(LEASE_S * ACTING_SHARE)


def test_one_unreadable_segment_does_not_cost_the_others() -> None:
    store = MemoryStore()
    store.commit([], {keys.epoch("bad"): b"many"})
    a = Engine(store, "a#1", segments=("bad", S))
    a.ring.mine = {"bad", S}
    with pytest.raises(JournalUnreadable, match=keys.epoch("bad")):
        a.own.renew()
    assert a.own.held() == {S: 1}
    store.commit([], {keys.owner(S): b"garbage"})
    b = Engine(store, "b#1")
    b.renew()
    b.pass_s(LEASE_S - 0.1)
    b.renew()
    assert b.own.held() == {}, "an owner record that cannot be read is waited out"
    b.pass_s(STEP_S)
    b.renew()
    assert b.own.held() == {S: 2}


def test_renewals_are_paced_and_a_loss_is_looked_at_at_once() -> None:
    store = MemoryStore()
    a = Engine(store, "a#1")
    a.renew()
    revision = store.revision(keys.SEGMENTS)
    a.pass_s(STEP_S * 0.9)
    a.renew()
    assert store.revision(keys.SEGMENTS) == revision
    a.own.lost(S)
    assert not a.may_act
    a.renew()
    assert store.revision(keys.SEGMENTS) > revision
    assert a.own.held() == {S: 1} and a.may_act, "the record says that it is ours still"


def chaos(seed: int) -> int:
    """Engines with unequal clocks that stop, lose answers and meet late twins; returns how often the owner changed."""
    rng, store = random.Random(seed), MemoryStore()
    engines = [Engine(store, f"e{number}#1", skew_s=rng.uniform(-1e5, 1e5)) for number in range(3)]
    asleep = [0.0] * len(engines)
    for _ in range(400):
        passed = rng.uniform(0.1, 2.0)
        for index, one in enumerate(engines):
            one.pass_s(passed)
            asleep[index] -= passed
            if asleep[index] > 0.0:
                continue
            if rng.random() < 0.03:
                asleep[index] = rng.uniform(1.0, 3 * LEASE_S)
                continue
            one.ring.mine = {S} if rng.random() < 0.5 else set()
            one.way.next = [rng.choice(["landed", "late", "never", "", "", "", "", "", ""])]
            one.renew()
            if one.way.held and rng.random() < 0.3:
                one.way.land()
            acting = [each for each in engines if each.may_act]
            assert len(acting) <= 1, f"two may act (seed {seed})"
            if acting:
                assert store.get(keys.epoch(S)) == b"%d" % acting[0].own.held()[S], f"an old epoch (seed {seed})"
    return int(store.get(keys.epoch(S)) or b"0")


def test_never_two_that_may_act_under_chaos() -> None:
    changes = [chaos(seed) for seed in range(60)]
    assert min(changes) >= 1 and max(changes) > 3
