# SPDX-License-Identifier: Apache-2.0
"""The drains of one segment in one tick: which living hosts are to be emptied, and what each drain gets to see.

How long a host has ailed, or been healthy, is soft: an engine that takes over, or that stood still, counts anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from vmhad.engine.book import Book
from vmhad.engine.cases import Cases
from vmhad.engine.evidence_store import EvidenceStore, Judged
from vmhad.journal import keys
from vmhad.kernel.case import DrainCase
from vmhad.kernel.incident import Incident, State, opened_of_drain
from vmhad.kernel.policy import Policy
from vmhad.kernel.signal import Channel, Reading
from vmhad.kernel.step import MOVES, Step, StepState, Verb
from vmhad.kernel.topology import Segment
from vmhad.kernel.verdict import Judgement

# Whoever did not look for so long cannot say that it was so all the time.
LOOKED_S = 5.0


@dataclass
class Drains:
    """due: the hosts that have ailed for long enough."""

    segment: Segment
    policy: Policy
    book: Book
    judged: Judged
    evidence: EvidenceStore
    now: float
    due: tuple[str, ...] = ()
    _current: dict[str, Incident] = field(default_factory=dict)
    _steps: dict[str, dict[str, Step]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        book, now = self.book, self.now
        if now > book.looked_at + LOOKED_S:
            book.ails_since, book.well_since = {}, {}
        book.looked_at = now
        ailing = {(host, self.judged.verdicts[host].ailment) for host in self.judged.unwell if self._ails(host)}
        book.ails_since = {one: book.ails_since.get(one, now) for one in ailing}
        watched = {one.host for one in book.drains()} & self.judged.verdicts.keys()
        healthy = (host for host in watched if self.judged.verdicts[host].judgement is Judgement.HEALTHY)
        well = [host for host in healthy if self._is_heard(host)]
        book.well_since = {host: book.well_since.get(host, now) for host in well}
        after_s = self.policy.drain_after_s
        self.due = tuple(sorted(host for (host, _), at in book.ails_since.items() if now >= at + after_s))

    def _ails(self, host: str) -> bool:
        return self.policy.drain.covers(self.judged.verdicts[host].ailment)

    def _is_heard(self, host: str) -> bool:
        """Its agent, whose word it is that it ails. While that says nothing the host may look well to all others."""
        seen = self.evidence.of(host).seen.get(Channel.AGENT)
        return seen is not None and seen.reading is Reading.UP and self.now - seen.at < self.policy.agent_suspect_s

    def fresh(self, hosts: Mapping[str, Incident], contested: Collection[str]) -> Iterator[Incident]:
        """hosts: the open incidents of hosts, and of drains."""
        taken = {one.host for one in hosts.values() if one.is_open and (one.is_of_host or one.drain)}
        for host in self.due:
            if host not in taken and keys.open_drain(host) not in contested:
                because = f"for longer than drain_after_s: {self.judged.verdicts[host].because}"
                yield opened_of_drain(self.segment.name, host, self.now, because)

    def begin(self, drains: Collection[Incident]) -> None:
        self._current = {one.id: one for one in drains}
        self._steps = {one.id: {step.id: step for step in self.book.steps_of(one)} for one in drains}

    def take(self, incident: Incident, changed: Collection[Step]) -> None:
        """What was decided of one is seen by those decided after it in the same tick."""
        self._current[incident.id] = incident
        self._steps[incident.id].update((step.id, step) for step in changed)
        if not incident.is_open:
            # What was closed by order while it still ails begins anew.
            ails_since = self.book.ails_since
            self.book.ails_since = {one: self.now if one[0] == incident.host else at for one, at in ails_since.items()}

    def of(self, incident: Incident, cases: Cases, current: Mapping[str, Incident]) -> DrainCase:
        """current: all open incidents, as they are after this tick's decisions so far."""
        others = [one for one in self._current.values() if one.id != incident.id and one.is_open]
        started = [step for one in others for step in self._started(one)]
        claimed = {one.vm: one.id for one in current.values() if one.vm and one.is_open}
        host = incident.host
        verdicts = self.judged.verdicts
        touched = {one.host for one in others if self._steps[one.id]}
        unwell = self.judged.unwell & verdicts.keys()
        ailing = {name for name in unwell if self._ails(name) or not verdicts[name].serves}
        well_from = self.book.well_since.get(host, self.now)
        return DrainCase(
            case=cases.beside(incident, started, claimed),
            owner=next((one.id for one in current.values() if one.is_of_host and one.host == host and one.is_open), ""),
            well_s=self.now - well_from,
            is_heard=self._is_heard(host),
            ailing=frozenset(ailing | touched) - {host},
            draining=frozenset(one.host for one in others if self._is_under_way(one)),
            moving=frozenset(one.host for one in others if self._started(one)),
        )

    def _started(self, incident: Incident) -> list[Step]:
        steps = self._steps[incident.id].values()
        return [step for step in steps if step.verb in MOVES and step.state is StepState.STARTED]

    def _is_under_way(self, incident: Incident) -> bool:
        """Until everything that can go has gone, or was given up."""
        if incident.state is not State.DRAINING:
            return False
        steps = self._steps[incident.id].values()
        moves = [step for step in steps if step.verb is Verb.LIVE_MIGRATE]
        if moves:
            return any(step.is_open for step in moves)
        disabled_at = max((step.ended_at for step in steps if step.state is StepState.DONE), default=None)
        inventory = self.book.inventories.get(incident.host)
        return disabled_at is None or inventory is None or inventory.at < disabled_at
