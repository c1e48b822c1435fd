# SPDX-License-Identifier: Apache-2.0
"""Rules of what is done to a host itself: in which state of its incident a step may begin, and when one that failed
again and again serves again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vmhad.guards.hosts.settle import AWAITS
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.sim import rules_of_storages

if TYPE_CHECKING:
    from vmhad.sim.ledger import Ledger


def of_start(at: Ledger, new: Step, incident: Incident) -> Iterator[str]:
    """A step of the host is STARTED, once more or for the first time."""
    state = incident.state
    may_begin = {
        Verb.POWER_OFF: rules_of_storages.is_fenced_still(incident),
        Verb.FORCE_DOWN: state is State.RECOVERING,
        Verb.CUT_STORAGE: state in rules_of_storages.CUTS_IN,
        Verb.RESTORE_STORAGE: state in rules_of_storages.RESTORES_IN,
    }
    if not may_begin.get(new.verb, True):
        yield f"{new.verb.value} is started while its incident is {state.value}"
    if new.verb is Verb.ENABLE:
        yield from _of_quarantine(at, incident)
    if new.verb is Verb.POWER_ON:
        yield from _of_those_who_need_it_off(at, incident)


def _of_those_who_need_it_off(at: Ledger, incident: Incident) -> Iterator[str]:
    """A request for a VM was left there, and would be carried out: the VM goes elsewhere first."""
    for one in at.steps.values():
        waits = one.verb is Verb.EVACUATE and one.state is StepState.PLANNED
        if waits and one.args.get(AWAITS) == incident.host and at.goes_on(at.incidents[one.incident]):
            yield f"it is switched on while {one.args['name']} waits for the proof that it is off"


def _of_quarantine(at: Ledger, incident: Incident) -> Iterator[str]:
    """Which fences count is told by when their incidents were opened, as the core does."""
    policy, now = at.policies[incident.segment], at.now
    mine = (one for one in at.incidents.values() if one.is_of_host and one.host == incident.host)
    since = now - policy.quarantine_window_s
    fences = sum(one.proof is not None and at.opened[one.id] > since for one in mine)
    taken_back = at.over_at.get(f"{incident.id}/{incident.round}/{Verb.LIFT_FENCE.value}", now)
    if policy.quarantine_fences and fences >= policy.quarantine_fences and now < taken_back + policy.quarantine_s:
        within = f"{fences} times within {policy.quarantine_window_s:g} s"
        yield f"it was fenced {within}, and receives VMs {now - taken_back:.0f} s after it was taken back"
