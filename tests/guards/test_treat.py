# SPDX-License-Identifier: Apache-2.0
"""What is asked of a VM again just before it is sent elsewhere, beside what stories tell."""

from dataclasses import replace

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
