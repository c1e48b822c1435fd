# SPDX-License-Identifier: Apache-2.0
"""One held segment in memory: what the journal holds of it, and what was learnt since and is not written yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from math import inf
from operator import attrgetter

from vmhad.engine.eras import Eras
from vmhad.guards.hosts.lift import FELL_AGAIN
from vmhad.guards.services.recover import AGAIN
from vmhad.kernel.alone import OWNED
from vmhad.kernel.brake import Scene
from vmhad.kernel.cloud import Fallen, Inventory, Server, ServerState, Standing
from vmhad.kernel.incident import Incident
from vmhad.kernel.order import Order, OrderKind
from vmhad.kernel.policy import Policy
from vmhad.kernel.proof import Proof, holds
from vmhad.kernel.step import Outcome, Step, StepState, Verb, record
from vmhad.kernel.verdict import Ailment
from vmhad.kernel.vm_resolve import policy_of

STARTS = (Verb.RESTORE_STATE, Verb.RESTART, Verb.RESTART_SERVICE)
_NEWS = attrgetter(*(one.name for one in fields(Incident) if one.name != "wake_at"))
# A host that was suspected in vain has been asked for its fallen VMs after this long.
OWNED_LATELY_S = 120.0
# Of what was taken over from nobody knows when all counts as new.
UNPLACED = Eras(0, inf)
YEAR_9999 = 253402300799.0


@dataclass
class Survey:
    """What the states of all open incidents say to each of them. grounds: all that it was made from. holds: incident ->
    what the brake says of it, where it was asked."""

    grounds: tuple[object, ...]
    scene: Scene
    suspected_at: Mapping[str, float]
    busy_hosts: frozenset[str]
    holds: dict[str, str] = field(default_factory=dict)


@dataclass
class Book:
    """incidents, steps: as committed, by id, plus soft observations; changed only through put. epoch: the one it was
    loaded under. fallen: host -> those of its VMs that Nova switched off. standings, left: server -> how it stands, and
    the newest action on it when it was found to be none of ours; left_by_policy: those of them that policy leaves.
    spared: fallen VMs that are off by their users' wish, or opted out: no return of a host starts them. in_want: host
    -> what its last incident left undone, if that ended because the host seemed to fall again: server -> step. survey:
    the last one. ails_since, well_since: host and ailment, host -> since when it has been so without a break, until
    looked_at. answers: incident -> what its last decision rested on, and until when it stands while that is so. eras:
    what was there when it was taken over."""

    epoch: int
    incidents: dict[str, Incident]
    steps: dict[str, Step]
    inventories: dict[str, Inventory] = field(default_factory=dict)
    orders: tuple[Order, ...] = ()
    fallen: dict[str, Fallen] = field(default_factory=dict)
    standings: dict[str, Standing] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    left_by_policy: dict[str, Server] = field(default_factory=dict)
    spared: frozenset[str] = frozenset()
    in_want: dict[str, Mapping[str, Step]] = field(default_factory=dict)
    survey: Survey | None = None
    ails_since: dict[tuple[str, Ailment | None], float] = field(default_factory=dict)
    well_since: dict[str, float] = field(default_factory=dict)
    looked_at: float = -inf
    answers: dict[str, tuple[tuple[object, ...], float]] = field(default_factory=dict)
    eras: Eras = UNPLACED
    _open: tuple[Incident, ...] = ()
    _open_of_vms: tuple[Incident, ...] = ()
    _open_of_services: tuple[Incident, ...] = ()
    _drains: tuple[Incident, ...] = ()
    _of: dict[str, dict[str, Step]] = field(default_factory=dict)
    _in_order: dict[str, tuple[Step, ...]] = field(default_factory=dict)
    _started: dict[str, tuple[Step, ...]] = field(default_factory=dict)
    _ended: dict[str, Incident] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.put(steps=tuple(self.steps.values()))
        self._sort(one for one in self.incidents.values() if one.is_open)
        self._take_ended(self.incidents.values())

    def put(self, incidents: Iterable[Incident] = (), steps: Iterable[Step] = ()) -> None:
        """Takes these in place of what is here of them."""
        for step in steps:
            self.steps[step.id] = step
            self._of.setdefault(step.incident, {})[step.id] = step
            self._in_order.pop(step.incident, None)
            self._started.pop(step.incident, None)
        changed = {one.id: one for one in incidents if self.incidents.get(one.id) is not one}
        if changed:
            self.incidents.update(changed)
            maybe = {one.id: self.incidents[one.id] for one in (*self.open_now(), *changed.values())}
            self._sort(one for one in maybe.values() if one.is_open)
            self._take_ended(changed.values())

    def _sort(self, open_now: Iterable[Incident]) -> None:
        by_id = sorted(open_now, key=lambda one: one.id)
        self._open = tuple(one for one in by_id if one.is_of_host)
        self._open_of_vms = tuple(one for one in by_id if one.vm)
        self._open_of_services = tuple(one for one in by_id if one.service)
        self._drains = tuple(one for one in by_id if one.drain)

    def _take_ended(self, incidents: Iterable[Incident]) -> None:
        for one in incidents:
            newest = self._ended.get(one.host, one)
            if not one.is_of_host or one.is_open or (one.opened_at, one.id) < (newest.opened_at, newest.id):
                continue
            self._ended[one.host] = one
            self.in_want.pop(one.host, None)
            if one.because.startswith(FELL_AGAIN) and (left := self._undone(one)):
                self.in_want[one.host] = left

    def _undone(self, incident: Incident) -> Mapping[str, Step]:
        """The newest step of each of its VMs that did not get what it was to get."""
        of_vms = (one for one in self.steps_of(incident) if one.verb in (Verb.EVACUATE, Verb.RESTORE_STATE))
        # Sorted by id, and so what is restored comes after what is evacuated.
        newest = {one.subject: one for one in of_vms}
        return {key: one for key, one in newest.items() if one.state is not StepState.DONE}

    def worth_starting(self, host: str, policy: Policy, now: float) -> tuple[Server, ...]:
        """The fallen VMs of a host, without those that have an incident of their own, or had one that left them alone,
        and those that were started again and again and fell each time."""
        if (fallen := self.fallen.get(host)) is None:
            return ()
        alone = {one.vm for one in self._open_of_vms} | self.left.keys() | self.spared
        mine = ((one, policy_of(policy, one.settings)) for one in fallen.servers if one.id not in alone)
        return tuple(one for one, p in mine if self.starts(one.id, now, p.instance_window_s) < p.instance_starts_max)

    def fallen_alone(self, host: str, policy: Policy, was_back: bool, now: float) -> tuple[Server, ...]:
        """Those of them that are no failure of their host. was_back: it may have rebooted just now; so it has where
        Nova found several gone at once. What was started too often, or left alone, is for an incident of its own."""
        if (fallen := self.fallen.get(host)) is None:
            return ()
        alone = {one.vm for one in self._open_of_vms}
        worth = self.worth_starting(host, policy, now)
        own = tuple(one for one in fallen.servers if one.id not in alone and one not in worth)
        return own if was_back or len(worth) != 1 else (*own, *worth)

    def starts(self, subject: str, now: float, window_s: float) -> int:
        """Of a VM on the host that it fell on, or of a service. What a VM got back where it was evacuated to is no such
        start."""
        of_it = [one for one in self.steps.values() if one.subject == subject and one.verb in STARTS]
        mine = [one for one in of_it if not one.args.get("source") and one.args.get("state") != "stopped"]
        since = now - window_s
        once = [one for one in mine if one.verb is not Verb.RESTORE_STATE]
        return sum(one.state is StepState.DONE and one.ended_at > since for one in mine) + sum(
            self._was_vain(one) and _was_sent(one) and max(one.acted_at, one.started_at) > since for one in once
        )

    def fences(self, host: str, policy: Policy, now: float) -> int:
        """How many of its incidents were proven by a fence lately."""
        since = now - policy.quarantine_window_s
        mine = (one for one in self.incidents.values() if one.is_of_host and one.host == host and one.proof is not None)
        return sum(self.eras.opened_at(one) > since for one in mine)

    def resumes(self, server_id: str, now: float, window_s: float) -> int:
        """How often its guest was tried to be resumed, whatever came of it."""
        tries = [one for one in self.steps.values() if one.subject == server_id and one.verb is Verb.RESUME]
        return sum(one.acts > 0 and one.acted_at > now - window_s for one in tries)

    def _was_vain(self, step: Step) -> bool:
        """It failed, or its incident ended before anybody knew, because its host's took over."""
        incident = self.incidents.get(step.incident)
        is_over = incident is not None and not incident.is_open
        return step.state is StepState.FAILED or (step.state is StepState.STARTED and is_over)

    def former(self, host: str, inventory: Inventory | None) -> Mapping[str, str]:
        """Of its VMs that Nova has in ERROR: what an ended incident of the host wanted and did not reach."""
        lost = {one.id for one in inventory.servers if one.state is ServerState.ERROR} if inventory else set()
        if not lost:
            return {}
        ended = {one.id for one in self.incidents.values() if one.host == host and not one.is_open}
        left = [one for one in self.steps.values() if one.subject in lost and one.incident in ended]
        left = [one for one in left if one.verb is Verb.EVACUATE and one.state is not StepState.DONE]
        return {one.subject: one.args["state"] for one in sorted(left, key=lambda one: one.incident)}

    def open_incidents(self) -> tuple[Incident, ...]:
        """Those of hosts, by id."""
        return self._open

    def open_of_vms(self) -> tuple[Incident, ...]:
        """Those of VMs that failed alone, by id."""
        return self._open_of_vms

    def open_of_services(self) -> tuple[Incident, ...]:
        """Those of services of living hosts, by id."""
        return self._open_of_services

    def last_of_service(self, host: str, service: str) -> Incident | None:
        mine = (one for one in self.incidents.values() if one.service == service and one.host == host)
        return max(mine, key=lambda one: (one.opened_at, one.id), default=None)

    def drains(self) -> tuple[Incident, ...]:
        """The hosts that are emptied, or are to be, by id."""
        return self._drains

    def open_now(self) -> tuple[Incident, ...]:
        """Of every kind."""
        return (*self._open, *self._open_of_vms, *self._open_of_services, *self._drains)

    def steps_of(self, incident: Incident) -> tuple[Step, ...]:
        """By id."""
        if incident.id not in self._in_order:
            steps = self._of.get(incident.id, {})
            self._in_order[incident.id] = tuple(steps[key] for key in sorted(steps))
        return self._in_order[incident.id]

    def started_of(self, incident: Incident) -> tuple[Step, ...]:
        """Those that are STARTED, by id."""
        if incident.id not in self._started:
            steps = self.steps_of(incident)
            self._started[incident.id] = tuple(step for step in steps if step.state is StepState.STARTED)
        return self._started[incident.id]

    def take(self, outcome: Outcome) -> None:
        """An observation changes no state by itself, so it may stand in memory before anything is written."""
        step = self.steps.get(outcome.step)
        if step is not None and (seen := record(step, outcome)) is not step:
            self.put(steps=[seen])

    def started(self, step: Step) -> None:
        """It got its power state back: if it falls again, Nova will say so anew."""
        for fallen in tuple(self.fallen.values()):
            left = tuple(one for one in fallen.servers if one.id != step.subject)
            self.take_fallen(replace(fallen, servers=left))

    def take_standing(self, standing: Standing) -> None:
        self.standings[standing.id] = standing

    def forget_fallen(self, host: str, server_id: str) -> None:
        if (fallen := self.fallen.get(host)) is not None:
            self.take_fallen(replace(fallen, servers=tuple(one for one in fallen.servers if one.id != server_id)))

    def failed_alone(self, incident: Incident) -> tuple[str, ...]:
        """The VMs that had failed alone on a host when its incident took them over; or the one just before it did,
        which was over before anybody had looked for them again."""
        mine = (one for one in self.incidents.values() if one.vm and one.host == incident.host and one.round)
        return tuple(sorted({one.vm for one in mine if one.is_open or one.turns[-1].at >= _taken_over(one, incident)}))

    def take_fallen(self, fallen: Fallen) -> None:
        self.fallen.pop(fallen.host, None)
        if fallen.servers:
            self.fallen[fallen.host] = fallen

    def evacuations(self) -> Iterator[Step]:
        """Those of the open incidents; the oldest incident's first."""
        for incident in sorted(self._open, key=lambda one: (one.opened_at, one.id)):
            for step in self._of.get(incident.id, {}).values():
                if step.verb is Verb.EVACUATE:
                    yield step

    def proofs(self, life: Callable[[str], float]) -> Mapping[str, Proof]:
        """Those that hold for whatever their host may run, by host. life: a host's newest sign of life."""
        return {
            one.host: one.proof
            for one in self._open
            if one.proof is not None and one.proof.is_whole and holds(one.proof, one.round, life(one.host))
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
        """Orders that are over: pauses past their end; others whose incident took a turn, or that fit no incident. A
        drain does at once what it is told, and an operator's word is held against what is seen just now."""
        same = (one for key, one in current.items() if key in before and one.state is before[key].state)
        waiting = {one.subject for one in same if not one.drain}
        return [
            one
            for one in self.orders
            if (one.kind is OrderKind.PAUSE and now >= one.until)
            or one.kind is OrderKind.CONFIRM_DOWN
            or (one.kind in (OrderKind.RETRY, OrderKind.CLOSE) and one.subject not in waiting)
        ]

    def orders_for(self, incident: Incident) -> frozenset[str]:
        if not self.orders:
            return frozenset()
        return frozenset(
            one.kind for one in self.orders if one.subject == incident.subject and one.kind in ("retry", "close")
        )

    def word_for(self, incident: Incident) -> Order | None:
        """An order that says that its host is down; all of them are used up together."""
        said = (one for one in self.orders if one.kind is OrderKind.CONFIRM_DOWN and one.subject == incident.subject)
        return max(said, key=lambda one: one.id, default=None)


def _taken_over(of_vm: Incident, of_host: Incident) -> float:
    return of_host.opened_at - (OWNED_LATELY_S if of_vm.because.startswith(OWNED) else 0.0)


def _was_sent(step: Step) -> bool:
    """Or may have been, by an engine that told nobody: it was left STARTED, or a service has another start than the
    known one."""
    if step.acts or (step.state is StepState.STARTED and step.verb in (Verb.RESTART, Verb.RESTART_SERVICE)):
        return True
    return step.verb is Verb.RESTART_SERVICE and any(one.reading == AGAIN for one in step.observed)


def worth_writing(old: Incident | None, new: Incident) -> bool:
    """A new time to look again is no news."""
    return old is not new and (old is None or _NEWS(old) != _NEWS(new))


def steps_worth_writing(old: Mapping[str, Step], new: Iterable[Step]) -> tuple[Step, ...]:
    """The steps whose state, arguments or acts changed; observations alone are soft."""
    return tuple(
        step for step in new if step.id not in old or replace(step, observed=old[step.id].observed) != old[step.id]
    )
