# SPDX-License-Identifier: Apache-2.0
"""When a host with an agent may be called dead although its power was not read OFF: worked out from the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vmhad.kernel.beat import Plane
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.policy import CutOff, SilentMeans
from vmhad.sim.agents import STORAGE_LOST_S, Agents

if TYPE_CHECKING:
    from vmhad.sim.ledger import Ledger

# How far an engine may be behind: a beat of a witness, and the look that tells it.
LATE_S = 1.5


def of_fence(at: Ledger, agents: Agents, new: Incident, was: State) -> Iterator[str]:
    """Nothing of it was heard or seen for long enough; or it panicked, and nobody has to wait for its dump any more;
    or it was cut off for so long that the policy gives it up. One that is tried again may just have come back."""
    agents.settle()
    agent, policy = agents.agents[new.host], at.policies[new.segment]
    silent_s = at.now - agent.heard_at
    if was is not State.SUSPECTED:
        if silent_s < policy.agent_suspect_s and at.now - agent.heard_from > 2 * LATE_S:
            yield f"its agent was heard {silent_s:.1f} s ago"
        return
    if (panic := agents.panic(new.host)) is not None and agents.datacentre.hosts[new.host].powered:
        written_s = min(at.now, panic.ended_at) - panic.began_at
        if panic.ended_at > at.now and written_s < policy.kdump_wait_s - LATE_S:
            yield f"it has written its dump for {written_s:.1f} s only"
        return
    given_up_s = policy.isolated_after_s - LATE_S
    if policy.isolated is CutOff.FENCE and silent_s >= given_up_s:
        return
    storage_s = min((at.now - written for _, _, written in agent.records.values()), default=silent_s)
    if policy.storage_lost is CutOff.FENCE and agent.records and storage_s >= given_up_s - STORAGE_LOST_S:
        return
    if agents.planes == (Plane.MANAGEMENT,) and not agent.storages and policy.silent_means is SilentMeans.HOLD:
        yield "it is seen on no second plane and no storage: dead and cut off look the same"
    if silent_s < policy.agent_failed_s - 0.1:
        yield f"its agent was heard {silent_s:.1f} s ago"
    seeing = [name for name, one in agents.agents.items() if new.host in one.watches and _speaks(at, agents, name)]
    if storage_s < policy.storage_still_s - 0.1 and seeing:
        yield f"it beat on the storage {storage_s:.1f} s ago"
    seen = [name for name in seeing if any(agents.answers(name, new.host, plane) for plane in agents.planes)]
    if seen and at.now - at.nova.datacentre.hosts[new.host].booted_at > LATE_S:
        yield f"{seen[0]} sees it"


def _speaks(at: Ledger, agents: Agents, name: str) -> bool:
    """It is heard, and was for long enough to be a witness."""
    agent = agents.agents[name]
    return agents.is_heard(name) and at.now - agent.heard_from > 2 * LATE_S and not agent.refused


def is_stopped(at: Ledger, agents: Agents, host: str) -> bool:
    """Its records stand still for long enough to be called so."""
    written = [moment for _, _, moment in agents.agents[host].records.values()]
    return bool(written) and at.now - max(written) >= at.policies[at.segment_of(host).name].storage_still_s
