# SPDX-License-Identifier: Apache-2.0
"""A storage that leaves the topology while a host is being cut off from it holds no fence up for ever."""

from dataclasses import replace

import pytest

from tests.guards.bare_cases import case_of
from vmhad.guards import hosts
from vmhad.guards.hosts import cut_storage
from vmhad.kernel.case import Case
from vmhad.kernel.incident import Event, opened, turn
from vmhad.kernel.policy import Policy
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.kernel.topology import Backend
from vmhad.kernel.verdict import Judgement, Verdict

CEPH = Backend("ceph", frozenset({"nova"}), frozenset({"h1"}))
DEAD = Verdict(Judgement.FAILED, "it is dead", 1)


def fencing(state: StepState, *backends: Backend) -> Case:
    incident = turn(opened("h1.1", "east", "h1", 1.0, "dead"), Event.FAILED, 2.0, "dead")
    args = {"backend": "ceph", "boot": ""}
    step = Step("h1.1/1/cut_storage/ceph", "h1.1", Verb.CUT_STORAGE, "h1", args, state, 1, 0, 2.0)
    bare = case_of(incident, DEAD, Policy())
    return replace(bare, steps=(step,), segment=replace(bare.segment, backends=backends))


@pytest.mark.parametrize("state", [StepState.STARTED, StepState.PLANNED])
@pytest.mark.parametrize("others", [(), (Backend("nfs", frozenset({"nova"}), frozenset({"h1"})),)])
def test_a_cut_of_a_storage_that_left_ends(state: StepState, others: tuple[Backend, ...]) -> None:
    case = fencing(state, *others)
    moved = {step.id: step for step in cut_storage.go_on(case, None, 3.0)}
    ended = moved["h1.1/1/cut_storage/ceph"]
    assert ended.state is StepState.FAILED
    # It may have landed: who would take it back is asked for it still.
    assert set(cut_storage.outstanding([ended])) == {"ceph"}
    after = replace(case, steps=(ended,))
    assert not cut_storage.is_open(after)
    assert ended.id not in {step.id for step in cut_storage.go_on(after, None, 4.0)}


def stuck(*backends: Backend) -> Case:
    case = fencing(StepState.FAILED, *backends)
    incident = turn(case.incident, Event.EXHAUSTED, 3.0, "no proof")
    return replace(case, incident=incident, orders=frozenset({"close"}))


def test_who_is_cut_off_from_what_left_is_closed_by_an_order() -> None:
    """Nobody could give it back, so the incident would stay for ever. While somebody can, it is not closed."""
    assert hosts.rest(stuck(), 4.0).event is Event.CLOSED
    assert hosts.rest(stuck(CEPH), 4.0).event is None


def test_what_left_is_not_read_before_the_host_is_used() -> None:
    assert cut_storage.unread_since(stuck(), 3.0) == []
    assert [one.args for one in cut_storage.unread_since(stuck(CEPH), 3.0)] == [{"backend": "ceph"}]


def test_a_cut_of_a_storage_that_is_there_goes_on() -> None:
    case = fencing(StepState.STARTED, CEPH)
    assert cut_storage.go_on(case, None, 3.0) == ()
