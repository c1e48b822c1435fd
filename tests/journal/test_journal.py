# SPDX-License-Identifier: Apache-2.0
"""What the journal promises: the epoch rules every part, a cut commit says rather too much, late twins cannot land."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from vmhad.journal import codec, keys
from vmhad.journal.change import parts
from vmhad.journal.codec import JournalUnreadable
from vmhad.journal.journal import Change, Contended, EpochLost, Journal
from vmhad.kernel.incident import Event, Incident, opened, turn
from vmhad.kernel.order import Order, OrderKind
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.ports import Compare, Conflict, Store, Unanswered
from vmhad.sim.store import MemoryStore

S = "s1"


def incident(name: str, at: float = 1.0, segment: str = S) -> Incident:
    return opened(name, segment, name.rpartition(".")[0] or name, at, "silent")


def fencing(name: str) -> Incident:
    return turn(incident(name), Event.FAILED, 2.0, "off")


def ended(name: str, at: float) -> Incident:
    return turn(incident(name, at - 1.0), Event.DISMISSED, at, "it was nothing")


def steps(incident_id: str, count: int, verb: Verb = Verb.EVACUATE) -> tuple[Step, ...]:
    return tuple(Step(f"{incident_id}.{n:03}", incident_id, verb, f"vm{n}", {"target": "h9"}) for n in range(count))


def take(store: Store, epoch: int, segment: str = S) -> None:
    """What a take-over writes, as far as the journal looks at it."""
    before = epoch - 1
    store.commit(
        [Compare(keys.epoch(segment), b"%d" % before if before else None)], {keys.epoch(segment): b"%d" % epoch}
    )


class Tap:
    """A store that is watched, and interfered with: before_commit(number) runs before the commit of that number."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.commits: list[tuple[Sequence[Compare], Mapping[str, bytes], Sequence[str]]] = []
        self.before_commit: Callable[[int], object] = lambda number: None
        self.held: list[Callable[[], int]] = []
        self.lose_next = ""

    def get(self, key: str) -> bytes | None:
        return self.store.get(key)

    def list(self, prefix: str) -> Mapping[str, bytes]:
        return self.store.list(prefix)

    def revision(self, prefix: str) -> int:
        return self.store.revision(prefix)

    def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        self.before_commit(len(self.commits))
        self.commits.append((compares, puts, deletes))
        how, self.lose_next = self.lose_next, ""
        if how == "late":
            self.held.append(lambda: self.store.commit(compares, puts, deletes))
            raise Unanswered("lost on the way")
        revision = self.store.commit(compares, puts, deletes)
        if how == "landed":
            raise Unanswered("the answer was lost")
        return revision


@pytest.fixture
def tap() -> Tap:
    tap = Tap(MemoryStore())
    take(tap.store, 1)
    return tap


def loaded(store: Store) -> Journal:
    journal = Journal(store)
    journal.load(S)
    return journal


def test_what_is_committed_is_loaded(store: Store) -> None:
    take(store, 1)
    journal = loaded(store)
    old, new = incident("h/2.1", 1.0), fencing("h1.1")
    new = replace(new, opened_at=5.0)
    change = Change((new, old), steps("h1.1", 2) + steps("h/2.1", 1), fences=(frozenset(), frozenset({"h1.1"})))
    journal.commit(S, 1, change)
    record = Journal(store).load(S)
    assert record.incidents == (old, new)
    assert record.steps == steps("h/2.1", 1) + steps("h1.1", 2)
    assert Journal(store).load("s").incidents == ()
    assert journal.fences() == {"h1.1"}


def test_the_epoch_rules(store: Store) -> None:
    take(store, 1)
    journal = loaded(store)
    take(store, 2)
    with pytest.raises(EpochLost, match="epoch 2"):
        journal.commit(S, 1, Change((incident("h1.1"),)))
    assert Journal(store).load(S).incidents == ()
    with pytest.raises(EpochLost):
        loaded(store).commit(S, 3, Change((incident("h1.1"),)))
    loaded(store).commit(S, 2, Change((incident("h1.1"),)))
    assert len(Journal(store).load(S).incidents) == 1


def test_a_segment_without_an_epoch_takes_nothing() -> None:
    with pytest.raises(EpochLost):
        loaded(MemoryStore()).commit(S, 1, Change((incident("h1.1"),)))


def test_one_transaction_up_to_a_hundred_operations(tap: Tap) -> None:
    loaded(tap).commit(S, 1, Change((incident("h1.1"),), steps("h1.1", 96)))
    loaded(tap).commit(S, 1, Change((incident("h1.1"),), steps("h1.1", 97)))
    sizes = [sum(map(len, commit)) for commit in tap.commits]
    assert sizes == [100, 100, 4]


def test_an_epoch_stolen_in_the_middle_of_250_steps(store: Store) -> None:
    tap = Tap(store)
    take(store, 1)
    journal = loaded(tap)
    tap.before_commit = lambda number: take(store, 2) if number == 1 else None
    with pytest.raises(EpochLost):
        journal.commit(S, 1, Change((fencing("h1.1"),), steps("h1.1", 250), {keys.open_host("h1"): "h1.1"}))
    record = Journal(store).load(S)
    assert record.incidents == (fencing("h1.1"),)
    assert 0 < len(record.steps) < 100
    assert all(Compare(keys.epoch(S), b"1") in compares for compares, _, _ in tap.commits)
    with pytest.raises(Contended, match="loaded"):
        journal.commit(S, 1, Change((incident("h2.1"),)))


def check_a_cut(stored: Mapping[str, bytes]) -> frozenset[str]:
    """What any reader may find in between; returns the budget."""
    known = {
        codec.decode(Incident, k, v).id: codec.decode(Incident, k, v) for k, v in stored.items() if "/incident/" in k
    }
    fences = codec.decode_names(keys.FENCES, stored[keys.FENCES])
    for key, raw in stored.items():
        if key.startswith(keys.steps(S)):
            step = codec.decode(Step, key, raw)
            assert step.incident in known
            assert step.verb is not Verb.POWER_OFF or "h1.1" in fences
    if not known["h0.1"].is_open:
        assert "h0.1" not in fences and b"h0.1" not in {v for k, v in stored.items() if "/open/" in k}
    if b"h0.1" in {v for k, v in stored.items() if "/open/" in k}:
        assert "h0.1" in fences, "the budget lets go last"
    assert "x" in fences and ("h0.1" in fences or "h1.1" in fences)
    return fences


def test_every_cut_of_a_split_commit_says_rather_too_much() -> None:
    """At no cut is a step without its incident, a power-off outside the budget, or an ended incident still holding."""
    over, fresh = ended("h0.1", 9.0), fencing("h1.1")
    power_off = Step("h1.1.off", "h1.1", Verb.POWER_OFF, "h1", state=StepState.STARTED)
    claims = {
        keys.open_host("h0"): None,
        keys.open_host("h1"): "h1.1",
        **{keys.open_vm(f"v{n}"): None for n in range(80)},
    }
    change = Change(
        (over, fresh, incident("h2.1")),
        (*steps("h2.1", 120), power_off, *steps("h0.1", 90)),
        claims,
        (frozenset({"h0.1", "x"}), frozenset({"h1.1", "x"})),
        (keys.order(S, "o1"),),
    )
    reached = -1
    for cut in range(20):
        tap = Tap(MemoryStore())
        take(tap.store, 1)
        before = {
            keys.open_host("h0"): b"h0.1",
            keys.order(S, "o1"): b"{}",
            keys.FENCES: codec.encode_names({"h0.1", "x"}),
        }
        before |= {keys.open_vm(f"v{n}"): b"h0.1" for n in range(80)}
        before[keys.incident(S, "h0.1")] = codec.encode(incident("h0.1"))
        tap.store.commit([], before)

        def die(number: int, cut: int = cut) -> None:
            if number == cut:
                raise Unanswered("the engine died here")

        tap.before_commit = die
        journal = loaded(tap)
        try:
            journal.commit(S, 1, change)
        except Unanswered:
            pass
        else:
            reached = cut
        stored = tap.store.list("/vmhad/v1/")
        fences = check_a_cut(stored)
        if reached >= 0:
            assert fences == {"h1.1", "x"} and keys.order(S, "o1") not in stored
            assert len([k for k in stored if k.startswith(keys.steps(S))]) == 211
            break
    assert reached > 3, "the change is meant to need several parts"


def test_a_started_power_off_and_its_budget_are_one_transaction() -> None:
    power_off = Step("h1.1.off", "h1.1", Verb.POWER_OFF, "h1", state=StepState.STARTED)
    change = Change((fencing("h1.1"),), (*steps("h2.1", 250), power_off), fences=(frozenset(), frozenset({"h1.1"})))
    first = {operation.key for operation in parts(S, change, {keys.FENCES: None})[0]}
    assert {keys.FENCES, keys.incident(S, "h1.1"), keys.step(S, "h1.1", "h1.1.off")} <= first


def test_large_values_are_split_below_the_stores_request_size(tap: Tap) -> None:
    big = tuple(replace(step, because="x" * 20_000) for step in steps("h1.1", 60))
    loaded(tap).commit(S, 1, Change((incident("h1.1"),), big))
    assert len(tap.commits) > 2
    assert all(sum(map(len, puts.values())) < 600_000 for _, puts, _ in tap.commits)


def test_claims_are_taken_kept_refused_and_released(store: Store) -> None:
    take(store, 1)
    take(store, 1, "s2")
    journal, vm = loaded(store), keys.open_vm("vm1")
    journal.commit(S, 1, Change((incident("h1.1"),), claims={vm: "h1.1"}))
    journal.commit(S, 1, Change((incident("h1.1"),), claims={vm: "h1.1"}))
    other = Journal(store)
    other.load("s2")
    with pytest.raises(Contended, match="h1.1") as caught:
        other.commit("s2", 1, Change((incident("h2.1", segment="s2"),), claims={vm: "h2.1"}))
    assert caught.value.subjects == (vm,)
    other.commit("s2", 1, Change((ended_in("s2"),), claims={vm: None}))
    assert store.get(vm) == b"h1.1", "who does not hold a claim cannot release it"
    journal.commit(S, 1, Change((ended("h1.1", 3.0),), claims={vm: None}))
    assert store.get(vm) is None
    other.load("s2")
    other.commit("s2", 1, Change((incident("h2.1", segment="s2"),), claims={vm: "h2.1"}))
    assert store.get(vm) == b"h2.1"


def ended_in(segment: str) -> Incident:
    return replace(ended("h2.1", 3.0), segment=segment)


def test_many_claims_are_read_by_listing(tap: Tap) -> None:
    claims: dict[str, str | None] = {keys.open_vm(f"v{n}"): "h1.1" for n in range(30)}
    tap.store.commit([], {keys.open_vm("v29"): b"h7.1"})
    with pytest.raises(Contended, match="v29"):
        loaded(tap).commit(S, 1, Change((incident("h1.1"),), claims=claims))
    del claims[keys.open_vm("v29")]
    loaded(tap).commit(S, 1, Change((incident("h1.1"),), claims=claims))
    assert sum(value == b"h1.1" for value in tap.store.list(keys.OPEN_VMS).values()) == 29


def test_a_claim_taken_between_reading_and_writing_is_contended(tap: Tap) -> None:
    vm = keys.open_vm("vm1")
    journal = loaded(tap)
    tap.before_commit = lambda number: tap.store.commit([], {vm: b"h7.1"})
    with pytest.raises(Contended) as caught:
        journal.commit(S, 1, Change((incident("h1.1"),), claims={vm: "h1.1"}))
    assert vm in caught.value.subjects
    assert Journal(tap).load(S).incidents == ()


def test_the_fence_budget_is_compared(store: Store) -> None:
    take(store, 1)
    take(store, 1, "s2")
    one, other = loaded(store), Journal(store)
    other.load("s2")
    seen = one.fences()
    assert seen == frozenset()
    one.commit(S, 1, Change((fencing("h1.1"),), fences=(seen, frozenset({"h1.1"}))))
    theirs = replace(fencing("h2.1"), segment="s2")
    with pytest.raises(Contended, match="budget"):
        other.commit("s2", 1, Change((theirs,), fences=(seen, frozenset({"h2.1"}))))
    assert other.load("s2").incidents == ()
    other.commit("s2", 1, Change((theirs,), fences=(one.fences(), frozenset({"h1.1", "h2.1"}))))
    one.commit(S, 1, Change(fences=(one.fences(), frozenset())))
    assert one.fences() == frozenset()
    one.commit(S, 1, Change(fences=(frozenset(), frozenset({"h3.1"}))))


def test_the_budget_moved_between_reading_and_writing(tap: Tap) -> None:
    journal = loaded(tap)
    tap.before_commit = lambda number: tap.store.commit([], {keys.FENCES: codec.encode_names({"h7.1"})})
    with pytest.raises(Contended):
        journal.commit(S, 1, Change((fencing("h1.1"),), fences=(frozenset(), frozenset({"h1.1"}))))
    assert journal.fences() == {"h7.1"} and journal.load(S).incidents == ()


def test_a_late_twin_does_not_land_on_what_was_decided_after_it(tap: Tap) -> None:
    journal = loaded(tap)
    first, second = incident("h1.1"), replace(incident("h1.1"), because="decided later")
    tap.lose_next = "late"
    with pytest.raises(Unanswered):
        journal.commit(S, 1, Change((first,)))
    assert journal.load(S).incidents == ()
    journal.commit(S, 1, Change((second,)))
    with pytest.raises(Conflict):
        tap.held[0]()
    assert journal.load(S).incidents == (second,)


def test_a_late_twin_that_lands_first_makes_the_next_commit_look_again(tap: Tap) -> None:
    journal = loaded(tap)
    tap.lose_next = "late"
    with pytest.raises(Unanswered):
        journal.commit(S, 1, Change((incident("h1.1"),)))
    journal.load(S)
    tap.held[0]()
    with pytest.raises(Contended):
        journal.commit(S, 1, Change((incident("h2.1"),)))
    assert [one.id for one in journal.load(S).incidents] == ["h1.1"]
    journal.commit(S, 1, Change((incident("h2.1"),)))


def test_after_a_lost_answer_the_journal_is_read_before_it_is_written(tap: Tap) -> None:
    journal = loaded(tap)
    tap.lose_next = "landed"
    with pytest.raises(Unanswered):
        journal.commit(S, 1, Change((incident("h1.1"),)))
    with pytest.raises(Contended, match="loaded"):
        journal.commit(S, 1, Change((incident("h2.1"),)))
    assert journal.load(S).incidents == (incident("h1.1"),)
    journal.commit(S, 1, Change((incident("h2.1"),)))


def test_a_change_that_contradicts_itself_is_refused(tap: Tap) -> None:
    wrong = [
        Change((incident("h1.1", segment="s2"),)),
        Change(claims={keys.open_vm("v"): None}),
        Change((incident("h1.1"),), deletes=(keys.incident(S, "h1.1"),)),
    ]
    for change in wrong:
        with pytest.raises(ValueError):
            loaded(tap).commit(S, 1, change)
    assert tap.commits == []


def test_an_unreadable_record_stops_the_load_and_is_named(tap: Tap) -> None:
    tap.store.commit([], {keys.incident(S, "h1.1"): b'{"id": "h1.1"}'})
    with pytest.raises(JournalUnreadable, match=keys.incident(S, "h1.1")):
        Journal(tap).load(S)


def test_orders(store: Store) -> None:
    take(store, 1)
    api, journal = Journal(store), loaded(store)
    pause = Order("o1", OrderKind.PAUSE, S, until=99.0, by="op", why="rack move")
    retry = Order("o/2", OrderKind.RETRY, S, host="h1", by="op")
    before = store.revision(keys.orders(S))
    api.put_order(pause)
    api.put_order(pause)
    api.put_order(retry)
    with pytest.raises(Contended, match="o1"):
        api.put_order(replace(pause, until=1.0))
    assert store.revision(keys.orders(S)) > before
    assert set(journal.orders(S)) == {pause, retry} and journal.orders("s2") == ()
    journal.commit(S, 1, Change(deletes=(keys.order(S, "o1"),)))
    assert journal.orders(S) == (retry,)
    api.drop_order(retry)
    assert journal.orders(S) == ()


def test_prune_by_age_and_count_with_their_steps(store: Store) -> None:
    take(store, 1)
    journal = loaded(store)
    old = tuple(ended(f"h1.{n}", 100.0 + n) for n in range(6))
    lone, running = ended("h2.1", 50.0), incident("h3.1", 1.0)
    made = sum((steps(one.id, 2) for one in (*old, lone, running)), ()) + steps("h1.0", 150)[2:]
    journal.commit(S, 1, Change((*old, lone, running), made))
    assert journal.prune(S, 200.0, keep_s=98.5, keep_count=3) == 3
    record = journal.load(S)
    assert {one.id for one in record.incidents} == {"h1.3", "h1.4", "h1.5", "h2.1", "h3.1"}
    assert {step.incident for step in record.steps} == {one.id for one in record.incidents}
    assert len(store.list(keys.steps(S))) == 10
    assert journal.prune(S, 1e6, keep_s=0.0, keep_count=0) == 2
    assert {one.id for one in journal.load(S).incidents} == {"h1.5", "h2.1", "h3.1"}, "the newest of a host stays"
    journal.commit(S, 1, Change((incident("h4.1"),)))


def test_prune_leaves_what_changed_since_it_was_read(tap: Tap) -> None:
    loaded(tap).commit(S, 1, Change((ended("h1.1", 1.0), ended("h1.2", 2.0)), steps("h1.1", 2)))
    again = incident("h1.1")
    tap.before_commit = lambda number: tap.store.commit([], {keys.incident(S, "h1.1"): codec.encode(again)})
    assert Journal(tap).prune(S, 1e6, keep_s=0.0, keep_count=0) == 0
    record = Journal(tap).load(S)
    assert again in record.incidents and len(record.steps) == 2
