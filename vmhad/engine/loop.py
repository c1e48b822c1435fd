# SPDX-License-Identifier: Apache-2.0
"""The tick: gather, judge, reconcile, write, and only then act. One thread decides; it never waits for the cloud.

The process around it calls tick() and sleeps until the time it answers, or until something wakes the clock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf

from vmhad.engine.book import Book, loaded
from vmhad.engine.cases import Cases
from vmhad.engine.drains import Drains
from vmhad.engine.evidence_store import EvidenceStore, Judged
from vmhad.engine.executor import Executor, nothing_before_send
from vmhad.engine.guests import Guests
from vmhad.engine.listening import Listening
from vmhad.engine.ownership import RENEW_SHARE, Ownership
from vmhad.engine.reads import Reads
from vmhad.engine.service_cases import ServiceCases
from vmhad.engine.timeline import Timeline
from vmhad.engine.units import Units
from vmhad.engine.vm_cases import VmCases
from vmhad.engine.world import NoHands, World
from vmhad.engine.writing import Writing
from vmhad.guards import hosts as hosts_guard
from vmhad.guards import instances as instances_guard
from vmhad.guards import services as services_guard
from vmhad.guards.hosts import drain as drain_guard
from vmhad.journal import keys
from vmhad.journal.codec import JournalUnreadable
from vmhad.journal.journal import EpochLost, Journal
from vmhad.kernel.cloud import Server
from vmhad.kernel.incident import Incident, State, opened
from vmhad.kernel.policy import Policy
from vmhad.kernel.reconcile import reconcile
from vmhad.kernel.step import Step, Verb
from vmhad.kernel.topology import Segment
from vmhad.kernel.verdict import Judgement
from vmhad.ports import (
    Beats,
    Clock,
    Compute,
    Conflict,
    Hands,
    Membership,
    Nudge,
    Nudges,
    Power,
    Store,
    Unanswered,
    Watch,
    Workers,
)

LOG = logging.getLogger(__name__)

TICK_MAX_S = 1.0
TICK_MIN_S = 0.02
ORDERS_EVERY_S = 2.0
# What may be acted on in which state: during a fence only the fence itself, after a return nothing of a recovery.
PURSUED: dict[State, tuple[Verb, ...]] = {
    State.SUSPECTED: (),
    State.FENCING: (Verb.POWER_OFF,),
    State.DRAINING: (Verb.DISABLE, Verb.LIVE_MIGRATE),
    State.RECOVERING: (
        Verb.FORCE_DOWN, Verb.DISABLE, Verb.EVACUATE, Verb.RESTORE_STATE, Verb.RESTART, Verb.RESUME,
        Verb.RESTART_SERVICE,
    ),  # fmt: skip
    State.STUCK: (),
    State.RECOVERED: (Verb.POWER_ON,),
    State.LIFTING: (Verb.LIFT_FENCE, Verb.ENABLE, Verb.RESTORE_STATE),
}
KEEP_ENDED_S = 30 * 86400.0
KEEP_ENDED_COUNT = 1000
PRUNE_EVERY_S = 3600.0


class Engine:
    """Everything it may use comes in by name; it opens nothing itself."""

    def __init__(
        self,
        *,
        segments: Sequence[Segment],
        policies: Mapping[str, Policy],
        store: Store,
        clock: Clock,
        workers: Workers,
        watches: Sequence[Watch],
        beats: Sequence[Beats] = (),
        nudges: Sequence[Nudges],
        compute: Compute,
        power: Power,
        hands: Hands | None = None,
        membership: Membership,
        me: str,
        lease_s: float,
        call_timeout_s: float,
        timeline: Timeline,
        before_send: Callable[[Step], None] = nothing_before_send,
    ) -> None:
        self.segments = {segment.name: segment for segment in segments}
        self.policies = policies
        self.clock = clock
        self.compute = compute
        self.workers = workers
        self.membership = membership
        self.journal = Journal(store)
        self.guests = Guests()
        units = Units()
        listening = Listening(tuple(beats), tuple(segments), policies, self.guests, units)
        self.evidence = EvidenceStore(watches, nudges, listening)
        self.ownership = Ownership(store, clock, me, tuple(sorted(self.segments)), membership, lease_s)
        world = World(compute, power, clock, hands or NoHands(), self.guests, units)
        self.executor = Executor(world, workers, self.ownership.remaining_s, call_timeout_s, before_send)
        self.reads = Reads(self.segments, compute, workers, clock, self.evidence, world)
        self.writing = Writing(self.journal, timeline, self.executor, self.evidence)
        self.books: dict[str, Book] = {}
        self._has_hands = hands is not None
        self._orders_at: dict[str, float] = {}
        self._pruned_at: dict[str, float] = {}
        self._frozen = ""
        self._contested: set[str] = set()
        self._warned: set[str] = set()
        self._dropped: dict[str, Book] = {}
        self._renew_at = 0.0
        self._renew_every_s = lease_s * RENEW_SHARE

    def tick(self) -> float:
        """One round over every held segment; returns in how many seconds to come again at the latest."""
        self._renew()
        nudges = self.evidence.gather(self.clock.now())
        self.reads.collect(self.books, self._dropped)
        held = dict(self.ownership.held())
        self._pass_on(nudges, held)
        for name in set(self.books) - set(held):
            del self.books[name]
        if held:
            self.reads.begin_recurring()
        # Who holds nothing has nothing to decide: it comes again to renew, or when it is woken.
        wake_at = self.clock.now() + TICK_MAX_S if held else self._renew_at
        for name in sorted(held):
            try:
                wake_at = min(wake_at, self._segment(name, held[name]))
                self._thaw()
            except EpochLost as error:
                LOG.warning("segment %s is another engine's now: %s", name, error)
                self.ownership.lost(name)
                self.books.pop(name, None)
            except Conflict as error:
                LOG.info("segment %s is read again: %s", name, error)
                self._drop(name)
                self._contested.update(getattr(error, "subjects", ()))
            except (Unanswered, JournalUnreadable) as error:
                # The commit may have landed: nothing in memory may be believed until the journal was read again.
                self._drop(name)
                self._freeze(str(error))
            except Exception:
                # One segment that cannot be decided must not leave all others without protection.
                LOG.exception("segment %s cannot be decided; it is read again", name)
                self._drop(name)
        return max(TICK_MIN_S, wake_at - self.clock.now())

    def _renew(self) -> None:
        now = self.clock.now()
        if now < self._renew_at:
            return
        self._renew_at = now + self._renew_every_s
        self.membership.beat()
        try:
            self.ownership.renew()
            # Whether another segment still has what it had is asked anew with every renewal.
            self._contested.clear()
        except (Unanswered, JournalUnreadable) as error:
            self._freeze(str(error))

    def close(self) -> None:
        """Lets the segments go, so that another engine takes them at once."""
        self.ownership.release()

    def _pass_on(self, nudges: Sequence[Nudge], held: Mapping[str, int]) -> None:
        """All engines drain one queue: what came of a host that another engine has is left for it in the journal."""
        for nudge in nudges:
            for name in sorted(self.segments.keys() - held.keys()):
                if nudge.host in self.segments[name].names:
                    self.workers.submit(f"{name}: {nudge}", partial(self.journal.put_nudge, name, nudge))

    def _drop(self, name: str) -> None:
        """The segment is read from the journal again; what was seen of steps meanwhile is not lost with it."""
        self.writing.forget_fences()
        book = self.books.pop(name, None)
        if book is not None:
            self._dropped[name] = book

    def _segment(self, name: str, epoch: int) -> float:
        """Reconciles every incident of a segment, one commit for all; returns when to look again."""
        now = self.clock.now()
        book = self._book(name, epoch, now)
        policy = self.policies[name]
        judged = self.evidence.judged(self.segments[name], policy, now)
        for host in self.evidence.take_fallen_hints(self.segments[name], now):
            self.reads.look_for_fallen(host)
        vms = VmCases(self.segments[name], policy, book, judged, self.guests, self._contested, now)
        book.spared = vms.spared() if book.fallen else frozenset()
        services = self._services(name, book, judged, now)
        before = {one.id: one for one in book.open_incidents()}
        come_at = min(now + TICK_MAX_S, judged.look_at)
        drains = Drains(self.segments[name], policy, book, judged, now)
        for_hosts = judged.suspects or book.fallen or book.in_want or drains.due
        if not (for_hosts or book.orders or book.open_now() or vms.ill or services.ill):
            return come_at
        current = dict(before)
        alone: list[Server] = []
        for incident in self._new_incidents(name, judged, before, alone, now):
            current[incident.id] = incident
        fences = self.writing.open_fences(now) if current else frozenset()
        cases = Cases(self.segments[name], policy, book, self.evidence, judged, current, fences, self._contested, now)
        changed: dict[str, Step] = {}
        wake_at = come_at
        for incident_id in sorted(current):
            if current[incident_id].host not in judged.verdicts:
                self._warn_once(f"incident {incident_id} rests: its host is no longer in segment {name}")
                continue
            if cases.still_stands(current[incident_id], now + TICK_MAX_S):
                continue
            decision = reconcile(cases.of(current[incident_id]), hosts_guard, now)
            cases.take(decision)
            changed.update((step.id, step) for step in decision.steps)
            wake_at = min(wake_at, decision.wake_at)
            self.reads.read_inventory(book, decision, name)
        services.hosts = dict(current)
        wake_at = min(wake_at, self._decide_vms(vms, alone, before, current, changed))
        wake_at = min(wake_at, self._decide_services(services, before, current, changed))
        wake_at = min(wake_at, self._decide_drains(drains, cases, before, current, changed))
        self.writing.commit(name, book, before, current, changed, fences, now)
        return min(wake_at, self._pursue(name, book, now))

    def _decide_vms(
        self,
        vms: VmCases,
        alone: Sequence[Server],
        before: dict[str, Incident],
        current: dict[str, Incident],
        changed: dict[str, Step],
    ) -> float:
        """The incidents of VMs, when those of their hosts are decided: a host's has its VMs from SUSPECTED on."""
        vms.hosts, book, wake_at = dict(current), vms.book, inf
        for server_id in vms.unasked(alone):
            self.reads.read_standing(server_id)
        fresh = tuple(vms.fresh(alone))
        before.update((one.id, one) for one in book.open_of_vms())
        for incident in (*book.open_of_vms(), *fresh):
            current[incident.id] = incident
            if incident.host not in vms.judged.verdicts:
                self._warn_once(f"incident {incident.id} rests: its host is no longer in its segment")
                continue
            decision = reconcile(vms.of(incident), instances_guard, vms.now)
            current[incident.id] = decision.incident
            changed.update((step.id, step) for step in decision.steps)
            wake_at = min(wake_at, decision.wake_at)
            self.reads.read_standing_for(book, decision)
            vms.take(decision.incident)
        return wake_at

    def _services(self, name: str, book: Book, judged: Judged, now: float) -> ServiceCases:
        segment, policy, units = self.segments[name], self.policies[name], self.executor.world.units
        return ServiceCases(
            segment, policy, book, judged, self.evidence, units, self._contested, self._has_hands, now
        )

    def _decide_services(
        self,
        services: ServiceCases,
        before: dict[str, Incident],
        current: dict[str, Incident],
        changed: dict[str, Step],
    ) -> float:
        """Those of living hosts, when the incidents of the hosts are decided: a host's has its services, too."""
        book, wake_at = services.book, inf
        before.update((one.id, one) for one in book.open_of_services())
        for incident in services.in_order():
            decision = reconcile(services.of(incident), services_guard, services.now)
            current[incident.id] = decision.incident
            changed.update((step.id, step) for step in decision.steps)
            wake_at = min(wake_at, decision.wake_at)
            services.take(decision.incident)
        return wake_at

    def _decide_drains(
        self,
        drains: Drains,
        cases: Cases,
        before: dict[str, Incident],
        current: dict[str, Incident],
        changed: dict[str, Step],
    ) -> float:
        """The last of all: a host's own incident has its VMs, and so has each VM's own."""
        book, wake_at = drains.book, inf
        before.update((one.id, one) for one in book.drains())
        current.update((one.id, one) for one in book.drains())
        mine = (*book.drains(), *drains.fresh(current, self._contested))
        drains.begin(mine)
        for incident in mine:
            current[incident.id] = incident
            if incident.host not in drains.judged.verdicts:
                self._warn_once(f"incident {incident.id} rests: its host is no longer in its segment")
                continue
            decision = reconcile(drains.of(incident, cases, current), drain_guard, drains.now)
            current[incident.id] = decision.incident
            drains.take(decision.incident, decision.steps)
            changed.update((step.id, step) for step in decision.steps)
            wake_at = min(wake_at, decision.wake_at)
            self.reads.read_inventory(book, decision, drains.segment.name)
        return wake_at

    def _book(self, name: str, epoch: int, now: float) -> Book:
        book = self.books.get(name)
        if book is None or book.epoch != epoch:
            record = self.journal.load(name)
            self.books[name] = book = loaded(record, epoch, self._dropped.pop(name, None), now)
            # A pause must be known before the first decision of a book.
            self._orders_at.pop(name, None)
            LOG.info(
                "segment %s is ours under epoch %d, with %d open incidents", name, epoch, len(book.open_incidents())
            )
        if now >= self._orders_at.get(name, 0.0) + ORDERS_EVERY_S:
            book.orders = tuple(self.journal.orders(name))
            self.evidence.nudged(self.journal.take_nudges(name))
            self._orders_at[name] = now
        if now >= self._pruned_at.get(name, 0.0) + PRUNE_EVERY_S:
            self.workers.submit(f"prune {name}", lambda: self.journal.prune(name, now, KEEP_ENDED_S, KEEP_ENDED_COUNT))
            self._pruned_at[name] = now
        return book

    def _new_incidents(
        self, name: str, judged: Judged, before: Mapping[str, Incident], alone: list[Server], now: float
    ) -> list[Incident]:
        """Of hosts. alone takes the VMs that fell without their host."""
        book, policy = self.books[name], self.policies[name]
        fresh = []
        suspects = judged.suspects | ((book.fallen.keys() | book.in_want.keys()) & judged.verdicts.keys())
        for host in sorted(suspects - {one.host for one in before.values()}):
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
            if because and keys.open_host(host) in self._contested:
                self._warn_once(f"{host} is in an open incident of another segment: {because}")
            elif because:
                fresh.append(opened(f"{host}.{int(now * 1000)}", name, host, now, because))
        return fresh

    def _pursue(self, name: str, book: Book, now: float) -> float:
        """Hands STARTED steps to the executor: only those that belong to the state the incident is in."""
        steps: list[Step] = []
        for incident in book.open_now():
            if incident.state is State.FENCING and incident.is_of_host:
                self.evidence.look_at_all(self.segments[name], now)
            if verbs := PURSUED[incident.state]:
                steps += [step for step in book.started_of(incident) if step.verb in verbs]
        return min(now + TICK_MAX_S, self.executor.pursue(name, steps, now))

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            LOG.warning("%s", text)
            self._warned.add(text)

    def _freeze(self, why: str) -> None:
        if self._frozen != why:
            LOG.error("the journal does not answer: no new acts until it does: %s", why)
            self._frozen = why

    def _thaw(self) -> None:
        if self._frozen:
            LOG.warning("the journal answers again")
            self._frozen = ""
