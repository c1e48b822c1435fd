# SPDX-License-Identifier: Apache-2.0
"""What a segment's book keeps over a reload, and what it must not believe of another engine's time."""

from dataclasses import replace

import pytest

from vmhad.engine.book import Book, worth_writing
from vmhad.engine.inheriting import carry_over, inherited, not_from_the_future, perhaps_sent
from vmhad.guards.hosts.lift import FELL_AGAIN
from vmhad.guards.services.recover import AGAIN
from vmhad.kernel.alone import OWNED
from vmhad.kernel.cloud import Fallen, Server, ServerState
from vmhad.kernel.incident import Event, Incident, State, opened, opened_of_service, opened_of_vm, turn
from vmhad.kernel.policy import Policy
from vmhad.kernel.proof import Proof, holds
from vmhad.kernel.step import Answer, Observation, Step, StepState, Verb


def proven(at: float) -> Incident:
    incident = turn(opened("h.1", "s", "h", 1.0, "dead"), Event.FAILED, 2.0, "dead")
    return replace(incident, proof=Proof("h", "power_off", at, True, incident.round, ()))


def evacuation(**changes: object) -> Step:
    step = Step("h.1/evacuate/vm", "h.1", Verb.EVACUATE, "vm", state=StepState.STARTED, attempt=1, started_at=50.0)
    return replace(step, **changes)  # type: ignore[arg-type]


def test_any_life_we_see_voids_another_engines_proof_whatever_its_clock_said() -> None:
    ahead = proven(at=9999.0)
    assert holds(ahead.proof, ahead.round, life_at=100.0)
    mine = inherited(ahead)
    assert holds(mine.proof, mine.round, life_at=0.0)
    assert not holds(mine.proof, mine.round, life_at=100.0)


def test_an_inherited_proof_stays_so_over_a_reload() -> None:
    old = Book(7, {"h.1": inherited(proven(at=9999.0))}, {})
    new = Book(7, {"h.1": proven(at=9999.0)}, {})
    carry_over(new, old)
    proof = new.incidents["h.1"].proof
    assert proof is not None and proof.at == 0.0


def test_a_step_of_another_engine_keeps_its_new_beginning_over_a_reload() -> None:
    """Its own is stamped by a clock that may be behind ours, and a deadline counted from it would be over at once."""
    old = Book(7, {}, {"h.1/evacuate/vm": perhaps_sent(evacuation(started_at=50.0), now=150.0)})
    new = Book(7, {}, {"h.1/evacuate/vm": evacuation(started_at=50.0)})
    carry_over(new, old)
    assert new.steps["h.1/evacuate/vm"].started_at == 150.0


def test_what_this_process_saw_and_did_survives_a_reload() -> None:
    seen = Observation(60.0, Answer.NOT_YET, "9 accepted", "on its way")
    old = Book(7, {}, {"h.1/evacuate/vm": evacuation(acts=1, acted_at=55.0, observed=(seen,))})
    new = Book(7, {}, {"h.1/evacuate/vm": evacuation()})
    carry_over(new, old)
    kept = new.steps["h.1/evacuate/vm"]
    assert (kept.acts, kept.acted_at, kept.observed) == (1, 55.0, (seen,))


def test_an_observation_of_another_attempt_is_not_carried_over() -> None:
    old = Book(7, {}, {"h.1/evacuate/vm": evacuation(acts=1, attempt=1)})
    new = Book(7, {}, {"h.1/evacuate/vm": evacuation(attempt=2)})
    carry_over(new, old)
    assert new.steps["h.1/evacuate/vm"].acts == 0


def test_a_started_evacuation_of_another_engine_counts_as_sent() -> None:
    assert perhaps_sent(evacuation(), now=100.0).acts == 1
    assert perhaps_sent(evacuation(verb=Verb.POWER_OFF), now=100.0).acts == 0


def test_times_from_the_future_of_our_clock_become_now() -> None:
    step = not_from_the_future(evacuation(started_at=5000.0, not_before=90000.0), now=100.0)
    assert step.started_at == 100.0
    assert step.not_before <= 100.0 + 600.0


def test_what_is_put_is_found_again_in_order() -> None:
    book = Book(7, {one: opened(one, "s", one[0], 1.0, "dead") for one in ("b.1", "a.1")}, {})
    assert [one.id for one in book.open_incidents()] == ["a.1", "b.1"]
    ended = turn(book.incidents["b.1"], Event.DISMISSED, 2.0, "lives")
    book.put([ended, opened("a.2", "s", "a", 3.0, "dead")], [evacuation(id="z", incident="a.1")])
    book.put(steps=[evacuation(id="y", incident="a.1"), evacuation(id="x", incident="b.1")])
    assert [one.id for one in book.open_incidents()] == ["a.1", "a.2"]
    assert [one.id for one in book.steps_of(book.incidents["a.1"])] == ["y", "z"]
    assert {one.id for one in book.evacuations()} == {"y", "z"}
    book.put(steps=[evacuation(id="y", incident="a.1", attempt=2)])
    assert [one.attempt for one in book.steps_of(book.incidents["a.1"])] == [2, 1]


def restored(number: int, source: str) -> Step:
    args = {"name": "vm", "state": "active", "source": source}
    step_id = f"h.{number}/restore_state/vm"
    return Step(step_id, f"h.{number}", Verb.RESTORE_STATE, "vm", args, StepState.DONE, ended_at=50.0)


def test_a_vm_that_falls_again_and_again_is_left_alone_but_not_for_having_been_evacuated() -> None:
    fallen = Fallen("h", (Server("vm", "vm", "h", ServerState.STOPPED),))
    for source, worth in (("", ()), ("other", fallen.servers)):
        book = Book(7, {}, {one.id: one for one in (restored(number, source) for number in range(3))})
        book.take_fallen(fallen)
        assert book.worth_starting("h", Policy(), now=100.0) == worth


def test_a_vm_that_failed_alone_stays_known_over_a_suspicion_of_its_host_that_was_over_at_once() -> None:
    """Its own incident was over with the first suspicion; nobody had looked for it again when the host died."""
    server = Server("vm", "vm", "h", ServerState.STOPPED)
    failed = turn(opened_of_vm(server, "s", 10.0, "gone"), Event.FAILED, 10.0, "gone")
    owned = turn(failed, Event.WITHDRAWN, 100.0, f"{OWNED}: h.99000")
    healed = turn(failed, Event.WITHDRAWN, 100.0, "over without us")
    for of_vm, opened_at, found in ((owned, 118.0, ("vm",)), (owned, 300.0, ()), (healed, 118.0, ())):
        book = Book(1, {of_vm.id: of_vm}, {})
        assert book.failed_alone(opened(f"h.{opened_at}", "s", "h", opened_at, "dead")) == found


def test_what_was_started_has_to_fall_anew() -> None:
    book = Book(7, {}, {})
    book.take_fallen(Fallen("h", tuple(Server(one, one, "h", ServerState.STOPPED) for one in ("vm", "other"))))
    book.started(restored(1, ""))
    assert [one.id for one in book.worth_starting("h", Policy(), now=100.0)] == ["other"]


def test_only_a_new_time_to_look_again_is_not_worth_writing() -> None:
    incident = proven(at=3.0)
    assert not worth_writing(incident, replace(incident, wake_at=99.0))
    for changes in ({"held": "why"}, {"proof": None}, {"round": 9}, {"because": "else"}, {"turns": ()}):
        assert worth_writing(incident, replace(incident, **changes))  # type: ignore[arg-type]


def test_the_end_of_a_services_incident_is_not_the_end_of_its_hosts() -> None:
    of_host = replace(opened("h.1", "s", "h", 1.0, "dead"), state=State.CLOSED, because=f"{FELL_AGAIN}: off")
    of_service = opened_of_service("h", "nova-compute", "s", 2.0, "it failed")
    book = Book(7, {"h.1": of_host}, {"h.1/evacuate/vm": evacuation()})
    assert set(book.in_want) == {"h"}
    book.put([of_service])
    book.put([replace(of_service, state=State.DISMISSED, because="it runs")])
    assert set(book.in_want["h"]) == {"vm"}


def restart(**changes: object) -> Step:
    step = Step("i/1", "h/nova-compute.1", Verb.RESTART_SERVICE, "h/nova-compute", {"known": "a"}, StepState.FAILED, 1)
    return replace(step, started_at=50.0, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "counts"),
    [
        (restart(), 0),
        (restart(acts=1, acted_at=51.0), 1),
        (restart(observed=(Observation(55.0, Answer.FAILED, AGAIN, "it was started and ended again"),)), 1),
        (restart(state=StepState.DONE, ended_at=55.0), 1),
        (restart(state=StepState.DONE, ended_at=9.0), 0),
        (restart(state=StepState.STARTED), 1),
    ],
)
def test_a_restart_of_a_service_that_nobody_learnt_of_counts_as_one(step: Step, counts: int) -> None:
    over = replace(opened_of_service("h", "nova-compute", "s", 0.001, "it failed"), state=State.DISMISSED)
    book = Book(7, {over.id: over}, {step.id: step})
    assert book.starts("h/nova-compute", now=100.0, window_s=60.0) == counts
