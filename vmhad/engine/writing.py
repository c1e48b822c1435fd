# SPDX-License-Identifier: Apache-2.0
"""What was decided of a segment in one tick, written in one commit, and told to the operator once it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from vmhad.engine.book import Book, steps_worth_writing, worth_writing
from vmhad.engine.certifying import Certifying
from vmhad.engine.evidence_store import EvidenceStore
from vmhad.engine.executor import Executor
from vmhad.engine.timeline import Timeline, of_incident, of_step
from vmhad.journal import keys
from vmhad.journal.journal import Change, Journal
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.step import MOVES, Step, StepState, Verb

FENCES_EVERY_S = 1.0


@dataclass
class Writing:
    journal: Journal
    timeline: Timeline
    executor: Executor
    evidence: EvidenceStore
    certifying: Certifying
    _fences: frozenset[str] = frozenset()
    _fences_at: float = -inf

    def forget_fences(self) -> None:
        """They may not be what was read: the next decision reads them again."""
        self._fences_at = -inf

    def open_fences(self, now: float) -> frozenset[str]:
        """The cloud's, as read a moment ago. What opens or ends one compares them in its very transaction, so an old
        reading costs a Conflict, never a fence too many."""
        if now >= self._fences_at + FENCES_EVERY_S:
            self._fences, self._fences_at = self.journal.fences(), now
        return self._fences

    def commit(
        self,
        name: str,
        book: Book,
        before: Mapping[str, Incident],
        current: Mapping[str, Incident],
        changed: Mapping[str, Step],
        fences: frozenset[str],
        now: float,
    ) -> None:
        moved = {key: one for key, one in current.items() if before.get(key) is not one}
        after = _fences_after(current, fences)
        if not moved and not changed and not book.orders and after == fences:
            return
        incidents = tuple(one for key, one in sorted(moved.items()) if worth_writing(before.get(key), one))
        steps = steps_worth_writing(book.steps, changed.values())
        claims = _claims(incidents, steps, book)
        sealed = self.certifying.seal(book, current, incidents, steps, now)
        incidents, steps = sealed.incidents, sealed.steps
        over = book.handled_orders(before, current, now) if book.orders else []
        if incidents or steps or over or after != fences:
            deletes = tuple(keys.order(name, one.id) for one in over)
            budget = (fences, after) if after != fences else None
            self.journal.commit(
                name, book.epoch, Change(incidents, steps, claims, budget, deletes, sealed.certificates)
            )
            if budget:
                self._fences = after
            book.orders = tuple(one for one in book.orders if one not in over)
        for incident in incidents:
            if not incident.is_open and incident.is_of_host:
                # More of its VMs may be missing by now, or another engine knew of some before our time.
                book.fallen.pop(incident.host, None)
                self.evidence.returned(incident.host, now)
            for line in of_incident(before.get(incident.id), incident, now):
                self.timeline(line)
        for step in steps:
            for line in of_step(book.steps.get(step.id), step, now):
                self.timeline(line)
        for step in changed.values():
            if not step.is_open:
                self.executor.forget(step)
            if step.verb in (Verb.RESTORE_STATE, Verb.RESTART) and step.state is StepState.DONE:
                book.started(step)
        book.put((*moved.values(), *incidents), (*changed.values(), *steps))


def _fences_after(current: Mapping[str, Incident], fences: frozenset[str]) -> frozenset[str]:
    """The cloud's, with those of the segment's own incidents as they are now."""
    fencing = frozenset(one.id for one in current.values() if one.state is State.FENCING and one.is_of_host)
    return fences if not fencing and fences.isdisjoint(current) else fences.difference(current) | fencing


def claim(incident: Incident) -> str:
    """The key of what it has."""
    if incident.service:
        return keys.open_service(incident.host, incident.service)
    if incident.drain:
        return keys.open_drain(incident.host)
    return keys.open_vm(incident.vm) if incident.vm else keys.open_host(incident.host)


def _claims(incidents: Sequence[Incident], steps: Sequence[Step], book: Book) -> dict[str, str | None]:
    """One VM, one incident; one host, one incident: taken with the first step (what failed alone: with its incident),
    let go on arrival or at the end."""
    claims: dict[str, str | None] = {}
    for incident in incidents:
        claims[claim(incident)] = incident.id if incident.is_open else None
    for step in steps:
        if step.verb in MOVES and step.state is not StepState.PLANNED:
            claims[keys.open_vm(step.subject)] = step.incident if step.is_open else None
    for incident in incidents:
        if not incident.is_open:
            for step in book.steps_of(incident):
                if step.verb in MOVES:
                    # Another one of this commit may have it by now.
                    claims.setdefault(keys.open_vm(step.subject), None)
    return claims
