# SPDX-License-Identifier: Apache-2.0
"""Rules of who is recovered when, and in which failure domain, held against the journal and the truth.

Where the core may know less than the truth, or know it later, nothing is asked: a host that was not well for long, a
member of a group that was ever moved, room that somebody had lately.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vmhad.engine.gates import OLD_S
from vmhad.guards.hosts.order import AFTER, ORDER_GROUP, READY_AFTER_S, gate_of
from vmhad.guards.hosts.place import NO_ROOM
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.sim.datacentre import Bmc
from vmhad.sim.nova import HEARTBEAT_S, ServerRow
from vmhad.sim.records import GroupRow, MigrationRow
from vmhad.sim.vm_settings import settings_in

if TYPE_CHECKING:
    from vmhad.sim.ledger import Ledger

# A wait ends when a tick comes, and was counted from a stamp that was written in one.
LATE_S = 1.0
SAME_S = 0.001
WELL_FOR_S = 60.0


def of_start(at: Ledger, engine: str, new: Step, incident: Incident) -> Iterator[str]:
    yield from _of_order(at, engine, new, incident)
    yield from _of_priority(at, new, incident)
    yield from _of_domains(at, engine, new, incident)


def _of_order(at: Ledger, engine: str, new: Step, incident: Incident) -> Iterator[str]:
    """Only by the clock that its recovery began by: another one counts the limit from another time."""
    prover, proven_at = at.proven.get(incident.id, ("", 0.0))
    after = set(new.args.get(AFTER, "").split(",")) - {"", new.args.get(ORDER_GROUP, "")}
    limit_s = at.policies[incident.segment].order_wait_s
    if not after or prover != engine or at.now >= proven_at + limit_s - LATE_S:
        return
    for other in at.steps.values():
        theirs = at.incidents.get(other.incident)
        if other.verb is not Verb.EVACUATE or other.args.get(ORDER_GROUP) not in after or theirs is None:
            continue
        if theirs.segment == incident.segment and theirs.is_open and _is_awaited(at, other, theirs):
            group, name = other.args[ORDER_GROUP], other.args.get("name", other.subject)
            yield f"its evacuation is started before {name} of {group}, which it comes after, is ready"


def _is_awaited(at: Ledger, other: Step, theirs: Incident) -> bool:
    ready_s = float(other.args.get(READY_AFTER_S, "0"))
    if other.state is StepState.DONE:
        over_at = at.over_at.get(other.id, at.now)
        return at.now < over_at + ready_s - LATE_S or (bool(gate_of(other)) and _was_never_ready(at, other, over_at))
    return other.is_open and theirs.state in (State.RECOVERING, State.FENCING)


def _was_never_ready(at: Ledger, other: Step, over_at: float) -> bool:
    """Not since it arrived, nor for as long as what was seen may count. A gate is asked again only where nobody gave
    the VM up, and by an engine that knows of its arrival."""
    vm = at.nova.datacentre.vms.get(other.subject)
    is_given_up = any(one.subject == other.subject and one.state is StepState.FAILED for one in at.steps.values())
    if vm is None or other.subject not in at.nova.servers or is_given_up or vm.service.is_ready(at.now):
        return False
    return vm.service.unready_since <= max(over_at, at.now - OLD_S - LATE_S)


def _of_priority(at: Ledger, new: Step, incident: Incident) -> Iterator[str]:
    """Whoever was asked before and could not start says why, and this one took no room that would have done for it.
    Members of groups may wait for a newer reading without a word."""
    grouped = {member for group in at.nova.groups.values() for member in group.members}
    mine, policy = settings_in(at.nova, at.store, new.subject).priority, at.policies[incident.segment]
    for other in at.steps.values():
        is_rival = (other.verb, other.state, other.incident) == (Verb.EVACUATE, StepState.PLANNED, incident.id)
        row = at.nova.servers.get(other.subject)
        if not is_rival or row is None or row.id in grouped:
            continue
        was_unasked = not (other.attempt or other.because)
        found_none = other.attempt == 1 and other.because.startswith(NO_ROOM.because)
        if found_none and abs(other.not_before - policy.retry_backoff_s - new.started_at) < SAME_S:
            was_unasked = _fits(at, row, new.args.get("target", ""), {new.subject})
        if was_unasked and settings_in(at.nova, at.store, row.id).priority > mine:
            yield f"its evacuation is started before that of {row.name}, whose priority is higher"


def _of_domains(at: Ledger, engine: str, new: Step, incident: Incident) -> Iterator[str]:
    kind, row = at.policies[incident.segment].spread_over, at.nova.servers[new.subject]
    is_plain = new.attempt <= 1 and not new.args.get("failed_on") and not _moves(at, row.id)
    groups = [one for one in at.nova.groups.values() if one.policy.endswith("anti-affinity") and row.id in one.members]
    if not (kind and groups and is_plain) or _is_unsure(at, engine):
        return
    of_host = {host.name: host.domains.get(kind, "") for host in at.segment_of(incident.host).hosts}
    target = new.args.get("target", "")
    held, maybe = _homes(at, row, groups, incident)
    if not of_host.get(target) or of_host[target] not in {of_host.get(host) for host in held}:
        return
    full = {of_host.get(host, "") for host in maybe}
    for name in sorted(of_host):
        if name != target and of_host[name] and of_host[name] not in full and _could_go(at, row, name):
            yield f"its evacuation is started to {target}, in the {kind} of its group, and {name} has room in another"
            return


def _homes(at: Ledger, row: ServerRow, groups: list[GroupRow], incident: Incident) -> tuple[set[str], set[str]]:
    """Where members are for sure, and where any may be or come from."""
    going = {one.subject: one for one in at.open_steps.values() if one.verb is Verb.EVACUATE}
    held: set[str] = set()
    maybe: set[str] = set()
    for one in sorted({member for group in groups for member in group.members} - {row.id}):
        if one not in at.nova.servers:
            continue
        home, step = at.nova.servers[one].host, going.get(one)
        maybe |= {home} | {host for move in at.nova.migrations if move.server == one for host in _ends(move)}
        if step is not None:
            maybe.add(step.args.get("target", ""))
            if at.started[one][-1].at < at.now and at.goes_on(at.incidents[step.incident]):
                held.add(step.args.get("target", ""))
        elif not _moves(at, one) and not _has_incident(at, home):
            held.add(home)
    return held - {incident.host, ""}, maybe - {incident.host, ""}


def _ends(move: MigrationRow) -> tuple[str, str]:
    return move.source, move.target


def _moves(at: Ledger, server: str) -> bool:
    return any(move.server == server for move in at.nova.migrations)


def _has_incident(at: Ledger, host: str) -> bool:
    return any(one.is_open and one.host == host for one in at.incidents.values())


def _is_unsure(at: Ledger, engine: str) -> bool:
    """Its eyes are new, or Nova's were shut, or somebody's room was given back by a deletion."""
    is_new = at.now - at.sees_since(engine) < WELL_FOR_S or at.nova.heartbeats_lost_until > at.now - WELL_FOR_S
    return is_new or at.agents is not None or at.nova.wished.keys() != at.nova.servers.keys()


def _could_go(at: Ledger, row: ServerRow, name: str) -> bool:
    """It has been well for long, and has room."""
    truth, service = at.nova.datacentre.hosts[name], at.nova.services[name]
    well = truth.powered and truth.serves and truth.bmc is Bmc.OK and at.nova.is_up(name) and service.enabled
    well = well and not (service.barred_until or _has_incident(at, name) or at.nova.hidden_until.get(name, 0.0))
    since = max(truth.powered_at, service.heard_from)
    heard = at.now - service.last_seen <= HEARTBEAT_S + LATE_S
    return well and heard and at.now - since >= WELL_FOR_S and _fits(at, row, name, set())


def _fits(at: Ledger, row: ServerRow, name: str, without: set[str]) -> bool:
    """Beside all that the host ever had or will have, but for these."""
    truth = at.nova.datacentre.hosts[name]
    here = {server for server, host in at.nova.allocations if host == name}
    here |= {move.server for move in at.nova.migrations if name in _ends(move)}
    here |= {one.subject for one in at.open_steps.values() if one.args.get("target") == name}
    left = truth.vcpus - sum(at.nova.servers[one].vcpus for one in here - without if one in at.nova.servers)
    fits = left >= row.vcpus and (not row.needs or row.needs in truth.traits)
    mounted = at.nova.datacentre.mounted
    reached = all(name in mounted.get(one, {name}) for one in at.nova.datacentre.vms[row.id].disk.backends)
    return fits and reached and (not row.zone_pinned or truth.zone == at.nova.datacentre.hosts[row.host].zone)
