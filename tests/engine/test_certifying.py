# SPDX-License-Identifier: Apache-2.0
"""What a commit keeps of its decisions: on what a start rests, what settles it, and that nothing waits for it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from math import nan

import pytest

from vmhad.engine.book import Book
from vmhad.engine.certifying import Certifying, Sealed
from vmhad.kernel.certificate_rules import broken
from vmhad.kernel.cloud import Inventory, Server, ServerState
from vmhad.kernel.evidence import Evidence
from vmhad.kernel.exhibit import FENCED, PROVEN, Act, Braked, Crowd, exhibit
from vmhad.kernel.incident import Event, Incident, opened, turn
from vmhad.kernel.policy import Policy
from vmhad.kernel.proof import Proof
from vmhad.kernel.step import Answer, Observation, Outcome, Step, StepState, Verb, record, start
from vmhad.kernel.topology import OF_NOVA, VOLUMES, Backend, Host, Segment
from vmhad.kernel.verdict import Judgement, Verdict

HOSTS = (Host("h1"), Host("h2"))
CLIENTS = frozenset({"h1", "h2"})
STORAGES = (
    Backend("ceph-a", frozenset({OF_NOVA, "cinder/gold"}), CLIENTS),
    Backend("nas-b", frozenset({VOLUMES}), CLIENTS),
    Backend("san-c", frozenset({"cinder/gold"}), frozenset({"h2"})),
)
SEGMENT = Segment("s", HOSTS, STORAGES)
NOBODY = Crowd(0)
BRAKED = Braked("", 2, NOBODY, NOBODY, NOBODY, NOBODY, 0, 0, 0)
DISKS = {"vm-1": (OF_NOVA,), "vm-2": (OF_NOVA, "cinder/silver"), "vm-3": ()}


def half_proven() -> Incident:
    """Cut off from ceph-a under epoch 7, at 20; of nas-b nothing is known."""
    incident = turn(opened("h1.1", "s", "h1", 10.0, "silent"), Event.FAILED, 11.0, "silent")
    seen = Observation(20.0, Answer.SO, "cut", "ceph-a takes nothing of h1")
    proof = Proof("h1", "cut_storage", 20.0, True, 1, (seen,), ("ceph-a",))
    dead = Verdict(Judgement.FAILED, "silent", 3)
    kept = exhibit(FENCED, 11.0, 7, 1, dead, Evidence("h1"), Policy())
    fenced = replace(kept, brake=BRAKED)
    act = Act("cut_storage", {"backend": "ceph-a"}, 1, 1, 15.0, (seen,))
    proven = replace(kept, kind=PROVEN, at=21.0, proof=proof, acts=(act,))
    recovering = turn(replace(incident, proof=proof), Event.PROVEN, 21.0, "cut off from ceph-a")
    return replace(recovering, exhibits=(fenced, proven))


def planned(vm: str) -> Step:
    return Step(f"h1.1/evacuate/{vm}", "h1.1", Verb.EVACUATE, vm, {"name": vm, "state": "active"})


def booked(incident: Incident, *steps: Step, epoch: int = 7) -> Book:
    book = Book(epoch, {incident.id: incident}, {one.id: one for one in steps})
    servers = tuple(Server(vm, vm, "h1", ServerState.ACTIVE, disks=disks) for vm, disks in DISKS.items())
    book.inventories["h1"] = Inventory("h1", 22.0, servers, (), (), {}, (), ())
    return book


def seal(book: Book, now: float, *steps: Step, incidents: tuple[Incident, ...] = ()) -> Sealed:
    current = {one.id: one for one in (*book.open_incidents(), *incidents)}
    sealed = Certifying("e1", {"s": SEGMENT}, Evidence).seal(book, current, incidents, steps, now)
    book.put(sealed.incidents, sealed.steps)
    return sealed


def started(book: Book, vm: str, now: float = 30.0) -> Step:
    step = start(planned(vm), now, {**planned(vm).args, "target": "h2", "proof_cuts": "h1/ceph-a"})
    (kept,) = seal(book, now, step).steps
    return kept


def arrives(book: Book, step: Step, now: float = 40.0) -> Sealed:
    seen = Observation(now, Answer.SO, "9 done", "on h2")
    book.take(Outcome(step.id, step.attempt, seen, acted=True, acted_at=31.0))
    done = replace(book.steps[step.id], state=StepState.DONE, ended_at=now, because="on h2")
    return seal(book, now, done)


def only(sealed: Sealed) -> dict[str, object]:
    ((raw,),) = [tuple(one.values()) for one in sealed.certificates.values()]
    told = json.loads(raw)
    assert isinstance(told, dict)
    return told


def test_of_a_half_proven_host_the_vm_that_is_covered_gets_one_that_holds() -> None:
    book = booked(half_proven(), planned("vm-1"), planned("vm-2"))
    step = started(book, "vm-1")
    assert step.begun is not None and step.begun.disks == {OF_NOVA: ("ceph-a",)}
    one = only(arrives(book, step))
    assert broken(one) == []
    assert book.steps["h1.1/evacuate/vm-2"].certified is None, "it waits, and nothing is told of it"


@pytest.mark.parametrize(
    ("vm", "why"),
    [("vm-2", "its disk cinder/silver is on nas-b, from which h1 is not proven"), ("vm-3", "nobody knows where")],
)
def test_had_one_been_started_that_is_not_covered_its_certificate_would_say_so(vm: str, why: str) -> None:
    book = booked(half_proven(), planned(vm))
    (said,) = broken(only(arrives(book, started(book, vm))))
    assert why in said


def test_an_heir_that_settles_is_one_of_two_owners() -> None:
    book = booked(half_proven(), planned("vm-1"))
    step = started(book, "vm-1")
    heir = booked(book.incidents["h1.1"], step, epoch=8)
    one = only(arrives(heir, step))
    assert [owner["epoch"] for owner in one["owners"]] == [7, 8]  # type: ignore[attr-defined]
    assert broken(one) == []


def test_what_left_by_itself_and_what_was_never_sent_have_none() -> None:
    book = booked(half_proven(), planned("vm-1"))
    gone = replace(planned("vm-1"), state=StepState.DONE, because="gone: it left the host")
    assert seal(book, 30.0, gone).certificates == {}
    book = booked(half_proven(), planned("vm-1"))
    unsent = replace(started(book, "vm-1"), state=StepState.PLANNED, because="its proof did not hold")
    assert seal(book, 31.0, unsent).certificates == {}


def test_what_nobody_settles_is_told_when_the_incident_ends() -> None:
    book = booked(half_proven(), planned("vm-1"))
    step = started(book, "vm-1")
    book.take(Outcome(step.id, 1, Observation(32.0, Answer.NOT_YET, "9 accepted", "under way"), True, 31.0))
    ended = book.incidents["h1.1"]
    for event in (Event.EXHAUSTED, Event.CLOSED):
        ended = turn(ended, event, 50.0, "by order")
    one = only(seal(book, 50.0, incidents=(ended,)))
    assert one["result"]["word"] == "unsettled"  # type: ignore[index]
    assert broken(one) == []


def test_after_eight_failures_their_number_is_kept_and_the_arrival_is_told() -> None:
    book = booked(half_proven(), planned("vm-1"))
    step, told = started(book, "vm-1"), []
    for n in range(12):
        sent = Outcome(step.id, step.attempt, Observation(31.0 + n, Answer.FAILED, "9 error", "no"), True, 31.0 + n)
        failed = replace(record(step, sent), state=StepState.PLANNED, because="no")
        book.put(steps=[record(step, sent)])
        told.append(len(seal(book, 31.0 + n, failed).certificates))
        (step,) = seal(book, 31.5 + n, start(book.steps[step.id], 31.5 + n)).steps
    assert told == [1] * 8 + [0] * 4
    one = only(arrives(book, step, 60.0))
    assert (one["number"], one["failures_unwritten"]) == (9, 4)


def test_nothing_waits_for_a_certificate_that_cannot_be_built(caplog: pytest.LogCaptureFixture) -> None:
    book = booked(half_proven(), planned("vm-1"))
    step = started(book, "vm-1")
    with caplog.at_level(logging.ERROR):
        sealed = arrives(book, replace(step, started_at=nan), now=nan)
    (settled,) = sealed.steps
    assert settled.state is StepState.DONE and settled.certified is None
    assert "gets no certificate" in caplog.text


def test_an_earlier_attempt_keeps_what_it_saw() -> None:
    failed = Outcome("h1.1/evacuate/vm-1", 1, Observation(2.0, Answer.FAILED, "", "no"))
    step = record(start(planned("vm-1"), 1.0), failed)
    for at in (3.0, 5.0, 7.0, 9.0, 11.0):
        step = start(replace(step, state=StepState.FAILED, because="no"), at)
    assert [one.started_at for one in step.past] == [1.0, 5.0, 7.0, 9.0]
    assert step.past[0].observed[0].text == "no" and step.observed == ()
