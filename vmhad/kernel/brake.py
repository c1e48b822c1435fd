# SPDX-License-Identifier: Apache-2.0
"""Why we do not act: what may forbid the first act of a fence. Beside it only a dump does (guards/hosts/fence.py).

Asked before an incident goes from SUSPECTED to FENCING, and before a STUCK one tries anew, but not in between: a fence
that was begun is completed. Every answer is a sentence for the operator; '' means go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from vmhad.kernel.incident import Incident, State
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Segment
from vmhad.kernel.verdict import Judgement, Verdict

BEING_HANDLED = (State.FENCING, State.RECOVERING, State.STUCK)


@dataclass(frozen=True)
class Scene:
    """The segment as the brake sees it, the same for all its incidents until the state of one changes.

    verdicts: of the hosts that are not HEALTHY, and of those with an incident. quiet: hosts whose nova-compute was not
    heard for policy.heartbeat_quiet_s, or whose agent is silent. back: hosts that were silent and are heard again.
    incidents: its open ones. old: hosts whose incident is older than policy.storm_window_s; none that is being fenced
    now. paused: host -> why, where an operator's pause covers it. fences: the cloud's open ones. It has no time of its
    own, so that it stays one value while nothing changes.
    """

    segment: Segment
    policy: Policy
    verdicts: Mapping[str, Verdict]
    quiet: frozenset[str]
    back: frozenset[str]
    incidents: tuple[Incident, ...]
    paused: Mapping[str, str]
    fences: frozenset[str]
    old: frozenset[str] = frozenset()

    @cached_property
    def dead(self) -> frozenset[str]:
        """Hosts seen dead, or fenced by us, in this storm; an old death that waits for its host is no part of it."""
        seen = {name for name, verdict in self.verdicts.items() if verdict.positive}
        handled = {one.host for one in self.incidents if one.state in BEING_HANDLED}
        return frozenset(seen | handled) - self.old

    @cached_property
    def silent(self) -> frozenset[str]:
        """Hosts not heard, that nothing says are dead. Nova calls them down one by one; they fell silent together."""
        judged = {name for name, verdict in self.verdicts.items() if verdict.judgement is Judgement.FAILED}
        return (self.quiet | judged) - {name for name, verdict in self.verdicts.items() if verdict.positive}

    @cached_property
    def stopped(self) -> frozenset[str]:
        """Hosts that their storage beats call dead, and not their power: what stopped those may be the storage."""
        return self.ever_stopped - self.old

    @cached_property
    def ever_stopped(self) -> frozenset[str]:
        """With those of an older storm: nobody has fenced them yet, so a canary counts them."""
        return frozenset(
            name for name, verdict in self.verdicts.items() if verdict.positive and not verdict.is_off
        )

    @cached_property
    def blind(self) -> int:
        return sum(verdict.judgement is Judgement.BLIND for verdict in self.verdicts.values())

    @cached_property
    def fencing(self) -> Mapping[str, str]:
        """Incident -> host, by the incidents' order."""
        return {one.id: one.host for one in self.incidents if one.state is State.FENCING}

    @cached_property
    def recovering(self) -> frozenset[str]:
        """The incidents whose recovery is open."""
        return frozenset(one.id for one in self.incidents if one.state in (State.FENCING, State.RECOVERING))


def brake(incident: Incident, scene: Scene) -> str:
    """'' or why this incident's fence must wait."""
    if incident.host in scene.paused:
        return scene.paused[incident.host]
    blind = "" if scene.verdicts[incident.host].positive else _blind(scene)
    return blind or _storm(incident, scene) or _limits(incident, scene)


def _blind(scene: Scene) -> str:
    if scene.blind > scene.policy.blind_share_max * len(scene.segment.hosts):
        return f"{scene.blind} of {len(scene.segment.hosts)} hosts cannot be judged: it is we who are blind"
    return ""


def _storm(incident: Incident, scene: Scene) -> str:
    """A death that was seen is held only by other deaths; one inferred from silence by every silence there is."""
    size = len(scene.segment.hosts)
    allowed = scene.policy.failed_share_max * size
    dead = scene.dead
    positive = scene.verdicts[incident.host].positive
    failing = dead | {incident.host} if positive else dead | scene.silent | {incident.host}
    if len(failing) > allowed and not (positive and len(failing) < size and _are_one_domain(failing, scene)):
        return f"{len(failing)} of {size} hosts failed at once, more than failed_share_max allows ({allowed:g})"
    if scene.verdicts[incident.host].is_off:
        return ""
    back = sorted(scene.back - {incident.host})
    if positive:
        # Of its own domain one may be back while it is dead; of another one it says that something wide is over.
        mine = _domain(scene, incident.host)
        back = [name for name in back if not mine or _domain(scene, name) != mine]
        held = _scattered(scene, incident.host)
        if held or not back:
            return held
    if back:
        return f"{back[0]} was silent too and is heard again: what silenced them may be over"
    return _silent_domains(scene, incident.host)


def _scattered(scene: Scene, host: str) -> str:
    """Storage beats that stop in one rack are its death; where they stop all over it is the storage, or we."""
    unheard = scene.stopped | scene.silent | {host}
    where = {_domain(scene, name) for name in unheard}
    if len(where) >= scene.policy.domain_silent_min:
        kind = scene.policy.domain_kind
        return f"{len(unheard)} hosts of {len(where)} {kind}s fell silent at once: the fault is ours, or the storage's"
    return ""


def _are_one_domain(hosts: frozenset[str], scene: Scene) -> bool:
    domains = {_domain(scene, name) for name in hosts}
    return len(domains) == 1 and "" not in domains


def _silent_domains(scene: Scene, host: str) -> str:
    """A silent host elsewhere, of another cause, does not make a dead switch a death. Where hosts fall silent all over,
    those whose storage beats stopped are among them; they say nothing of a switch."""
    silent, unheard = scene.silent, scene.silent | scene.stopped
    if len(unheard) < scene.policy.domain_silent_min:
        return ""
    kind = scene.policy.domain_kind
    where = {_domain(scene, name) for name in unheard}
    mine = _domain(scene, host)
    beside = sum(_domain(scene, name) == mine for name in silent | {host})
    if mine and beside >= scene.policy.domain_silent_min:
        return f"{beside} hosts of {kind} {mine} are silent with their power on: a dead switch looks so"
    if len(where) >= scene.policy.domain_silent_min:
        return f"{len(unheard)} hosts of {len(where)} {kind}s are silent at once with their power on: the fault is ours"
    return ""


def _limits(incident: Incident, scene: Scene) -> str:
    canary = next((host for other, host in scene.fencing.items() if other != incident.id), "")
    silent = scene.silent | scene.ever_stopped
    if canary and len(silent) >= scene.policy.canary_from_hosts and not scene.verdicts[incident.host].is_off:
        return f"{canary} is fenced first, as canary for {len(silent)} silent hosts"
    recovering = scene.recovering - {incident.id}
    if len(recovering) >= scene.policy.recoveries_max:
        return f"{len(recovering)} recoveries are open, as many as recoveries_max allows"
    if len(scene.fences - {incident.id}) >= scene.policy.fences_in_flight_max:
        return f"{len(scene.fences)} fences are in flight in this cloud, as many as fences_in_flight_max allows"
    return ""


def _domain(scene: Scene, host: str) -> str:
    return scene.segment.host(host).domains.get(scene.policy.domain_kind, "")
