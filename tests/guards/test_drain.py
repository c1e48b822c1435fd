# SPDX-License-Identifier: Apache-2.0
"""What no story can show of a drain: what an engine left that died between the parts of one commit."""

from __future__ import annotations

from dataclasses import replace

from bare_cases import case_of

from vmhad.guards.hosts import drain
from vmhad.kernel.case import DrainCase
from vmhad.kernel.cloud import DRAIN_REASON
from vmhad.kernel.incident import State, opened_of_drain
from vmhad.kernel.policy import Drain, Policy
from vmhad.kernel.reconcile import reconcile
from vmhad.kernel.step import StepState, Verb
from vmhad.kernel.verdict import Ailment, Judgement, Verdict

NOW = 1000.0
AILS = Verdict(Judgement.DEGRADED, "its hardware complains: fan", 20, unfit=True, ailment=Ailment.HARDWARE)


def _case(state: State) -> DrainCase:
    incident = replace(opened_of_drain("east", "h1", NOW - 60.0, "fan"), state=state)
    return DrainCase(case_of(incident, AILS, Policy(drain=Drain.BOTH)))


def test_a_drain_of_which_only_the_incident_was_written_begins_anew() -> None:
    begun = reconcile(_case(State.SUSPECTED), drain, NOW)
    left = reconcile(_case(State.DRAINING), drain, NOW)
    assert left.incident.state is begun.incident.state is State.DRAINING
    assert left.steps == begun.steps
    (step,) = left.steps
    assert (step.verb, step.state, step.subject) == (Verb.DISABLE, StepState.STARTED, "h1")
    assert step.args["reason"].startswith(DRAIN_REASON)
