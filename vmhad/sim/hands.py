# SPDX-License-Identifier: Apache-2.0
"""ports.Hands in virtual time: what the simulated agents do by order, and what becomes of orders and answers.

An order is harmless when it comes late by what it says itself, and the simulated agent holds it to that as the real
one does: it resumes what an I/O error paused, and restarts what still is the start that was seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from vmhad.kernel.beat import DISK_PAUSED, DomainState
from vmhad.ports import Refused, Unanswered
from vmhad.sim.agents import Agents
from vmhad.sim.clock import SimClock
from vmhad.sim.life import Life
from vmhad.sim.nova import SimNova
from vmhad.sim.services import SERVICES

ANSWER_S = 0.05
# The broker says at once that nobody listens.
UNROUTED_S = 0.01


class Ear(StrEnum):
    """How an agent takes orders. LOSES_ANSWERS: it does what it is ordered, and nobody hears of it."""

    OK = "ok"
    GONE = "gone"
    HANGS = "hangs"
    LOSES_ANSWERS = "loses-answers"


@dataclass
class ServiceOrder:
    """One order to restart a service as it reached the agent of its host; kept for the checkers. late: its sender slept
    before it left."""

    at: float
    engine: str
    host: str
    service: str
    known: str
    late: bool = False


@dataclass
class Acts:
    """The truth of all hosts. on_resume: told the engine, host and guest of each order to resume one, and whether its
    engine slept before it left; on_order: each order to restart a service, before its agent sees it. agents: where
    there are any. ears: host -> how its agent takes orders. in_vain: guests that pause again as soon as they are
    resumed. starts: host, service -> how often it was restarted by order."""

    nova: SimNova
    agents: Agents | None = None
    ears: dict[str, Ear] = field(default_factory=dict)
    in_vain: set[str] = field(default_factory=set)
    starts: dict[tuple[str, str], int] = field(default_factory=dict)
    on_resume: Callable[[str, str, str, bool], None] = lambda engine, host, server, late: None
    on_order: Callable[[ServiceOrder], None] = lambda order: None

    def ear(self, host: str) -> Ear:
        truth = self.nova.datacentre.hosts[host]
        agent = self.agents.agents[host] if self.agents is not None else None
        is_unheard = agent is not None and (agent.unheard or not agent.runs)
        is_down = self.agents is not None and self.agents.bus_is_down
        if is_unheard or is_down or not (truth.powered and truth.alive and truth.is_reached):
            return Ear.GONE
        if truth.hung or (agent is not None and agent.frozen):
            return Ear.HANGS
        return self.ears.get(host, Ear.OK)

    def invocation(self, host: str, service: str) -> str:
        """Of the start of it that runs there."""
        return self.nova.datacentre.services.unit(host, service).invocation

    def restart(self, host: str, service: str, known: str) -> None:
        if service not in SERVICES:
            raise Refused(f"this agent knows no unit of {service!r}")
        self.nova.datacentre.services.restart(host, service, known)
        self.starts[host, service] = self.starts.get((host, service), 0) + 1

    def resume(self, host: str, server_id: str) -> None:
        datacentre = self.nova.datacentre
        vm = datacentre.vms.get(server_id)
        if vm is None or host not in vm.guests:
            raise Refused(f"guest {server_id} is not there")
        state, detail, _ = vm.said
        if state is not DomainState.FROZEN or not detail.startswith(DISK_PAUSED):
            raise Refused(f"guest {server_id} is {state.value} ({detail}), not paused by an I/O error")
        if datacentre.takes("ceph", host) and server_id not in self.in_vain:
            vm.said = (DomainState.RUNNING, "", datacentre.agenda.now)


class SimHands:
    """One engine's orders. acts: what is true of all hosts."""

    def __init__(self, life: Life, clock: SimClock, acts: Acts, timeout_s: float) -> None:
        self._life, self._clock, self._acts, self._timeout_s = life, clock, acts, timeout_s

    def restart_service(self, host: str, service: str, known: str) -> None:
        self._order("restart_service", host, lambda: self._restart(host, service, known))

    def resume_guest(self, host: str, server_id: str) -> None:
        def act() -> None:
            self._acts.on_resume(self._life.name, host, server_id, self._life.is_late)
            self._acts.resume(host, server_id)

        self._order("resume_guest", host, act)

    def _restart(self, host: str, service: str, known: str) -> None:
        life, now = self._life, self._acts.nova.agenda.now
        if service in SERVICES:
            self._acts.on_order(ServiceOrder(now, life.name, host, service, known, life.is_late))
        self._acts.restart(host, service, known)

    def _order(self, verb: str, host: str, act: Callable[[], None]) -> None:
        self._life.count_call()
        if host not in self._acts.nova.datacentre.hosts:
            raise Refused(f"no segment has a host {host!r}")
        ear = self._acts.ear(host)
        if ear is Ear.GONE:
            self._clock.spend(UNROUTED_S)
            raise Unanswered(f"the order did not reach the agent of {host}: nobody listens for its orders")
        if ear is Ear.HANGS:
            self._clock.spend(self._timeout_s)
            raise Unanswered(f"the agent of {host} did not answer within its time")
        self._clock.spend(ANSWER_S)
        self._life.send(verb, act)
        if ear is Ear.LOSES_ANSWERS:
            self._clock.spend(self._timeout_s)
            raise Unanswered(f"the agent of {host} did not answer within its time")
