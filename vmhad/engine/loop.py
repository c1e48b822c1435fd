# SPDX-License-Identifier: Apache-2.0
"""The tick: gather, judge, reconcile, write, and only then act. One thread decides; it never waits for the cloud.

The process around it calls tick() and sleeps until the time it answers, or until something wakes the clock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from vmhad.engine.book import Book
from vmhad.engine.certifying import Certifying
from vmhad.engine.deciding import TICK_MAX_S, Deciding
from vmhad.engine.evidence_store import EvidenceStore
from vmhad.engine.executor import Executor, nothing_before_send
from vmhad.engine.gates import Gates
from vmhad.engine.guests import Guests
from vmhad.engine.inheriting import loaded
from vmhad.engine.keeping import FOR_A_MONTH, PRUNE_EVERY_S, Keeping
from vmhad.engine.listening import Listening
from vmhad.engine.ownership import RENEW_SHARE, Ownership
from vmhad.engine.reads import Reads
from vmhad.engine.settling import Settling
from vmhad.engine.timeline import Timeline
from vmhad.engine.units import Units
from vmhad.engine.world import NoHands, World
from vmhad.engine.writing import Writing
from vmhad.journal.codec import JournalUnreadable
from vmhad.journal.journal import EpochLost, Journal
from vmhad.journal.policies import PolicyShelf
from vmhad.kernel.incident import State
from vmhad.kernel.policy import Policy
from vmhad.kernel.step import Step, Verb
from vmhad.kernel.topology import Segment
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
    Readiness,
    Storage,
    Store,
    Unanswered,
    Watch,
    Workers,
)

LOG = logging.getLogger(__name__)

TICK_MIN_S = 0.02
ORDERS_EVERY_S = 2.0
# What may be acted on in which state: during a fence only the fence itself, after a return nothing of a recovery.
PURSUED: dict[State, tuple[Verb, ...]] = {
    State.SUSPECTED: (),
    State.FENCING: (Verb.POWER_OFF, Verb.CUT_STORAGE),
    State.DRAINING: (Verb.DISABLE, Verb.LIVE_MIGRATE),
    State.RECOVERING: (
        Verb.POWER_OFF,
        Verb.CUT_STORAGE,
        Verb.FORCE_DOWN,
        Verb.DISABLE,
        Verb.EVACUATE,
        Verb.RESTORE_STATE,
        Verb.RESTART,
        Verb.RESUME,
        Verb.RESTART_SERVICE,
    ),  # fmt: skip
    State.STUCK: (Verb.RESTORE_STORAGE,),
    State.RECOVERED: (Verb.RESTORE_STORAGE, Verb.POWER_ON),
    State.LIFTING: (Verb.RESTORE_STORAGE, Verb.LIFT_FENCE, Verb.ENABLE, Verb.RESTORE_STATE),
}


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
        readiness: Readiness | None = None,
        storages: Mapping[str, Storage] = MappingProxyType({}),
        membership: Membership,
        me: str,
        lease_s: float,
        call_timeout_s: float,
        timeline: Timeline,
        before_send: Callable[[Step], None] = nothing_before_send,
        keeping: Keeping = FOR_A_MONTH,
    ) -> None:
        self.keeping = keeping
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
        world = World(compute, power, clock, hands or NoHands(), self.guests, units, storages)
        self.executor = Executor(world, workers, self.ownership.remaining_s, call_timeout_s, before_send)
        self.settling = Settling(PolicyShelf(store), compute, workers, clock, self.guests)
        gates = Gates(readiness, workers, clock, self.guests)
        self.reads = Reads(self.segments, compute, workers, clock, self.evidence, world, self.settling, gates)
        certifying = Certifying(me, self.segments, self.evidence.of)
        self.writing = Writing(self.journal, timeline, self.executor, self.evidence, certifying)
        self.deciding = Deciding(self.evidence, self.reads, self.writing, world, hands is not None)
        self.books: dict[str, Book] = {}
        self._orders_at: dict[str, float] = {}
        self._policies_at = 0.0
        self._pruned_at: dict[str, float] = {}
        self._frozen = ""
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
                self.deciding.contested.update(getattr(error, "subjects", ()))
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
            self.deciding.contested.clear()
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
        segment, policy = self.segments[name], self.policies[name]
        judged = self.evidence.judged(segment, policy, now)
        for host in self.evidence.take_fallen_hints(segment, now):
            self.reads.look_for_fallen(host)
        come_at = min(now + TICK_MAX_S, judged.look_at)
        made = self.deciding.decide(segment, policy, book, judged, now)
        if made is None:
            return come_at
        self.writing.commit(name, book, made.before, made.current, made.changed, made.fences, now)
        return min(come_at, made.wake_at, self._pursue(name, book, now))

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
        if now >= self._policies_at + ORDERS_EVERY_S:
            self.settling.read((*self.books.values(), *self._dropped.values()))
            self._policies_at = now
        if now >= self._pruned_at.get(name, 0.0) + PRUNE_EVERY_S:
            self.workers.submit(f"prune {name}", partial(self.keeping.prune, self.journal, name, now))
            self._pruned_at[name] = now
        return book

    def _pursue(self, name: str, book: Book, now: float) -> float:
        """Hands STARTED steps to the executor: only those that belong to the state the incident is in."""
        steps: list[Step] = []
        for incident in book.open_now():
            if incident.state is State.FENCING and incident.is_of_host:
                self.evidence.look_at_all(self.segments[name], now)
            if verbs := PURSUED[incident.state]:
                steps += [step for step in book.started_of(incident) if step.verb in verbs]
        return min(now + TICK_MAX_S, self.executor.pursue(name, steps, now))

    def _freeze(self, why: str) -> None:
        if self._frozen != why:
            LOG.error("the journal does not answer: no new acts until it does: %s", why)
            self._frozen = why

    def _thaw(self) -> None:
        if self._frozen:
            LOG.warning("the journal answers again")
            self._frozen = ""
