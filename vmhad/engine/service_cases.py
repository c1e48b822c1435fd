# SPDX-License-Identifier: Apache-2.0
"""The cases of the services of living hosts, of one segment in one tick."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from vmhad.engine.book import Book
from vmhad.engine.evidence_store import EvidenceStore, Judged
from vmhad.engine.units import Units
from vmhad.engine.vm_cases import owner
from vmhad.guards.services.catalog import CATALOG, broken
from vmhad.guards.services.judge import is_worth_asking, judge
from vmhad.journal import keys
from vmhad.kernel.case import Health, ServiceCase
from vmhad.kernel.evidence import Evidence
from vmhad.kernel.incident import Incident, State, opened_of_service
from vmhad.kernel.order import CLOSED_BY_ORDER
from vmhad.kernel.policy import Policy
from vmhad.kernel.signal import Channel, Reading
from vmhad.kernel.step import StepState, Verb
from vmhad.kernel.topology import Segment

# Looked up once: a member of an enumeration costs ten times what another name does.
NOVA, UP, DOWN = Channel.NOVA, Reading.UP, Reading.DOWN
RANK = {one.name: number for number, one in enumerate(CATALOG)}


class Ill(NamedTuple):
    """A service of which its host's agent, or Nova, says that it does not do its work. since: when that began."""

    host: str
    service: str
    because: str
    since: float
    wish: bool


@dataclass
class ServiceCases:
    """hosts: the open incidents of hosts, as they are after this tick's decisions. contested: as Cases has it.
    has_hands: somebody takes our orders on these hosts."""

    segment: Segment
    policy: Policy
    book: Book
    judged: Judged
    evidence: EvidenceStore
    units: Units
    contested: Collection[str]
    has_hands: bool
    now: float
    hosts: Mapping[str, Incident] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ill = tuple(self._ill()) if self.has_hands else ()
        self.under_way = {one.id for one in self.book.open_of_services() if one.state is State.RECOVERING}

    def _ill(self) -> Iterator[Ill]:
        """Those that are worth an incident, if their hosts have none; what is needed stands before what needs it. Of a
        host whose agent never told of services nothing is worth asking."""
        doubtful = self.units.not_running | (self.judged.unwell & self.units.told.keys())
        for host in (name for name in self.segment.names if name in doubtful) if doubtful else ():
            for service in (one.name for one in CATALOG):
                health = self._health(host, service)
                if is_worth_asking(health, service, self.policy):
                    row = judge(health, service, self.policy)
                    because = "its agent says that it does not run" if row.wish else row.because
                    yield Ill(host, service, because, health.at - health.lasts_s, row.wish)

    def fresh(self) -> Iterator[Incident]:
        """New incidents."""
        known = {one.subject for one in self.book.open_of_services()}
        for one in self.ill:
            verdict = self.judged.verdicts.get(one.host)
            is_taken = f"{one.host}/{one.service}" in known or self._owner(one.host)
            is_taken = is_taken or keys.open_service(one.host, one.service) in self.contested
            if not is_taken and verdict is not None and verdict.serves and not self._was_let(one):
                yield opened_of_service(one.host, one.service, self.segment.name, self.now, one.because)

    def _was_let(self, ill: Ill) -> bool:
        """Since it is so an incident told that somebody wants it off, or was closed by an order with it as it is."""
        last = self.book.last_of_service(ill.host, ill.service)
        if last is None or last.is_open or last.turns[-1].at < ill.since:
            return False
        return ill.wish or last.because == CLOSED_BY_ORDER

    def in_order(self) -> list[Incident]:
        """The open ones and the new ones, what is needed before what needs it."""
        return sorted((*self.book.open_of_services(), *self.fresh()), key=lambda one: (one.host, RANK[one.service]))

    def of(self, incident: Incident) -> ServiceCase:
        is_new = incident.state in (State.SUSPECTED, State.FENCING)
        return ServiceCase(
            incident=incident,
            steps=self.book.steps_of(incident),
            policy=self.policy,
            health=self._health(incident.host, incident.service),
            leaving=self._leaving(incident.host) if is_new else (),
            owner=self._owner(incident.host),
            starts=self.book.starts(incident.subject, self.now, self.policy.service_window_s) if is_new else 0,
            under_way=len(self.under_way - {incident.id}),
            hold=self.book.pause(incident.host, self.now) if is_new else "",
            orders=self.book.orders_for(incident),
        )

    def take(self, incident: Incident) -> None:
        """What was decided of one is seen by those decided after it in the same tick."""
        (self.under_way.add if incident.state is State.RECOVERING else self.under_way.discard)(incident.id)

    def _leaving(self, host: str) -> tuple[str, ...]:
        steps = (step for drain in self.book.drains() if drain.host == host for step in self.book.steps_of(drain))
        moves = (one for one in steps if (one.verb, one.state) == (Verb.LIVE_MIGRATE, StepState.STARTED))
        return tuple(sorted(one.args["name"] for one in moves))

    def _owner(self, host: str) -> str:
        return owner(host, self.hosts, self.judged, self.book)

    def _health(self, host: str, service: str) -> Health:
        told = self.units.of(host, self.now, self.policy.agent_suspect_s)
        unit = told.units.get(service) if told is not None else None
        if told is None or unit is None:
            return Health()
        evidence = self.evidence.of(host)
        down_s = self._down_s(evidence)
        return Health(
            unit=unit,
            at=told.at,
            lasts_s=told.uptime_s - unit.since_s,
            nova_down_s=down_s,
            fellows_up=down_s >= self.policy.service_hung_s and self._fellows_are_up(host),
            heard_at=evidence.heard_at,
            broken=broken(service, told.units),
        )

    def _down_s(self, evidence: Evidence) -> float:
        """For how long Nova reads it down while its agent is heard: who was cut off is given the time to report."""
        seen = evidence.seen.get(NOVA)
        is_down = evidence.reading(NOVA, self.now, self.policy.channel_stale_s) is DOWN
        if seen is None or not is_down or evidence.heard_at >= seen.first_at:
            return 0.0
        return max(0.0, seen.at - max(seen.first_at, evidence.back_at, evidence.agent_from))

    def _fellows_are_up(self, host: str) -> bool:
        """Most of the others of its segment, for as long: else it is Nova, or the bus, or one of them was it until just
        now and all report again one by one."""
        others = [name for name in self.segment.names if name != host]
        return 2 * sum(self._is_long_up(self.evidence.of(name)) for name in others) > len(others)

    def _is_long_up(self, evidence: Evidence) -> bool:
        seen, policy = evidence.seen.get(NOVA), self.policy
        is_up = evidence.reading(NOVA, self.now, policy.channel_stale_s) is UP
        return is_up and seen is not None and seen.at - seen.first_at >= policy.service_hung_s
