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
    """The segment as the brake sees it. quiet: hosts whose nova-compute was not heard for policy.heartbeat_quiet_s.

    back: hosts that were silent and are heard again. incidents: its open ones.
    paused: why, or empty. fences: the cloud's open ones.
    """

    segment: Segment
    policy: Policy
    verdicts: Mapping[str, Verdict]
    quiet: frozenset[str]
    back: frozenset[str]
    incidents: tuple[Incident, ...]
    paused: str
    fences: frozenset[str]
    now: float


def brake(incident: Incident, scene: Scene) -> str:
    """'' or why this incident's fence must wait."""
    if scene.paused:
        return scene.paused
    blind = "" if scene.verdicts[incident.host].positive else _blind(scene)
    return blind or _storm(incident, scene) or _limits(incident, scene)


def _blind(scene: Scene) -> str:
    blind = [name for name, verdict in scene.verdicts.items() if verdict.judgement is Judgement.BLIND]
    if len(blind) > scene.policy.blind_share_max * len(scene.segment.hosts):
        return f"{len(blind)} of {len(scene.segment.hosts)} hosts cannot be judged: it is we who are blind"
    return ""


def _dead(scene: Scene) -> frozenset[str]:
    """Hosts seen dead, or fenced by us, in this storm; an old death that waits for its host is no part of it."""
    old = {one.host for one in scene.incidents if scene.now - one.opened_at > scene.policy.storm_window_s}
    seen = {name for name, verdict in scene.verdicts.items() if verdict.positive}
    handled = {one.host for one in scene.incidents if one.state in BEING_HANDLED}
    return frozenset(seen | handled) - old


def _silent(scene: Scene) -> frozenset[str]:
    """Hosts not heard, that nothing says are dead. Nova calls them down one by one; they fell silent together."""
    judged = {name for name, verdict in scene.verdicts.items() if verdict.judgement is Judgement.FAILED}
    return (scene.quiet | judged) - {name for name, verdict in scene.verdicts.items() if verdict.positive}


def _storm(incident: Incident, scene: Scene) -> str:
    """A death that was seen is held only by other deaths; one inferred from silence by every silence there is."""
    size = len(scene.segment.hosts)
    allowed = scene.policy.failed_share_max * size
    dead = _dead(scene)
    positive = scene.verdicts[incident.host].positive
    failing = dead | {incident.host} if positive else dead | _silent(scene) | {incident.host}
    domains = {_domain(scene, name) for name in failing}
    one_domain = positive and len(domains) == 1 and "" not in domains and len(failing) < size
    if len(failing) > allowed and not one_domain:
        return f"{len(failing)} of {size} hosts failed at once, more than failed_share_max allows ({allowed:g})"
    if positive:
        return ""
    back = sorted(scene.back - {incident.host})
    if back:
        return f"{back[0]} was silent too and is heard again: what silenced them may be over"
    return _silent_domains(scene)


def _silent_domains(scene: Scene) -> str:
    silent = _silent(scene)
    if len(silent) < scene.policy.domain_silent_min:
        return ""
    kind = scene.policy.domain_kind
    where = {_domain(scene, name) for name in silent}
    if len(where) == 1 and "" not in where:
        return f"{len(silent)} hosts of {kind} {where.pop()} are silent with their power on: a dead switch looks so"
    if len(where) >= scene.policy.domain_silent_min:
        return f"{len(silent)} hosts of {len(where)} {kind}s are silent at once with their power on: the fault is ours"
    return ""


def _limits(incident: Incident, scene: Scene) -> str:
    others = [one for one in scene.incidents if one.id != incident.id]
    fencing = [one for one in others if one.state is State.FENCING]
    silent = _silent(scene)
    if fencing and len(silent) >= scene.policy.canary_from_hosts and not scene.verdicts[incident.host].positive:
        return f"{fencing[0].host} is fenced first, as canary for {len(silent)} silent hosts"
    recovering = [one for one in others if one.state in (State.FENCING, State.RECOVERING)]
    if len(recovering) >= scene.policy.recoveries_max:
        return f"{len(recovering)} recoveries are open, as many as recoveries_max allows"
    if len(scene.fences - {incident.id}) >= scene.policy.fences_in_flight_max:
        return f"{len(scene.fences)} fences are in flight in this cloud, as many as fences_in_flight_max allows"
    return ""


def _domain(scene: Scene, host: str) -> str:
    return scene.segment.host(host).domains.get(scene.policy.domain_kind, "")
