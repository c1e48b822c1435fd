# SPDX-License-Identifier: Apache-2.0
"""One held segment in memory: what the journal holds of it, and what was learnt since and is not written yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from vmhad.kernel.cloud import Fallen, Inventory, Server
from vmhad.kernel.incident import Incident
from vmhad.kernel.order import Order, OrderKind
from vmhad.kernel.proof import Proof, holds
from vmhad.kernel.step import Outcome, Step, StepState, Verb, record

# No step that is planned for later waits longer than this (policy.retry_backoff_max_s and a margin).
WAIT_MAX_S = 600.0
# A VM that falls whenever it is started is left alone after this many times in this long.
STARTS_MAX = 3
YEAR_9999 = 253402300799.0
STARTS_WINDOW_S = 1800.0


@dataclass
class Book:
    """incidents, steps: as committed, by id, plus soft observations. epoch: the one it was loaded under."""

    epoch: int
    incidents: dict[str, Incident]
    steps: dict[str, Step]
    inventories: dict[str, Inventory] = field(default_factory=dict)
    orders: tuple[Order, ...] = ()
    fallen: dict[str, Fallen] = field(default_factory=dict)

    def worth_starting(self, host: str, now: float) -> tuple[Server, ...]:
        """The fallen VMs of a host, without those that were started again and again and fell each time."""
        fallen = self.fallen.get(host)
        return tuple(one for one in fallen.servers if self._starts(one.id, now) < STARTS_MAX) if fallen else ()

    def _starts(self, server_id: str, now: float) -> int:
        mine = [one for one in self.steps.values() if one.subject == server_id and one.verb is Verb.RESTORE_STATE]
        return sum(one.state is StepState.DONE and one.ended_at > now - STARTS_WINDOW_S for one in mine)

    def open_incidents(self) -> tuple[Incident, ...]:
        return tuple(self.incidents[key] for key in sorted(self.incidents) if self.incidents[key].is_open)

    def steps_of(self, incident: Incident) -> tuple[Step, ...]:
        return tuple(self.steps[key] for key in sorted(self.steps) if self.steps[key].incident == incident.id)

    def take(self, outcome: Outcome) -> None:
        """An observation changes no state by itself, so it may stand in memory before anything is written."""
        step = self.steps.get(outcome.step)
        if step is not None:
            self.steps[step.id] = record(step, outcome)

    def carry_over(self, old: Book) -> None:
        """What this very process did and saw in steps that the journal still has as it knew them."""
        for step in old.steps.values():
            mine = self.steps.get(step.id)
            if mine is not None and (mine.state, mine.attempt) == (StepState.STARTED, step.attempt):
                self.steps[step.id] = replace(mine, acts=step.acts, acted_at=step.acted_at, observed=step.observed)
        for incident in old.incidents.values():
            mine_now = self.incidents.get(incident.id)
            was_inherited = incident.proof is not None and incident.proof.at == 0.0
            if was_inherited and mine_now is not None and mine_now.round == incident.round:
                self.incidents[incident.id] = inherited(mine_now)
        self.inventories = dict(old.inventories)

    def elsewhere(self, incident: Incident) -> tuple[Step, ...]:
        """The evacuations of all other open incidents."""
        others = {one.id for one in self.open_incidents() if one.id != incident.id}
        return tuple(step for step in self.steps.values() if step.incident in others and step.verb is Verb.EVACUATE)

    def claimed(self) -> Mapping[str, str]:
        """Server id -> the open incident that is evacuating it; once it has arrived it is free for its new host's."""
        open_ids = {incident.id for incident in self.open_incidents()}
        return {
            step.subject: step.incident
            for step in self.steps.values()
            if step.verb is Verb.EVACUATE and step.incident in open_ids and step.is_open
        }

    def proofs(self, life: Mapping[str, float]) -> Mapping[str, Proof]:
        """The proofs that hold, by host. life: host -> its newest sign of life."""
        return {
            one.host: one.proof
            for one in self.open_incidents()
            if one.proof is not None and holds(one.proof, one.round, life.get(one.host, 0.0))
        }

    def pause(self, host: str, now: float) -> str:
        """'' or the sentence of the pause that covers this host."""
        for order in self.orders:
            if order.kind is OrderKind.PAUSE and order.host in ("", host) and now < order.until:
                until = datetime.fromtimestamp(min(order.until, YEAR_9999), UTC).isoformat(timespec="seconds")
                return f"paused by {order.by} until {until}: {order.why}"
        return ""

    def handled_orders(
        self, before: Mapping[str, Incident], current: Mapping[str, Incident], now: float
    ) -> list[Order]:
        """Orders that are over: pauses past their end; others whose incident took a turn, or that fit no incident."""
        waiting = {one.host for key, one in current.items() if key in before and one.state is before[key].state}
        return [
            one
            for one in self.orders
            if (one.kind is OrderKind.PAUSE and now >= one.until)
            or (one.kind in (OrderKind.RETRY, OrderKind.CLOSE) and one.host not in waiting)
        ]

    def orders_for(self, incident: Incident) -> frozenset[str]:
        return frozenset(
            one.kind for one in self.orders if one.host == incident.host and one.kind in ("retry", "close")
        )


def inherited(incident: Incident) -> Incident:
    """An incident of another engine's time. Any life that we see came after its proof, whatever its clock said."""
    return replace(incident, proof=replace(incident.proof, at=0.0)) if incident.proof else incident


def perhaps_sent(step: Step, now: float) -> Step:
    """An evacuation that another engine had STARTED: its call may be on its way, and a second one beside it would harm
    the VM's record in Nova. So it counts as sent now, and is sent again only when no record of it comes."""
    if step.verb is not Verb.EVACUATE or step.state is not StepState.STARTED:
        return step
    return replace(step, acts=max(1, step.acts), acted_at=now)


def not_from_the_future(step: Step, now: float) -> Step:
    """Times stamped by a clock that runs ahead of ours would let us wait for ever."""
    return replace(
        step,
        started_at=min(step.started_at, now),
        acted_at=min(step.acted_at, now),
        ended_at=min(step.ended_at, now),
        not_before=min(step.not_before, now + WAIT_MAX_S),
    )


def worth_writing(old: Incident | None, new: Incident) -> bool:
    """A new time to look again is no news."""
    return old is None or replace(new, wake_at=old.wake_at) != old


def steps_worth_writing(old: Mapping[str, Step], new: Iterable[Step]) -> tuple[Step, ...]:
    """The steps whose state, arguments or acts changed; observations alone are soft."""
    return tuple(
        step for step in new if step.id not in old or replace(step, observed=old[step.id].observed) != old[step.id]
    )
