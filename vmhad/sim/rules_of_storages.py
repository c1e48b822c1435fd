# SPDX-License-Identifier: Apache-2.0
"""Rules of storages that are cut off and given back, each worked out from the journal's entries and the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vmhad.kernel.incident import Incident, State
from vmhad.kernel.proof import CUT_STORAGE, SELF_FENCED, WORD, Proof
from vmhad.kernel.step import Step, Verb
from vmhad.sim.datacentre import Bmc, SimHost
from vmhad.sim.nova import HEARTBEAT_S
from vmhad.sim.storage import CutOrder

if TYPE_CHECKING:
    from vmhad.sim.ledger import Ledger

CUTS_IN = (State.FENCING, State.RECOVERING)
# What is so for this long every engine that runs has read.
SEEN_S = 15.0
# A look and what is decided by it are so far apart.
READ_LATE_S = 2.0
LOOK_S = 6.0
RESTORES_IN = (State.RECOVERED, State.STUCK, State.LIFTING)


def is_fenced_still(incident: Incident) -> bool:
    """Its power is to be proven: first of all, or beside a recovery that rests on its storages."""
    proof = incident.proof
    is_beside = incident.state is State.RECOVERING and proof is not None and proof.kind == CUT_STORAGE
    return incident.state is State.FENCING or is_beside


def is_read_on(at: Ledger, truth: SimHost) -> bool:
    """Its BMC has shown for a while that it has power."""
    since = max(truth.powered_at, truth.bmc_at, truth.blips_until)
    shows = truth.bmc in (Bmc.OK, Bmc.STUCK, Bmc.REFUSES) and truth.feed and not truth.bmc_silenced_by
    return truth.powered and shows and at.now - since > SEEN_S


def may_be_cut(at: Ledger, incident: Incident) -> bool:
    """An order to cut its host off left, or may have: a living host is fenced to the end then."""
    mine = (one for one in at.steps.values() if one.incident == incident.id)
    return any(one.verb is Verb.CUT_STORAGE and one.attempt for one in mine)


def hear(at: Ledger, order: CutOrder, excused: set[str]) -> None:
    """An order left for a backend. excused: hosts that no eye can tell from dead ones."""
    verb, subject = Verb(order.verb), f"host {order.host}"
    if at.open_step(verb, order.host, backend=order.backend) is None:
        at.report(subject, f"{order.verb} of {order.backend} was sent that is not STARTED in the journal")
    at.acted(order.engine, order.host, subject)
    is_excused = order.host in excused and not _rests_on_a_word(at, order.host)
    if verb is Verb.RESTORE_STORAGE and not is_excused and (left := _old_guests(at, order)):
        at.report(subject, f"it is given back {order.backend} while it has {left[0]} from before")


def _rests_on_a_word(at: Ledger, host: str) -> bool:
    """Of a host whose agent will tell of another boot, a word that was mistaken excuses nothing but the evacuations."""
    mine = (one for one in at.incidents.values() if one.is_of_host and one.host == host and one.is_open)
    return at.agents is not None and any(one.proof is not None and one.proof.kind == WORD for one in mine)


def hear_late(at: Ledger, order: CutOrder) -> None:
    """It lands when its sender has slept. As long as its host is not being taken back that is found then."""
    of_host = (one for one in at.incidents.values() if one.host == order.host and one.is_of_host and one.is_open)
    if not any(one.state is not State.LIFTING for one in of_host):
        at.cut_late.add(order.host)


def _old_guests(at: Ledger, order: CutOrder) -> list[str]:
    """VMs that Nova has elsewhere and that have a guest on it, which writes to that backend as soon as it may."""
    truth = at.nova.datacentre
    if not truth.hosts[order.host].powered:
        return []
    mine = (row for row in at.nova.servers.values() if row.host != order.host)
    there = (row for row in mine if order.backend in (row.backend, *row.also))
    return sorted(row.name for row in there if order.host in truth.vms[row.id].guests)


def of_proof(at: Ledger, engine: str, proof: Proof, held: Sequence[str] = ()) -> Iterator[str]:
    """What is proven of its storages is true, and what an operator said was said, and not belied. held: the storages
    that were proven before, and somebody may have opened since: they are read before every act."""
    datacentre = at.nova.datacentre
    if any(one.at - at.offset_s(engine) > at.now for one in proof.observed):
        yield "it is recovered by a look that nobody has made yet"
    if proof.kind == CUT_STORAGE:
        shown = [name for name in proof.backends if name not in held]
        opened = [name for name in shown if proof.host not in datacentre.fenced.get(name, ())]
        open_on = [name for name in opened if at.now - datacentre.cut_at.get((name, proof.host), 0.0) > READ_LATE_S]
        if open_on or not proof.backends:
            yield f"it is recovered as cut off, and it is not cut off from {', '.join(open_on) or 'anything'}"
        if not at.policies[at.segment_of(proof.host).name].storage_only_proof:
            yield "it is recovered as cut off although policy wants its power proven"
    truth, row = datacentre.hosts[proof.host], at.nova.services[proof.host]
    is_heard = truth.serves and at.now - row.last_seen < 1.2 * HEARTBEAT_S and at.now - row.heard_from > SEEN_S
    if proof.kind == CUT_STORAGE and is_heard and at.agents is None:
        yield "it is recovered as cut off while its nova-compute is heard"
    if proof.kind == SELF_FENCED:
        yield from _of_watchdog(at, proof.host)
    if proof.kind != WORD or at.now - at.sees_since(engine) < SEEN_S:
        return
    if proof.host not in at.confirmed:
        yield "it is recovered by an operator's word, and none said a word"
    if truth.powered and is_read_on(at, truth):
        yield "it is recovered by an operator's word while its power reads ON"
    if is_heard:
        yield "it is recovered by an operator's word while its nova-compute is heard"


def of_post(at: Ledger, incident: Incident, started_at: float) -> Iterator[str]:
    """An evacuation is sent. Power is read once more between its start and that, and a look takes no longer than
    LOOK_S."""
    proof, truth = incident.proof, at.nova.datacentre.hosts[incident.host]
    shows = truth.powered and truth.feed and truth.bmc is Bmc.OK and not truth.bmc_silenced_by
    if proof is not None and proof.kind == WORD and shows:
        if max(truth.powered_at, truth.bmc_at, truth.blips_until) < max(started_at, at.now - LOOK_S):
            yield "its evacuation is sent by an operator's word while its power reads ON"


def _of_watchdog(at: Ledger, host: str) -> Iterator[str]:
    truth = at.nova.datacentre.hosts[host]
    if truth.powered and (truth.alive or truth.hung) and host not in at.nova.datacentre.reset:
        yield "it is recovered as reset by its watchdog, and that has not fired"
    if not at.policies[at.segment_of(host).name].self_fence_proof:
        yield "it is recovered as reset by its watchdog although policy trusts no watchdogs"


def of_evacuation(at: Ledger, new: Step, incident: Incident) -> Iterator[str]:
    """Of a host that is only cut off, those VMs are evacuated that have all their disks there, and no others."""
    row, proof = at.nova.servers.get(new.subject), incident.proof
    if row is None or proof is None or proof.kind != CUT_STORAGE:
        return
    if row.unlisted:
        yield f"its evacuation is started, and nobody knows from what {incident.host} would have to be cut off"
    for backend in (row.backend, *row.also):
        if backend not in proof.backends:
            yield f"its evacuation is started, a disk is on {backend}, and {incident.host} is not cut off from that"


def of_end(at: Ledger, incident: Incident) -> Iterator[str]:
    for backend, hosts in sorted(at.nova.datacentre.fenced.items()):
        if incident.host in hosts - at.cut_late:
            yield f"its incident is over, and it is still cut off from {backend}"


def left_cut(at: Ledger) -> Iterator[tuple[str, str]]:
    """At the end no host that serves, and whose incident is over, is still cut off. Where a cut came late, sent by an
    engine that had slept, nobody is told."""
    truth = at.nova.datacentre
    busy = {one.host for one in at.incidents.values() if one.is_of_host and one.is_open}
    for backend, hosts in sorted(truth.fenced.items()):
        for name in sorted(hosts - busy - at.cut_late):
            if truth.hosts[name].serves:
                yield f"host {name}", f"it serves, and nobody gives it back {backend}"
