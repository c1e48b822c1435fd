# SPDX-License-Identifier: Apache-2.0
"""A storage that leaves the topology while a host is being cut off from it holds no fence up for ever."""

from dataclasses import replace

import pytest

from tests.guards.bare_cases import case_of
from vmhad.guards.hosts import cut_storage
from vmhad.kernel.case import Case
from vmhad.kernel.incident import Event, opened, turn
from vmhad.kernel.policy import Policy
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.kernel.topology import Backend
from vmhad.kernel.verdict import Judgement, Verdict

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


def test_a_cut_of_a_storage_that_is_there_goes_on() -> None:
    case = fencing(StepState.STARTED, Backend("ceph", frozenset({"nova"}), frozenset({"h1"})))
    assert cut_storage.go_on(case, None, 3.0) == ()
