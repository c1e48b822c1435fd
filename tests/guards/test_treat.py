# SPDX-License-Identifier: Apache-2.0
"""What is asked of a VM again just before it is sent elsewhere, beside what stories tell."""

from dataclasses import replace

import pytest
from bare_cases import case_of

from vmhad.guards.hosts.treat import refusal
from vmhad.kernel.cloud import OPTED_OUT, Server, ServerState
from vmhad.kernel.incident import opened
from vmhad.kernel.policy import Policy
from vmhad.kernel.verdict import Judgement, Verdict

DEAD = Verdict(Judgement.FAILED, "its power was read OFF twice", 1, positive=True, is_off=True)
CASE = case_of(opened("h1.1", "east", "h1", 1.0, DEAD.because), DEAD, Policy())
SERVER = Server("s1", "web-1", "h1", ServerState.ACTIVE, volume_backed=True)


def test_an_owner_who_opts_out_meanwhile_is_heard() -> None:
    assert refusal(CASE, SERVER) == ""
    assert refusal(CASE, replace(SERVER, metadata={CASE.policy.opt_out_key: "False"})) == OPTED_OUT


# What each state comes to, as doc/source/admin/recovery.rst has it: '' where it is evacuated, or the way out.
TREATMENTS = {
    ServerState.ACTIVE: "",
    ServerState.STOPPED: "",
    ServerState.ERROR: "",
    ServerState.PAUSED: "reset its state to active and order a retry",
    ServerState.SUSPENDED: "reset its state to active and order a retry",
    ServerState.RESCUED: "reset its state to active and order a retry",
    ServerState.RESIZED: "confirm or revert its resize",
    ServerState.BUILDING: "delete it and create it again",
    ServerState.SHELVED: "it can be unshelved when its host is back",
    ServerState.SHELVED_OFFLOADED: "Nova evacuates only",
    ServerState.OTHER: "Nova evacuates only",
}


@pytest.mark.parametrize("state", ServerState, ids=lambda one: one.value)
def test_each_state_is_treated_or_told_with_its_way_out(state: ServerState) -> None:
    why, expected = refusal(CASE, replace(SERVER, state=state)), TREATMENTS[state]
    assert (not why) == (not expected)
    assert expected in why and (not why or f"it is {state.value}" in why)


@pytest.mark.parametrize("task_state", ["", "rebuilding", "powering-off", "migrating"])
def test_a_task_that_died_with_its_host_holds_nothing_up(task_state: str) -> None:
    assert refusal(CASE, replace(SERVER, task_state=task_state)) == ""


def test_a_start_that_waits_for_its_dead_host_is_not_beaten_to_it() -> None:
    assert "would run twice" in refusal(CASE, replace(SERVER, state=ServerState.STOPPED, task_state="powering-on"))


def test_a_lock_of_its_user_is_no_reason() -> None:
    assert refusal(CASE, replace(SERVER, locked=True)) == ""


@pytest.mark.parametrize("policy", [Policy(shared_ephemeral=True), Policy(rebuild_local_disks=True)])
def test_a_local_disk_is_lost_unless_policy_says_otherwise(policy: Policy) -> None:
    local = replace(SERVER, volume_backed=False)
    assert "its disk died with the host" in refusal(CASE, local)
    assert refusal(replace(CASE, policy=policy), local) == ""
