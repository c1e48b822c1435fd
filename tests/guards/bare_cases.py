# SPDX-License-Identifier: Apache-2.0
"""Cases of a host of three, as bare as they can be."""

from vmhad.kernel.case import Case
from vmhad.kernel.evidence import Evidence
from vmhad.kernel.incident import Incident
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Host, Segment
from vmhad.kernel.verdict import Verdict


def case_of(incident: Incident, verdict: Verdict, policy: Policy) -> Case:
    """Of h1 beside h2 and h3, of which nothing else is known."""
    return Case(
        incident=incident,
        steps=(),
        segment=Segment("east", (Host("h1"), Host("h2"), Host("h3"))),
        policy=policy,
        evidence=Evidence("h1"),
        verdict=verdict,
        verdicts={"h1": verdict},
        proofs={},
        busy_hosts=frozenset(),
        suspected_at={},
        powers={},
        elsewhere=(),
        claimed={},
        inventory=None,
    )
