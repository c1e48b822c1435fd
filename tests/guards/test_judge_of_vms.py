# SPDX-License-Identifier: Apache-2.0
"""The table of VMs that fail alone is total, every row is reached, and its user comes first in all of it."""

from itertools import product

import pytest

from vmhad.guards.instances.judge import TABLE, Guest, Nova, Remedy, guest_of, is_left, judged, nova_of
from vmhad.kernel.beat import DISK_PAUSED, Domain, DomainState
from vmhad.kernel.cloud import Action, Server, ServerState, Standing
from vmhad.kernel.policy import OnFailure, Policy
from vmhad.kernel.verdict import Judgement

EVERY = list(product(Nova, Guest))
BY_NOVA, BY_USER = Action("r1", "stop", False), Action("r2", "stop", True)


def test_every_combination_has_a_row() -> None:
    assert {id(judged(*one)) for one in EVERY} == {id(row) for row in TABLE}


@pytest.mark.parametrize(("nova", "guest"), EVERY)
def test_only_what_failed_gets_a_remedy_and_may_be_left(nova: Nova, guest: Guest) -> None:
    row = judged(nova, guest)
    assert bool(row.remedy) == (row.judgement is Judgement.FAILED) == bool(row.policy)
    if row.policy:
        assert not is_left(Policy(**{row.policy: OnFailure.RESTART}), row)  # type: ignore[arg-type]
        assert is_left(Policy(**{row.policy: OnFailure.LEAVE}), row)  # type: ignore[arg-type]


@pytest.mark.parametrize(("nova", "guest"), EVERY)
def test_its_user_comes_first(nova: Nova, guest: Guest) -> None:
    if nova not in (Nova.ACTIVE, Nova.STOPPED_ITSELF) or guest in (Guest.SHUT_DOWN, Guest.PAUSED):
        assert judged(nova, guest).judgement is not Judgement.FAILED


@pytest.mark.parametrize("guest", Guest)
def test_what_runs_is_not_started_beside_itself(guest: Guest) -> None:
    row = judged(Nova.STOPPED_ITSELF, guest)
    there = guest in (Guest.RUNNING, Guest.PAUSED, Guest.FROZEN, Guest.DISK_PAUSED, Guest.UNRESPONSIVE)
    assert row.remedy is not Remedy.REBOOT and (row.judgement is Judgement.SUSPECT) == there


def standing(server: Server | None, *actions: Action) -> Standing:
    return Standing("vm", 1.0, server, actions)


@pytest.mark.parametrize(
    ("seen", "means"),
    [
        (None, Nova.UNREAD),
        (standing(None), Nova.GONE),
        (standing(Server("vm", "vm", "other", ServerState.ACTIVE)), Nova.ELSEWHERE),
        (standing(Server("vm", "vm", "h", ServerState.STOPPED, "powering-on"), BY_NOVA), Nova.BUSY),
        (standing(Server("vm", "vm", "h", ServerState.STOPPED), BY_NOVA, BY_USER), Nova.STOPPED_ITSELF),
        (standing(Server("vm", "vm", "h", ServerState.STOPPED), BY_USER, BY_NOVA), Nova.STOPPED),
        (standing(Server("vm", "vm", "h", ServerState.STOPPED), Action("r", "start", False)), Nova.STOPPED),
        (standing(Server("vm", "vm", "h", ServerState.STOPPED)), Nova.STOPPED),
        (standing(Server("vm", "vm", "h", ServerState.ACTIVE), BY_NOVA), Nova.ACTIVE),
        (standing(Server("vm", "vm", "h", ServerState.PAUSED)), Nova.OTHER),
        (standing(Server("vm", "vm", "h", ServerState.ERROR)), Nova.OTHER),
    ],
)
def test_what_nova_says(seen: Standing | None, means: Nova) -> None:
    assert nova_of(seen, "h") is means


def test_every_state_of_a_domain_means_something() -> None:
    assert {guest_of(Domain(state)).name for state in DomainState} == {state.name for state in DomainState}
    assert guest_of(None) is Guest.UNKNOWN
    assert guest_of(Domain(DomainState.CRASHED, "panicked")) is Guest.PANICKED
    assert guest_of(Domain(DomainState.SHUT_OFF, "shutdown")) is Guest.SHUT_DOWN
    assert guest_of(Domain(DomainState.FROZEN, f"{DISK_PAUSED} on vda")) is Guest.DISK_PAUSED
    assert guest_of(Domain(DomainState.FROZEN, "I/O error on vda")) is Guest.FROZEN
    assert guest_of(Domain(DomainState.PAUSED, DISK_PAUSED)) is Guest.PAUSED
