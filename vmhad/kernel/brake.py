# SPDX-License-Identifier: Apache-2.0
"""Why we do not act: the one place that may forbid the first act of a fence.

Asked before an incident goes from SUSPECTED to FENCING, and never later: a fence that was begun is completed. Every
answer is a sentence for the operator; '' means go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vmhad.kernel.incident import Incident, State
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Segment
from vmhad.kernel.verdict import Judgement, Verdict

BEING_HANDLED = (State.FENCING, State.RECOVERING, State.STUCK)


@dataclass(frozen=True, slots=True)
class Scene:
    """The segment as the brake sees it. incidents: its open ones. paused: '' or who paused it, until when and why.
    fences_elsewhere: open fences of all segments, by incident id."""

    segment: Segment
    policy: Policy
    verdicts: Mapping[str, Verdict]
    incidents: tuple[Incident, ...]
    paused: str
    fences: frozenset[str]


def brake(incident: Incident, scene: Scene) -> str:
    """'' or why this incident's fence must wait."""
    if scene.paused:
        return scene.paused
    return _blind(scene) or _storm(incident, scene) or _limits(incident, scene)


def failing_hosts(scene: Scene) -> tuple[str, ...]:
    """Hosts that are FAILED now or whose failure is still being handled."""
    handled = {one.host for one in scene.incidents if one.state in BEING_HANDLED}
    failed = {name for name, verdict in scene.verdicts.items() if verdict.judgement is Judgement.FAILED}
    rested = {one.host for one in scene.incidents if one.state in (State.RECOVERED, State.LIFTING)}
    return tuple(sorted(handled | failed - rested))


def _blind(scene: Scene) -> str:
    blind = [name for name, verdict in scene.verdicts.items() if verdict.judgement is Judgement.BLIND]
    if len(blind) > scene.policy.blind_share_max * len(scene.segment.hosts):
        return f"{len(blind)} of {len(scene.segment.hosts)} hosts cannot be seen at all: it is we who are blind"
    return ""


def _storm(incident: Incident, scene: Scene) -> str:
    failing = failing_hosts(scene)
    silent = [name for name in failing if not scene.verdicts[name].positive]
    size = len(scene.segment.hosts)
    allowed = scene.policy.failed_share_max * size
    domains = {_domain(scene, name) for name in failing}
    one_domain = len(domains) == 1 and "" not in domains
    if len(failing) > allowed and not (one_domain and not silent and len(failing) < size):
        return f"{len(failing)} of {size} hosts failed at once, more than failed_share_max allows ({allowed:g})"
    if scene.verdicts[incident.host].positive or len(silent) < scene.policy.domain_silent_min:
        return ""
    kind = scene.policy.domain_kind
    where = {_domain(scene, name) for name in silent}
    if len(where) == 1 and "" not in where:
        return (
            f"{len(silent)} hosts of {kind} {where.pop()} are silent with their power on: a dead switch looks like this"
        )
    if len(where) >= scene.policy.domain_silent_min:
        return f"{len(silent)} hosts of {len(where)} {kind}s are silent at once with their power on: the fault is ours"
    return ""


def _limits(incident: Incident, scene: Scene) -> str:
    fencing = [one for one in scene.incidents if one.state is State.FENCING]
    silent = [name for name in failing_hosts(scene) if not scene.verdicts[name].positive]
    if fencing and len(silent) >= scene.policy.canary_from_hosts and not scene.verdicts[incident.host].positive:
        return f"{fencing[0].host} is fenced first, as canary for {len(silent)} silent hosts"
    recovering = [one for one in scene.incidents if one.state in (State.FENCING, State.RECOVERING)]
    if len(recovering) >= scene.policy.recoveries_max:
        return f"{len(recovering)} recoveries are open, as many as recoveries_max allows"
    if len(scene.fences - {incident.id}) >= scene.policy.fences_in_flight_max:
        return f"{len(scene.fences)} fences are in flight in this cloud, as many as fences_in_flight_max allows"
    return ""


def _domain(scene: Scene, host: str) -> str:
    return scene.segment.host(host).domains.get(scene.policy.domain_kind, "")
