# SPDX-License-Identifier: Apache-2.0
"""What other engines stamped is placed by our clock: never older than it can be, and no newer than is known."""

from dataclasses import replace

import pytest

from vmhad.engine.book import Book
from vmhad.engine.eras import Eras, eras
from vmhad.engine.inheriting import loaded
from vmhad.journal.journal import SegmentRecord
from vmhad.kernel.exhibit import Owner
from vmhad.kernel.incident import Incident, State, Turn, opened, opened_of_service
from vmhad.kernel.policy import Policy
from vmhad.kernel.proof import Proof
from vmhad.kernel.step import Step, StepState, Verb

BEHIND = -3000.0
NOW = 10_000.0


def failed(at: float, *epochs: int) -> Incident:
    """Of a service, by engines that are 50 minutes behind. epochs: its owners', a minute apart."""
    began = at + BEHIND
    owners = tuple(Owner(epoch, f"e{epoch}", began + 60.0 * i) for i, epoch in enumerate(epochs))
    incident = opened_of_service("h", "libvirtd", "s", began, "it failed")
    turns = (*incident.turns, Turn(began + 3.0, State.CLOSED, "runs on h"))
    return replace(incident, state=State.CLOSED, owners=owners, turns=turns)


def restarted(incident: Incident, at: float, **changes: object) -> Step:
    ended = at + BEHIND
    told = {"state": StepState.DONE, "started_at": ended - 2.0, "acted_at": ended - 2.0, "ended_at": ended, **changes}
    step = Step(f"{incident.id}/restart_service", incident.id, Verb.RESTART_SERVICE, "h/libvirtd", acts=1)
    return replace(step, **told)  # type: ignore[arg-type]


def heir(*incidents: Incident, steps: tuple[Step, ...] = (), epoch: int = 6, now: float = NOW) -> Book:
    return loaded(SegmentRecord(incidents, steps), epoch, None, now)


def test_what_lies_between_two_stamps_of_one_epoch_has_passed() -> None:
    known = eras([failed(100.0, 5), failed(160.0, 5)], 6, NOW)
    assert known.lasted == {5: (100.0 + BEHIND, 163.0 + BEHIND)}
    assert known.latest(5, 163.0 + BEHIND) == NOW
    assert known.latest(5, 100.0 + BEHIND) == NOW - 63.0


def test_eras_are_laid_end_to_end() -> None:
    """However far apart their clocks are, and whatever lay between them."""
    known = Eras(7, NOW, {4: (50.0, 60.0), 5: (9000.0, 9020.0), 6: (1.0, 6.0)})
    assert [known.ended(epoch) for epoch in (6, 5, 4)] == [NOW, NOW - 5.0, NOW - 25.0]
    assert known.latest(4, 50.0) == NOW - 35.0


@pytest.mark.parametrize("ahead", [-86400.0, -3000.0, 0.0, 3000.0, 86400.0])
def test_the_clock_of_another_engine_changes_nothing(ahead: float) -> None:
    known = Eras(6, NOW, {5: (100.0 + ahead, 163.0 + ahead)})
    assert known.latest(5, 120.0 + ahead) == NOW - 43.0


def test_our_own_stamps_stand_as_they_are() -> None:
    assert Eras(6, NOW, {5: (0.0, 10.0)}).latest(6, 77.0) == 77.0


def test_a_stamp_that_is_newer_than_all_that_is_known_of_its_epoch_is_no_later_than_its_end() -> None:
    known = Eras(7, NOW, {5: (0.0, 10.0), 6: (500.0, 530.0)})
    assert known.latest(5, 25.0) == NOW - 30.0
    assert known.latest(3, 25.0) == NOW - 40.0


def test_an_heir_counts_restarts_until_they_can_be_no_younger_than_the_window() -> None:
    first, last = failed(100.0, 5), failed(160.0, 5)
    book = heir(first, last, steps=(restarted(first, 103.0), restarted(last, 163.0)))
    assert book.starts("h/libvirtd", NOW + 239.0, 300.0) == 2
    assert book.starts("h/libvirtd", NOW + 241.0, 300.0) == 1
    assert book.starts("h/libvirtd", NOW + 301.0, 300.0) == 0


def test_what_an_incident_of_several_owners_has_may_be_of_the_last() -> None:
    of_both = failed(100.0, 4, 5)
    book = heir(of_both, steps=(restarted(of_both, 103.0),))
    assert [one.ended_at for one in book.steps.values()] == [NOW]


def test_a_step_whose_incident_was_pruned_counts_as_new() -> None:
    book = heir(steps=(restarted(failed(100.0, 5), 103.0),))
    assert [one.ended_at for one in book.steps.values()] == [NOW]


def test_resumes_are_counted_by_when_they_can_have_been_sent() -> None:
    """When it was STARTED is held against turns of the same incident, and so stays."""
    incident = failed(100.0, 5)
    step = restarted(incident, 103.0, verb=Verb.RESUME, subject="vm")
    book = heir(incident, steps=(step,))
    assert book.resumes("vm", NOW + 1.0, 60.0) == 1
    assert next(iter(book.steps.values())).started_at == step.started_at


def test_a_time_that_is_not_there_yet_stays_so() -> None:
    incident = failed(100.0, 5)
    book = heir(incident, steps=(restarted(incident, 103.0, state=StepState.FAILED, acted_at=0.0),))
    assert [one.acted_at for one in book.steps.values()] == [0.0]


def test_what_was_placed_stays_so_over_a_reload() -> None:
    incident = failed(100.0, 5)
    record = SegmentRecord((incident,), (restarted(incident, 103.0),))
    book = loaded(record, 6, None, NOW)
    again = loaded(record, 6, book, NOW + 50.0)
    assert again.starts("h/libvirtd", NOW + 299.0, 300.0) == 1
    assert again.starts("h/libvirtd", NOW + 301.0, 300.0) == 0
    assert again.eras == book.eras


def test_an_heir_counts_fences_for_the_quarantine() -> None:
    incident = opened("h.1", "s", "h", 100.0 + BEHIND, "dead")
    fenced = replace(
        incident,
        state=State.CLOSED,
        owners=(Owner(5, "e5", 100.0 + BEHIND),),
        proof=Proof("h", "power_off", 110.0 + BEHIND, True, 1, ()),
    )
    policy, book = Policy(quarantine_window_s=600.0), heir(fenced)
    assert book.fences("h", policy, NOW + 599.0) == 1
    assert book.fences("h", policy, NOW + 601.0) == 0
