# SPDX-License-Identifier: Apache-2.0
"""Ownership when the store is away, answers are lost and writes land late; and chaos over all of it."""

from __future__ import annotations

import random

import pytest
from contenders import LEASE_S, Engine, S, both, pair

from vmhad.engine.ownership import ACTING_SHARE
from vmhad.journal import keys
from vmhad.sim.store import MemoryStore


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
