# SPDX-License-Identifier: Apache-2.0
"""Whether those are ready that others wait for: asked only while somebody waits, a few at a time, by the workers.

Soft: in memory, forgotten as soon as nobody waits, and asked anew by an heir. What the agent of a host says of a guest
comes with its beats and is asked of nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from vmhad.engine.guests import Guests
from vmhad.guards.hosts.order import gate_of
from vmhad.kernel.beat import DomainState
from vmhad.kernel.gate import GateAsk, GateSeen, Kind, Ready, read_gate
from vmhad.kernel.step import Step
from vmhad.ports import Clock, Readiness, Workers

# A few: each may take its whole limit, and the workers are for what recovers VMs.
AT_ONCE = 4
EVERY_S = 2.0
# What was seen so long ago says nothing any more.
OLD_S = 15.0
# A decision that waits is made again every second; whoever has not asked for so long is not there any more.
WANTED_S = 5.0


@dataclass(frozen=True, slots=True)
class GateLook:
    """What one look saw, for whom it is for."""

    server: str
    seen: GateSeen


@dataclass
class Gates:
    """eye: None where nobody asks. seen: server id -> what was seen last."""

    eye: Readiness | None
    workers: Workers
    clock: Clock
    guests: Guests
    seen: dict[str, GateSeen] = field(default_factory=dict)
    _wanted: dict[str, tuple[float, tuple[GateAsk, ...]]] = field(default_factory=dict)
    _asked_at: dict[str, float] = field(default_factory=dict)
    _under_way: set[str] = field(default_factory=set)

    def want(self, incident: str, asks: tuple[GateAsk, ...], now: float) -> None:
        """In place of what this incident waited for before."""
        if asks:
            self._wanted[incident] = now, asks
        else:
            self._wanted.pop(incident, None)

    def begin(self, now: float) -> None:
        """Asks those that were not asked for longest; forgets what nobody waits for."""
        if not (self._wanted or self.seen):
            return
        self._wanted = {key: one for key, one in self._wanted.items() if now < one[0] + WANTED_S}
        asks = {ask.server: ask for _, told in self._wanted.values() for ask in told}
        self.seen = {server: one for server, one in self.seen.items() if server in asks}
        self._asked_at = {server: at for server, at in self._asked_at.items() if server in asks}
        due = (one for one in asks.values() if now >= self._asked_at.get(one.server, -inf) + EVERY_S)
        for ask in sorted(due, key=lambda one: (self._asked_at.get(one.server, -inf), one.server)):
            if len(self._under_way) >= AT_ONCE:
                return
            self._ask(ask, now)

    def _ask(self, ask: GateAsk, now: float) -> None:
        """What beats tell is not asked for."""
        eye, name = self.eye, f"gate {ask.gate} of {ask.server}"
        if eye is None or ask.gate == Kind.AGENT:
            return
        if self.workers.submit(name, lambda: self._look(eye, ask)):
            self._under_way.add(name)
            self._asked_at[ask.server] = now

    def _look(self, eye: Readiness, ask: GateAsk) -> GateLook:
        """A gate of a later release is none of this one's."""
        began_at = self.clock.now()
        try:
            gate = read_gate(ask.gate)
        except ValueError as error:
            unread = GateSeen(ask.gate, Ready.UNKNOWN, f"the gate {ask.gate!r} {error}", began_at)
            return GateLook(ask.server, unread)
        ready, words = eye.read(ask.server, gate)
        return GateLook(ask.server, GateSeen(ask.gate, ready, words, began_at))

    def take(self, look: GateLook) -> None:
        self.seen[look.server] = look.seen

    def ended(self, name: str) -> None:
        """A call of the workers ended, however it did."""
        self._under_way.discard(name)

    def of(self, evacuations: Iterable[Step], now: float, stale_s: float) -> Mapping[str, GateSeen]:
        """What is known of those of them that arrived and have a gate. Of one that arrived twice its first host may be
        the dead one: whoever tells of its guest goes before who does not."""
        found: dict[str, GateSeen] = {}
        for step in evacuations:
            gate = gate_of(step)
            seen = self._told(step, now, stale_s) if gate == Kind.AGENT else self.seen.get(step.subject)
            if not gate or seen is None or now >= seen.at + OLD_S:
                continue
            if step.subject not in found or found[step.subject].ready is Ready.UNKNOWN:
                found[step.subject] = seen
        return found

    def _told(self, step: Step, now: float, stale_s: float) -> GateSeen:
        """By the agent of the host that it arrived on."""
        host = step.args.get("target", "")
        domain, at = self.guests.of(step.subject, host, now, stale_s)
        if domain is None:
            return GateSeen(Kind.AGENT, Ready.UNKNOWN, f"no agent on {host} tells of its guest", now)
        if domain.state is DomainState.RUNNING and domain.agent:
            return GateSeen(Kind.AGENT, Ready.READY, "its guest agent is there", at)
        if domain.state is DomainState.RUNNING:
            return GateSeen(Kind.AGENT, Ready.NOT_READY, "its guest agent is not there yet", at)
        return GateSeen(Kind.AGENT, Ready.NOT_READY, f"its guest is {domain.state.value}", at)
