# SPDX-License-Identifier: Apache-2.0
"""Rules of single guards, each worked out from the journal's entries and the truth: ledger.py asks them.

They are what a mutant of safety is found by: where one guard is off and no VM came to harm yet, the rule is broken all
the same. Where the core's eyes may be behind the truth a rule gives them time, never more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from vmhad.journal import keys
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.policy import Policy
from vmhad.kernel.proof import CUT_STORAGE, POWER_OFF
from vmhad.kernel.signal import Reading
from vmhad.kernel.step import Step, Verb
from vmhad.kernel.topology import Segment
from vmhad.kernel.vm_resolve import policy_of
from vmhad.sim import agent_rules, rules_of_order, rules_of_storages
from vmhad.sim.compute import Post
from vmhad.sim.datacentre import Bmc, SimHost
from vmhad.sim.nova import HEARTBEAT_S, ServerRow
from vmhad.sim.power import look
from vmhad.sim.vm_settings import settings_in

if TYPE_CHECKING:
    from vmhad.sim.ledger import Ledger, Started

# How far the eyes may be behind the truth.
EYES_LATE_S = 15.0
# A reading is looked at when it begins and stamped when the reads before it in the same call have had their time.
STAMPED_LATE_S = 6.0
# The silence after which one that is heard again makes the others wait, and a heartbeat that may be missed in it.
SILENCE_S = 25.0 + HEARTBEAT_S
HIDDEN_S = 15.0
POLL_S = 6.5
HANDLED = (State.FENCING, State.RECOVERING, State.STUCK)


def of_commit(at: Ledger, puts: Mapping[str, bytes]) -> Iterator[str]:
    """What was decided later is never written over."""
    for key in puts:
        if key.startswith(keys.SEGMENTS) and key.endswith("/commits"):
            count, before = int(puts[key]), at.counts.get(key, 0)
            at.counts[key] = max(count, before)
            if count <= before:
                yield f"commit {count} of {key.split('/')[-2]} landed on top of commit {before}"


# A fence.


def of_fence(at: Ledger, engine: str, new: Incident, was: State) -> Iterator[str]:
    """Its first act, by no operator's order."""
    truth, policy = at.nova.datacentre.hosts[new.host], at.policies[new.segment]
    # A blip that its power went right after was read as OFF, too: then the two readings are one false and one true.
    tells = not truth.misleads and truth.off_at - truth.blips_until > STAMPED_LATE_S
    if at.agents is not None and at.now - at.agents.agents[new.host].heard_at > policy.agent_failed_s - 1.0:
        tells = False
    if was is State.SUSPECTED and not truth.powered and at.nova.is_up(new.host) and tells:
        if at.now - _gone_at(truth) < policy.readings_apart_s and not _is_dead_by_silence(at, new, was):
            yield f"its power went only {at.now - _gone_at(truth):.1f} s ago: that cannot have been read twice"
    just_on = at.now - truth.powered_at < EYES_LATE_S
    if not truth.powered or just_on or _misled(at, truth):
        return
    segment = at.segment_of(new.host)
    if at.sees_since(engine) > at.now - HIDDEN_S - POLL_S:
        return
    hidden = [one for one in segment.names if at.nova.hidden_until.get(one, 0.0) > at.now and _hidden_long(at, one)]
    unseen = [one for one in hidden if not _may_read_off(at, one) and not _has_an_agent(at, one)]
    if len(unseen) > policy.blind_share_max * len(segment.names):
        yield f"{len(unseen)} of {len(segment.names)} hosts cannot be judged"
    if at.agents is not None and agent_rules.is_stopped(at, at.agents, new.host):
        return
    for name in segment.names:
        row = at.nova.services[name]
        heard_s = at.now - row.heard_from
        listened = at.sees_since(engine) < row.heard_from - row.silent_s
        if name != new.host and row.silent_s > SILENCE_S and listened and EYES_LATE_S < heard_s:
            if heard_s < policy.back_grace_s - EYES_LATE_S and at.now - row.last_seen < 1.5 * HEARTBEAT_S:
                yield f"{name} was silent too and is heard again for {heard_s:.0f} s"


def of_storm(at: Ledger, new: Incident, segment: Segment, policy: Policy, others: Sequence[Incident]) -> Iterator[str]:
    """At least the hosts that are fenced or recovered already, and this one, count as failed."""
    failed = {one.host for one in others if one.state in HANDLED and at.is_of_storm(one, policy)} | {new.host}
    where = {segment.host(name).domains.get(policy.domain_kind, "") for name in failed}
    if len(failed) > policy.failed_share_max * len(segment.hosts) and (len(where) > 1 or "" in where):
        yield f"{len(failed)} of {len(segment.hosts)} hosts failed at once, over failed_share_max"


def _is_dead_by_silence(at: Ledger, new: Incident, was: State) -> bool:
    """Its agent and its peers call it dead, whatever became of its power a moment ago."""
    if at.agents is None or at.agents.bus_is_down:
        return False
    return not any(agent_rules.of_fence(at, at.agents, new, was))


def _gone_at(truth: SimHost) -> float:
    """Since when OFF was all that can have been read of it. Power that was back for less time than a look may take was
    seen by nobody, and what was read OFF before it is as true as what is read after."""
    was_seen_on = truth.off_at - truth.powered_at > STAMPED_LATE_S
    return truth.off_at if was_seen_on else truth.off_before_at


def of_one_cause(
    segment: Segment, policy: Policy, silent: Sequence[str], host: str, stopped: Collection[str]
) -> Iterator[str]:
    """A dead switch silences a whole domain, whoever else is silent; our own blindness silences hosts all over.
    stopped: whose record on the storage stands still, which no switch of the management plane does."""
    kind = policy.domain_kind
    domain = {name: segment.host(name).domains.get(kind, "") for name in (*silent, host)}
    mine = domain[host]
    beside = [name for name in silent if domain[name] == mine and name not in stopped]
    where = {domain[name] for name in silent}
    if mine and len(beside) >= policy.domain_silent_min and host not in stopped:
        yield f"{len(beside)} hosts of {kind} {mine} are silent with their power on"
    elif len(where) >= policy.domain_silent_min:
        yield f"{len(silent)} hosts of {len(where)} {kind}s are silent with their power on"


def _has_an_agent(at: Ledger, name: str) -> bool:
    """Its agent was heard lately, so it can be judged without Nova."""
    return at.agents is not None and at.now - at.agents.agents[name].heard_at < EYES_LATE_S


def _hidden_long(at: Ledger, name: str) -> bool:
    return at.now - at.nova.hidden_from.get(name, at.now) > HIDDEN_S + POLL_S


def _may_read_off(at: Ledger, name: str) -> bool:
    """An OFF judges a host that Nova does not show: now, or a while after its power or its BMC's ways changed."""
    truth = at.nova.datacentre.hosts[name]
    changed_at = max(truth.powered_at, truth.bmc_at, truth.misled_at)
    lately = at.was_seen_off(name) and at.now - changed_at < EYES_LATE_S or at.now - truth.blips_until < EYES_LATE_S
    return lately or look(at.nova.datacentre, name, 0.0)[0] is Reading.OFF


def _misled(at: Ledger, truth: SimHost) -> bool:
    return truth.misleads or truth.misled_at > 0.0 and at.now - truth.misled_at < 20.0


# The turns of an incident.


def of_turn(at: Ledger, engine: str, new: Incident) -> Iterator[str]:
    if new.state is State.RECOVERING and new.proof is not None:
        yield from of_proof(at, engine, new)
    if not new.is_open:
        yield from rules_of_storages.of_end(at, new)
    if new.state is State.LIFTING and at.now - at.nova.services[new.host].last_seen > 60.0 + EYES_LATE_S:
        has_agent = at.agents is not None and at.agents.is_heard(new.host)
        if at.sees_since(engine) < at.now - EYES_LATE_S and not has_agent:
            yield "it is taken back although it is not heard"


def of_proof(at: Ledger, engine: str, new: Incident, old: Incident | None = None) -> Iterator[str]:
    """Two readings, apart, after an act, and its power was really off at both. old: with the proof that it had before
    this better one."""
    assert new.proof is not None
    if new.proof.kind != POWER_OFF:
        held = old.proof.backends if old is not None and old.proof is not None and old.round == new.round else ()
        yield from rules_of_storages.of_proof(at, engine, new.proof, held)
        return
    truth, policy, seen = at.nova.datacentre.hosts[new.host], at.policies[new.segment], new.proof.observed
    if at.shot_at.get(new.host, 0.0) < at.fencing_since.get(new.id, 0.0):
        yield "it is recovered and no power_off was sent"
    if not seen or any(one.reading != Reading.OFF.value for one in seen):
        yield "it is recovered by readings that do not say OFF"
        return
    if seen[-1].at - seen[0].at < policy.readings_apart_s:
        yield f"it is recovered by readings {seen[-1].at - seen[0].at:.1f} s apart"
    first, last = (one.at - at.offset_s(engine) for one in (seen[0], seen[-1]))
    if _misled(at, truth) or truth.blips_until > first:
        return
    if truth.powered and truth.powered_at < last - STAMPED_LATE_S:
        yield "it is recovered while it has power"


# An evacuation.


def of_start(at: Ledger, engine: str, new: Step, incident: Incident) -> Iterator[str]:
    row, target = at.nova.servers.get(new.subject), new.args.get("target", "")
    truth = at.nova.datacentre.hosts[incident.host]
    if row is None or target not in at.nova.services:
        return
    yield from _of_vm(at, row, incident, target)
    if _seen_alive(at, engine, truth, incident):
        yield f"its evacuation is started although {incident.host} was seen to live after its proof"
    for other in at.incidents.values():
        here = other.segment == incident.segment and other.is_of_host
        if here and other.host == target and other.is_open and other.state in HANDLED:
            yield f"its evacuation is started to {target}, which is {other.state.value}"
    yield from _of_repeat(at, engine, new, target)
    for host in _failed_on_living(at, new.subject, {target, incident.host}):
        # Of one that cannot be read an older proof may hold: it is looked at before anything is sent.
        if look(at.nova.datacentre, host, 0.0)[0] is not Reading.UNKNOWN:
            yield f"its evacuation is started to {target} while {host}, where it failed, has power"
    yield from _of_groups(at, new, incident, target)
    yield from rules_of_order.of_start(at, engine, new, incident)


def of_end(at: Ledger, new: Step, incident: Incident) -> Iterator[str]:
    row = at.nova.servers.get(new.subject)
    if row is not None and row.host == incident.host:
        yield f"its evacuation is done, and it has not left {incident.host}"


def _of_vm(at: Ledger, row: ServerRow, incident: Incident, target: str) -> Iterator[str]:
    hosts, policy = at.nova.datacentre.hosts, at.policies[incident.segment]
    settings = settings_in(at.nova, at.store, row.id)
    if row.metadata.get(policy.opt_out_key, "").lower() == "false":
        yield "its evacuation is started although its owner opted out"
    if settings.why_left:
        yield f"its evacuation is started although {settings.why_left}"
    if incident.proof is not None and not incident.proof.is_whole and settings.storage_only_proof is False:
        yield "its evacuation is started by the proof of a cut, which a VM policy forbids"
    if row.local_disk and not policy.shared_ephemeral and not policy_of(policy, settings).rebuild_local_disks:
        yield "its evacuation is started although that loses its disk"
    if row.zone_pinned and hosts[target].zone != hosts[incident.host].zone:
        yield f"its evacuation is started to {target}, out of its zone"
    going = {one.subject for one in at.open_steps.values() if _goes(one, incident, target)}
    came = {move.server for move in at.nova.migrations if move.target == target}
    live_there = {one for one, host in at.nova.allocations if host == target} - came
    held = [at.nova.servers[one] for one in going | live_there if one in at.nova.servers]
    if sum(one.vcpus for one in held) > hosts[target].vcpus:
        yield f"its evacuation is started to {target}, which has no room for it"


def _goes(step: Step, incident: Incident, target: str) -> bool:
    return step.verb is Verb.EVACUATE and step.incident == incident.id and step.args.get("target") == target


def _seen_alive(at: Ledger, engine: str, truth: SimHost, incident: Incident) -> bool:
    """Its power read ON, which says nothing of what is cut off, or its nova-compute heard, and this engine has had the
    time to see it."""
    seen_until, since = at.now - EYES_LATE_S, at.sees_since(engine)
    is_cut_off = incident.proof is not None and incident.proof.kind == CUT_STORAGE
    if truth.powered and truth.bmc is Bmc.OK and not (is_cut_off or truth.bmc_silenced_by or _misled(at, truth)):
        if max(truth.powered_at, truth.bmc_at, truth.blips_until, since) < seen_until:
            return True
    if is_cut_off and at.agents is not None:
        # By a policy that gives up what lives and is isolated.
        return False
    row, (prover, proven_at) = at.nova.services[truth.name], at.proven.get(incident.id, ("", at.now))
    listened = prover == engine or row.last_seen > since + POLL_S
    return listened and row.last_seen > row.heard_from > proven_at and max(row.heard_from, since) < seen_until


def _of_repeat(at: Ledger, engine: str, new: Step, target: str) -> Iterator[str]:
    """What another engine had STARTED may still be on its way: only its own target may have it, unless that is off."""
    begun = [one for one in at.started.get(new.subject, []) if one.incident == new.incident]
    if len(begun) < 2:
        return
    last = begun[-2]
    known = any(move.server == new.subject and move.target == last.target for move in at.nova.migrations)
    told = at.concluded_by.get(new.subject) == last.engine
    if (
        last.engine != engine
        and last.target != target
        and not (known or told)
        and at.nova.datacentre.hosts[last.target].powered
    ):
        yield f"its evacuation is started to {target} while {last.engine}'s to {last.target} may be on its way"


def _failed_on(at: Ledger, server: str) -> set[str]:
    """Where evacuations of it failed since the last that landed, newest first. A host that read its request late, after
    the VM had arrived elsewhere, fails before it makes a copy; it may go by the very record of that arrival, which says
    «failed» then, but still from where the VM was before."""
    failed: set[str] = set()
    for move in reversed(at.nova.migrations):
        if move.server == server and move.status in ("done", "completed"):
            break
        if move.server == server and move.status == "failed" and move.source == at.nova.servers[server].host:
            failed.add(move.target)
    return failed


def _failed_on_living(at: Ledger, server: str, but: set[str]) -> Iterator[str]:
    """Those of them that hold a copy, and have had power for long enough to be seen."""
    held_by = {host for one, host in at.nova.copies if one == server}
    for host in sorted(_failed_on(at, server) & held_by - but):
        truth = at.nova.datacentre.hosts[host]
        if truth.powered and not _misled(at, truth) and at.now - truth.powered_at > EYES_LATE_S:
            yield host


def _of_groups(at: Ledger, new: Step, incident: Incident, target: str) -> Iterator[str]:
    going = {
        one.subject: one.args.get("target", "")
        for one in at.moving()
        if at.incidents[one.incident].segment == incident.segment
    }
    gone_on_with = {one.subject for one in at.open_steps.values() if at.goes_on(at.incidents[one.incident])}
    for group in at.nova.groups.values():
        if new.subject not in group.members:
            continue
        others = [one for one in group.members if one != new.subject and one in at.nova.servers]
        moving = sorted(one for one in others if one in going and one in gone_on_with)
        if group.policy == "anti-affinity" and moving:
            yield f"its evacuation is started while {moving[0]} of its anti-affinity group is on its way"
        if group.policy == "affinity":
            where = {going.get(one) or at.nova.servers[one].host for one in others} - {target, incident.host}
            if where:
                yield f"its evacuation is started to {target} while its affinity group is on {sorted(where)[0]}"


def of_meeting(at: Ledger, new: Step, target: str, moving: Sequence[Step]) -> Iterator[str]:
    """Whom the group's rule forbids to meet on the target, as Nova and the journal have them now."""
    going = {one.subject: one.args.get("target", "") for one in moving}
    for group in at.nova.groups.values():
        if new.subject not in group.members or group.policy != "anti-affinity":
            continue
        others = [one for one in group.members if one != new.subject and one in at.nova.servers]
        there = [one for one in others if target in (at.nova.servers[one].host, going.get(one))]
        if len(there) >= group.max_per_host:
            names = ", ".join(sorted(there))
            yield f"it is sent to {target}, where {names} of its anti-affinity group {group.id} is"


def of_post(at: Ledger, post: Post) -> Iterator[str]:
    """One attempt is one request, whoever sends it. A late one may be an earlier attempt's. What Nova refuses always
    changes nothing there, however often it is asked."""
    row = at.nova.servers.get(post.server)
    if row is not None and row.refused:
        return
    begun = at.started.get(post.server, [])
    own = [i for i in reversed(range(len(begun))) if not post.late or _is_of(begun[i], post)]
    if not own:
        return
    unsent = [i for i in own if (post.server, i) not in at.sent]
    index = unsent[0] if post.late and unsent else own[0]
    if (post.server, index) in at.sent:
        yield f"one attempt of its evacuation to {post.target} is sent twice"
    at.sent.add((post.server, index))
    incident = at.incidents.get(begun[index].incident)
    if incident is not None and not post.late:
        yield from rules_of_storages.of_post(at, incident, begun[index].at)
    living = () if row is None or post.late else _failed_on_living(at, post.server, {post.target, row.host})
    for host in living:
        yield f"its evacuation is sent to {post.target} while {host}, where it failed, has power"


def _is_of(begun: Started, post: Post) -> bool:
    return (begun.engine, begun.target) == (post.engine, post.target)
