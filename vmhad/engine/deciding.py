# SPDX-License-Identifier: Apache-2.0
"""What one round over a segment decides: its hosts first, then what fails on hosts that live, each by its own guard.

The order is a rule: a host's incident has its VMs and its services from SUSPECTED on, so whatever is decided after it
sees it. Nothing is written here and nothing is done.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from vmhad.engine.book import Book
from vmhad.engine.cases import Cases
from vmhad.engine.certifying import exhibited
from vmhad.engine.drains import Drains
from vmhad.engine.evidence_store import EvidenceStore, Judged
from vmhad.engine.reads import Reads
from vmhad.engine.service_cases import ServiceCases
from vmhad.engine.vm_cases import VmCases
from vmhad.engine.world import World
from vmhad.engine.writing import Writing
from vmhad.guards import hosts as hosts_guard
from vmhad.guards import instances as instances_guard
from vmhad.guards import services as services_guard
from vmhad.guards.hosts import drain as drain_guard
from vmhad.journal import keys
from vmhad.kernel.case import Decision
from vmhad.kernel.cloud import Server
from vmhad.kernel.incident import Incident, opened
from vmhad.kernel.policy import Policy
from vmhad.kernel.reconcile import reconcile
from vmhad.kernel.step import Step
from vmhad.kernel.topology import Segment
from vmhad.kernel.verdict import Judgement

LOG = logging.getLogger(__name__)

# A segment is looked at again after this long, whatever was decided.
TICK_MAX_S = 1.0


@dataclass
class Made:
    """What a round came to. before: the open incidents as they were; current: as they are, with the new ones; changed:
    the steps that moved; fences: the cloud's open ones as they were read. wake_at: when to come again."""

    before: dict[str, Incident]
    current: dict[str, Incident] = field(default_factory=dict)
    changed: dict[str, Step] = field(default_factory=dict)
    fences: frozenset[str] = frozenset()
    wake_at: float = inf

    def take(self, decision: Decision) -> None:
        self.current[decision.incident.id] = decision.incident
        self.take_steps(decision)

    def take_steps(self, decision: Decision) -> None:
        self.changed.update((step.id, step) for step in decision.steps)
        self.wake_at = min(self.wake_at, decision.wake_at)


@dataclass
class Deciding:
    """contested: what was found to be in the hands of another segment's incident, by its claim's key."""

    evidence: EvidenceStore
    reads: Reads
    writing: Writing
    world: World
    has_hands: bool
    contested: set[str] = field(default_factory=set)
    _warned: set[str] = field(default_factory=set)

    def decide(self, segment: Segment, policy: Policy, book: Book, judged: Judged, now: float) -> Made | None:
        """None where there is nothing to decide."""
        willing = self.reads.settling.willing(policy)
        vms = VmCases(segment, policy, book, judged, self.world.guests, self.contested, now, willing)
        book.spared = vms.spared() if book.fallen else frozenset()
        services = ServiceCases(
            segment, policy, book, judged, self.evidence, self.world.units, self.contested, self.has_hands, now
        )
        made = Made({one.id: one for one in book.open_incidents()})
        drains = Drains(segment, policy, book, judged, self.evidence, now)
        for_hosts = judged.suspects or book.fallen or book.in_want or drains.due
        if not (for_hosts or book.orders or book.open_now() or vms.ill or services.ill):
            return None
        made.current = dict(made.before)
        alone: list[Server] = []
        for incident in self._suspected(segment, policy, book, judged, made, alone, now):
            made.current[incident.id] = incident
        made.fences = self.writing.open_fences(now) if made.current else frozenset()
        guests, current, fences = self.world.guests, made.current, made.fences
        gates = self.reads.gates
        cases = Cases(segment, policy, book, self.evidence, judged, current, fences, self.contested, now, guests, gates)
        self._hosts(cases, made)
        services.hosts = dict(made.current)
        self._vms(vms, alone, made)
        self._services(services, made)
        self._drains(drains, cases, made)
        return made

    def _hosts(self, cases: Cases, made: Made) -> None:
        for incident_id in sorted(made.current):
            incident = made.current[incident_id]
            if not self._is_here(incident, cases.judged) or cases.still_stands(incident, cases.now + TICK_MAX_S):
                continue
            case, scene = cases.of(incident), cases.scene
            decision = exhibited(cases, case, scene, reconcile(case, hosts_guard, cases.now))
            cases.take(decision)
            made.take_steps(decision)
            self.reads.read_inventory(cases.book, decision, cases.segment.name)
            self.reads.gates.want(incident_id, decision.asks, cases.now)
        self.reads.gates.begin(cases.now)

    def _vms(self, vms: VmCases, alone: Sequence[Server], made: Made) -> None:
        """Those that fail alone, when the incidents of their hosts are decided: a host's has its VMs."""
        vms.hosts, book = dict(made.current), vms.book
        for server_id in vms.unasked(alone):
            self.reads.read_standing(server_id)
        fresh = tuple(vms.fresh(alone))
        made.before.update((one.id, one) for one in book.open_of_vms())
        for incident in (*book.open_of_vms(), *fresh):
            made.current[incident.id] = incident
            if not self._is_here(incident, vms.judged):
                continue
            decision = reconcile(vms.of(incident), instances_guard, vms.now)
            made.take(decision)
            self.reads.read_standing_for(book, decision)
            vms.take(decision.incident)

    def _services(self, services: ServiceCases, made: Made) -> None:
        """Those of living hosts, when the incidents of the hosts are decided: a host's has its services, too."""
        made.before.update((one.id, one) for one in services.book.open_of_services())
        for incident in services.in_order():
            decision = reconcile(services.of(incident), services_guard, services.now)
            made.take(decision)
            services.take(decision.incident)

    def _drains(self, drains: Drains, cases: Cases, made: Made) -> None:
        """The last of all: a host's own incident has its VMs, and so has each VM's own."""
        book = drains.book
        made.before.update((one.id, one) for one in book.drains())
        made.current.update((one.id, one) for one in book.drains())
        mine = (*book.drains(), *drains.fresh(made.current, self.contested))
        drains.begin(mine)
        for incident in mine:
            made.current[incident.id] = incident
            if not self._is_here(incident, drains.judged):
                continue
            decision = reconcile(drains.of(incident, cases, made.current), drain_guard, drains.now)
            made.take(decision)
            drains.take(decision.incident, decision.steps)
            self.reads.read_inventory(book, decision, drains.segment.name)

    def _suspected(
        self,
        segment: Segment,
        policy: Policy,
        book: Book,
        judged: Judged,
        made: Made,
        alone: list[Server],
        now: float,
    ) -> list[Incident]:
        """New incidents of hosts. alone takes the VMs that fell without their host."""
        fresh = []
        suspects = judged.suspects | ((book.fallen.keys() | book.in_want.keys()) & judged.verdicts.keys())
        for host in sorted(suspects - {one.host for one in made.before.values()}):
            verdict = judged.verdicts[host]
            because = verdict.because if verdict.judgement in (Judgement.SUSPECT, Judgement.FAILED) else ""
            fallen = book.worth_starting(host, policy, now)
            if verdict.serves:
                by_themselves = book.fallen_alone(host, policy, self.evidence.was_back_since(host, now), now)
                fallen = tuple(one for one in fallen if one not in by_themselves)
                alone += by_themselves
            if fallen and not because:
                names = ", ".join(server.name for server in fallen[:3])
                because = f"Nova found the guests of {len(fallen)} VMs gone and switched them off: {names}"
            if verdict.serves and not because and (left := book.in_want.get(host)):
                names = ", ".join(sorted(step.args.get("name", key) for key, step in left.items())[:3])
                because = f"it seemed to fall again while {len(left)} of its VMs were in want: {names}"
            if because and keys.open_host(host) in self.contested:
                self._warn_once(f"{host} is in an open incident of another segment: {because}")
            elif because:
                fresh.append(opened(f"{host}.{int(now * 1000)}", segment.name, host, now, because))
        return fresh

    def _is_here(self, incident: Incident, judged: Judged) -> bool:
        if incident.host in judged.verdicts:
            return True
        self._warn_once(f"incident {incident.id} rests: its host is no longer in its segment")
        return False

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            LOG.warning("%s", text)
            self._warned.add(text)
