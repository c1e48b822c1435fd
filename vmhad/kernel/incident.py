# SPDX-License-Identifier: Apache-2.0
"""The life of one failure, from suspicion to close, as one table.

An event that the table does not list for a state is an error, never a silent skip. Holding is no state: a held
incident stays where it is and says why. STUCK is loud, has a reason and a time to look again; it is left when what was
missing comes back, or by an order. From FENCING on a host that looks alive again changes nothing, unless no act has
landed: a half-fenced host is the worst host.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from vmhad.kernel.cloud import Server
from vmhad.kernel.exhibit import Exhibit, Owner
from vmhad.kernel.proof import Proof


class State(StrEnum):
    SUSPECTED = "suspected"
    FENCING = "fencing"
    DRAINING = "draining"
    RECOVERING = "recovering"
    RECOVERED = "recovered"
    LIFTING = "lifting"
    STUCK = "stuck"
    DISMISSED = "dismissed"
    CLOSED = "closed"


class Event(StrEnum):
    DISMISSED = "dismissed"
    FAILED = "failed"
    AILS = "ails"
    WITHDRAWN = "withdrawn"
    PROVEN = "proven"
    PROOF_LOST = "proof_lost"
    EXHAUSTED = "exhausted"
    RETRIED = "retried"
    RECOVERED = "recovered"
    RETURNED = "returned"
    FELL_AGAIN = "fell_again"
    LIFTED = "lifted"
    CLOSED = "closed"


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.SUSPECTED: {
        Event.DISMISSED: State.DISMISSED,
        Event.FAILED: State.FENCING,
        Event.AILS: State.DRAINING,
        Event.RETURNED: State.LIFTING,
        Event.CLOSED: State.CLOSED,
    },
    State.DRAINING: {
        Event.FELL_AGAIN: State.SUSPECTED,
        Event.RETURNED: State.LIFTING,
        Event.CLOSED: State.CLOSED,
    },
    State.FENCING: {
        Event.PROVEN: State.RECOVERING,
        Event.EXHAUSTED: State.STUCK,
        Event.WITHDRAWN: State.DISMISSED,
    },
    State.RECOVERING: {
        Event.RECOVERED: State.RECOVERED,
        Event.PROOF_LOST: State.FENCING,
        Event.EXHAUSTED: State.STUCK,
    },
    State.STUCK: {
        Event.RETRIED: State.FENCING,
        Event.RETURNED: State.LIFTING,
        Event.FELL_AGAIN: State.CLOSED,
        Event.WITHDRAWN: State.DISMISSED,
        Event.CLOSED: State.CLOSED,
    },
    State.RECOVERED: {
        Event.RETURNED: State.LIFTING,
        Event.PROOF_LOST: State.FENCING,
        Event.CLOSED: State.CLOSED,
    },
    State.LIFTING: {
        Event.AILS: State.DRAINING,
        Event.LIFTED: State.CLOSED,
        Event.FELL_AGAIN: State.CLOSED,
        Event.EXHAUSTED: State.STUCK,
        Event.CLOSED: State.CLOSED,
    },
    State.DISMISSED: {},
    State.CLOSED: {},
}

# The first turn and the newest are kept: an incident that is tried again for weeks must still fit its journal.
TURNS_MAX = 60

ENDED = frozenset(state for state, edges in TRANSITIONS.items() if not edges)


class UnlistedEvent(Exception):
    """An event came in a state that has no edge for it: the code is wrong, not the cloud."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One change of state, kept in the incident: its timeline."""

    at: float
    state: State
    because: str


@dataclass(frozen=True, slots=True)
class Incident:
    """One failure of one host, or of one VM or one service of it alone. id: '<subject>.<n>', n is when it was opened
    (ms). held: '' or why nothing is done. vm, vm_name, service: '' for a host's; else the server, or the service, while
    host is where it failed. drain: the host lives and is emptied, which is no failure of it and stands beside an
    incident of its own.

    round: counts the passages into FENCING; steps of an older round prove nothing. wake_at: look again no later.
    exhibits: what its decisions saw. owners: every engine that committed to it.
    """

    id: str
    segment: str
    host: str
    state: State
    opened_at: float
    because: str
    turns: tuple[Turn, ...] = ()
    held: str = ""
    proof: Proof | None = None
    round: int = 0
    wake_at: float = 0.0
    vm: str = ""
    vm_name: str = ""
    service: str = ""
    drain: bool = False
    exhibits: tuple[Exhibit, ...] = ()
    owners: tuple[Owner, ...] = ()

    @property
    def is_of_host(self) -> bool:
        """A failure of its host."""
        return not (self.vm or self.service or self.drain)

    @property
    def subject(self) -> str:
        """A host's name holds no '/', and neither does a server's id."""
        return f"{self.host}/{self.service}" if self.service else self.vm or self.host

    @property
    def is_open(self) -> bool:
        return self.state not in ENDED


def opened(incident_id: str, segment: str, host: str, now: float, because: str) -> Incident:
    turn = Turn(now, State.SUSPECTED, because)
    return Incident(incident_id, segment, host, State.SUSPECTED, now, because, (turn,))


def opened_of_vm(server: Server, segment: str, now: float, because: str) -> Incident:
    incident = opened(f"{server.id}.{int(now * 1000)}", segment, server.host, now, because)
    return replace(incident, vm=server.id, vm_name=server.name)


def opened_of_service(host: str, service: str, segment: str, now: float, because: str) -> Incident:
    incident = opened(f"{host}/{service}.{int(now * 1000)}", segment, host, now, because)
    return replace(incident, service=service)


def opened_of_drain(segment: str, host: str, now: float, because: str) -> Incident:
    return replace(opened(f"{host}.drain.{int(now * 1000)}", segment, host, now, because), drain=True)


def turn(incident: Incident, event: Event, now: float, because: str) -> Incident:
    """The incident after an event. Raises UnlistedEvent where the table has no such edge."""
    try:
        state = TRANSITIONS[incident.state][event]
    except KeyError:
        raise UnlistedEvent(f"{incident.id} is {incident.state.value}: no edge for {event.value}") from None
    return replace(
        incident,
        state=state,
        because=because,
        held="",
        turns=(*incident.turns[:1], *(*incident.turns[1:], Turn(now, state, because))[-TURNS_MAX:]),
        round=incident.round + (state is State.FENCING),
    )
