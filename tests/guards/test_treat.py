# SPDX-License-Identifier: Apache-2.0
"""What is asked of a VM again just before it is sent elsewhere, beside what stories tell."""

from dataclasses import replace

from vmhad.guards.hosts.treat import OPTED_OUT, refusal
from vmhad.kernel.case import Case
from vmhad.kernel.cloud import Server, ServerState
from vmhad.kernel.evidence import Evidence
from vmhad.kernel.incident import opened
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Host, Segment
from vmhad.kernel.verdict import Judgement, Verdict

DEAD = Verdict(Judgement.FAILED, "its power was read OFF twice", 1, positive=True, is_off=True)
CASE = Case(
    incident=opened("h1.1", "east", "h1", 1.0, DEAD.because),
    steps=(),
    segment=Segment("east", (Host("h1"), Host("h2"))),
    policy=Policy(),
    evidence=Evidence("h1"),
    verdict=DEAD,
    verdicts={"h1": DEAD},
    proofs={},
    busy_hosts=frozenset(),
    suspected_at={},
    powers={},
    elsewhere=(),
    claimed={},
    inventory=None,
)
SERVER = Server("s1", "web-1", "h1", ServerState.ACTIVE, volume_backed=True)


def test_an_owner_who_opts_out_meanwhile_is_heard() -> None:
    assert refusal(CASE, SERVER) == ""
    assert refusal(CASE, replace(SERVER, metadata={CASE.policy.opt_out_key: "False"})) == OPTED_OUT
