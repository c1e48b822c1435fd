# SPDX-License-Identifier: Apache-2.0
"""All that one decision rests on, and all that it may answer: values only, so that it can be kept and replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vmhad.kernel.cloud import Inventory, Server
from vmhad.kernel.evidence import Evidence, Seen
from vmhad.kernel.incident import Event, Incident
from vmhad.kernel.policy import Policy
from vmhad.kernel.proof import Proof
from vmhad.kernel.step import Step
from vmhad.kernel.topology import Segment
from vmhad.kernel.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Case:
    """One incident with what is known about it.

    verdicts: of every host of the segment. proofs: of every host of the segment that has one which holds.
    busy_hosts: hosts with an open incident past suspicion. suspected_at: host with an open incident -> when it was
    opened. powers: host -> what its BMC said last (only while FENCING). elsewhere: the evacuations of the segment's
    other open incidents; idle: the incidents that go on with none of theirs; claimed: server id -> the incident that
    has it (all three only while FENCING or RECOVERING). fallen: VMs of this host that Nova switched off because their
    guests were gone. former: server id -> the state that an ended incident of the host wanted it in and could not
    bring about (only while RECOVERING). hold: '' or why the brake holds the first act of this incident's fence.
    orders: kinds of the operator's orders for it ("retry", "close").
    """

    incident: Incident
    steps: tuple[Step, ...]
    segment: Segment
    policy: Policy
    evidence: Evidence
    verdict: Verdict
    verdicts: Mapping[str, Verdict]
    proofs: Mapping[str, Proof]
    busy_hosts: frozenset[str]
    suspected_at: Mapping[str, float]
    powers: Mapping[str, Seen]
    elsewhere: tuple[Step, ...]
    claimed: Mapping[str, str]
    inventory: Inventory | None
    fallen: tuple[Server, ...] = ()
    idle: frozenset[str] = frozenset()
    former: Mapping[str, str] = field(default_factory=dict)
    hold: str = ""
    orders: frozenset[str] = frozenset()

    def step(self, step_id: str) -> Step | None:
        for step in self.steps:
            if step.id == step_id:
                return step
        return None


@dataclass(frozen=True, slots=True)
class Move:
    """What a guard wants next. event: the edge to take, if any. steps: new or changed ones.

    needs_inventory: plan nothing more before the cloud was read after this time; 0.0 when nothing is missing.
    wake_at: look again no later than this. stands_until: while nothing of the case changes but the time, the same is
    answered until then (0.0: it has to be asked every time).
    """

    because: str
    event: Event | None = None
    steps: tuple[Step, ...] = ()
    proof: Proof | None = None
    held: str = ""
    needs_inventory: float = 0.0
    wake_at: float = 0.0
    stands_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """The incident and its changed steps, to be committed together before anything is done.

    stands_until: as Move has it; 0.0 where this decision changed anything.
    """

    incident: Incident
    steps: tuple[Step, ...]
    because: str
    wake_at: float
    needs_inventory: float = 0.0
    stands_until: float = 0.0
