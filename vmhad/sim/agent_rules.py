# SPDX-License-Identifier: Apache-2.0
"""When a host with an agent may be called dead although its power was not read OFF: worked out from the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vmhad.kernel.incident import Incident
from vmhad.kernel.policy import CutOff
from vmhad.sim.agents import PLANES, STORAGE_LOST_S, Agents

if TYPE_CHECKING:
    from vmhad.sim.ledger import Ledger

# How far an engine may be behind: a beat of a witness, and the look that tells it.
LATE_S = 1.5


def of_fence(at: Ledger, agents: Agents, new: Incident) -> Iterator[str]:
    """Nothing of it was heard or seen for long enough; or it was cut off for so long that the policy gives it up."""
    agents.settle()
    agent, policy = agents.agents[new.host], at.policies[new.segment]
    silent_s = at.now - agent.heard_at
    given_up_s = policy.isolated_after_s - LATE_S
    if policy.isolated is CutOff.FENCE and silent_s >= given_up_s:
        return
    storage_s = min((at.now - written for _, _, written in agent.records.values()), default=silent_s)
    if policy.storage_lost is CutOff.FENCE and agent.records and storage_s >= given_up_s - STORAGE_LOST_S:
        return
    if silent_s < policy.agent_failed_s - 0.1:
        yield f"its agent was heard {silent_s:.1f} s ago"
    if storage_s < policy.storage_still_s - 0.1:
        yield f"it beat on the storage {storage_s:.1f} s ago"
    seeing = [name for name, one in agents.agents.items() if agents.is_heard(name) and new.host in one.watches]
    seen = [name for name in seeing if any(agents.answers(name, new.host, plane) for plane in PLANES)]
    if seen:
        yield f"{seen[0]} sees it"


def is_stopped(at: Ledger, agents: Agents, new: Incident) -> bool:
    """Its records stand still for long enough to be called so."""
    written = [moment for _, _, moment in agents.agents[new.host].records.values()]
    return bool(written) and at.now - max(written) >= at.policies[new.segment].storage_still_s
