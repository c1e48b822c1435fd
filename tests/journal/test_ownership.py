# SPDX-License-Identifier: Apache-2.0
"""Who owns a segment: never two that may act, whoever stops or sleeps; nor nobody for long."""

from __future__ import annotations

import threading

import pytest
from contenders import LEASE_S, STEP_S, Engine, S, both, pair

from vmhad.engine.ownership import ACTING_SHARE
from vmhad.journal import keys
from vmhad.journal.codec import JournalUnreadable
from vmhad.journal.journal import Change, EpochLost, Journal
from vmhad.kernel.incident import opened
from vmhad.ports import Compare, Conflict, Store
from vmhad.sim.store import MemoryStore


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
    a.pass_s(STEP_S * 0.4)
    a.renew()
    assert store.revision(keys.SEGMENTS) == revision
    a.pass_s(STEP_S * 0.5)
    a.renew()
    assert store.revision(keys.SEGMENTS) > revision, "a caller that comes a little early is served"
    revision = store.revision(keys.SEGMENTS)
    a.own.lost(S)
    assert not a.may_act
    a.renew()
    assert store.revision(keys.SEGMENTS) > revision
    assert a.own.held() == {S: 1} and a.may_act, "the record says that it is ours still"
