# SPDX-License-Identifier: Apache-2.0
"""From libvirt's numbers to what a beat says of a guest, and what must be remembered between two lists of them.

The list of the domains is the level. Three things it does not hold: a disk's errors where the guest is not paused for
them (Nova's guests are not), that a guest agent once answered, and that it was a panic that ended a guest (libvirt
destroys it then, as Nova tells it to, and calls it crashed). They are kept here, and forgotten with the process of the
guest that they were seen of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vmhad.kernel.beat import DISK_PAUSED, Domain, DomainState

# A guest that goes on asking its dead disk gives errors every few seconds; after so much quiet it may be well again.
DISK_QUIET_S = 30.0
PANICKED = "panicked"
RUNNING, BLOCKED, PAUSED, SHUTTING_DOWN, SHUT_OFF, CRASHED, SUSPENDED = range(1, 8)
PLAIN = {
    RUNNING: (DomainState.RUNNING, ""),
    BLOCKED: (DomainState.RUNNING, ""),
    PAUSED: (DomainState.PAUSED, "unknown"),
    SHUTTING_DOWN: (DomainState.OTHER, "shutting down"),
    SHUT_OFF: (DomainState.SHUT_OFF, "unknown"),
    CRASHED: (DomainState.CRASHED, "unknown"),
    SUSPENDED: (DomainState.OTHER, "suspended by itself"),
}
# libvirt's states and reasons are numbers of its ABI: (state, reason) -> what a beat says.
WITH_REASON = {
    (PAUSED, 1): (DomainState.PAUSED, "user"),
    (PAUSED, 2): (DomainState.PAUSED, "migration"),
    (PAUSED, 3): (DomainState.PAUSED, "save"),
    (PAUSED, 4): (DomainState.PAUSED, "dump"),
    (PAUSED, 5): (DomainState.FROZEN, DISK_PAUSED),
    (PAUSED, 6): (DomainState.CRASHED, "watchdog"),
    (PAUSED, 7): (DomainState.PAUSED, "from snapshot"),
    (PAUSED, 8): (DomainState.OTHER, "shutting down"),
    (PAUSED, 9): (DomainState.PAUSED, "snapshot"),
    (PAUSED, 10): (DomainState.CRASHED, PANICKED),
    (PAUSED, 11): (DomainState.OTHER, "starting"),
    (PAUSED, 12): (DomainState.PAUSED, "migration"),
    (PAUSED, 13): (DomainState.OTHER, "post-copy failed"),
    (SHUT_OFF, 1): (DomainState.SHUT_OFF, "shutdown"),
    (SHUT_OFF, 2): (DomainState.SHUT_OFF, "destroyed"),
    (SHUT_OFF, 3): (DomainState.CRASHED, "crashed"),
    (SHUT_OFF, 4): (DomainState.SHUT_OFF, "migrated"),
    (SHUT_OFF, 5): (DomainState.SHUT_OFF, "saved"),
    (SHUT_OFF, 6): (DomainState.CRASHED, "failed"),
    (SHUT_OFF, 7): (DomainState.SHUT_OFF, "from snapshot"),
    # libvirtd could not take a guest up again when it started, and ended it.
    (SHUT_OFF, 8): (DomainState.CRASHED, "ended by libvirtd"),
    (CRASHED, 1): (DomainState.CRASHED, PANICKED),
}


class Row(NamedTuple):
    """One domain of libvirt's list. process: its id there, new with every start; -1 while it is off."""

    server: str
    process: int
    state: int
    reason: int


@dataclass(slots=True)
class _Known:
    """What was seen of one guest process. agent: None until its guest agent answered, then whether it does. paused_at:
    when it was last seen paused by an error of its disk; whoever resumed it knew of that error."""

    process: int
    agent: bool | None = None
    disk: str = ""
    disk_at: float = 0.0
    paused_at: float = 0.0


def level(state: int, reason: int) -> tuple[DomainState, str]:
    """What the list alone says."""
    return WITH_REASON.get((state, reason)) or PLAIN.get(state, (DomainState.OTHER, f"state {state}"))


class GuestStates:
    """Not for more than one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        # Server -> the process that panicked, for as long as no other one runs; -1 where it was off before we heard.
        self._panicked: dict[str, int] = {}
        self._domains: Mapping[str, Domain] = {}

    def disk_error(self, server: str, disk: str, at: float) -> None:
        if server in self._known:
            self._known[server].disk, self._known[server].disk_at = disk, at

    def panic(self, server: str) -> None:
        if server in self._known:
            self._panicked[server] = self._known[server].process

    def agent(self, server: str, connected: bool) -> None:
        """An agent that was never connected has nothing to fall silent with."""
        known = self._known.get(server)
        if known is not None and (connected or known.agent is not None):
            known.agent = connected

    def meet(self, rows: Iterable[Row]) -> None:
        """The list as a whole, before it is asked what was heard of the guests in it. Who is not in it is gone."""
        known = {}
        for row in rows:
            if row.process not in (-1, self._panicked.get(row.server)):
                self._panicked.pop(row.server, None)
            old = self._known.get(row.server)
            known[row.server] = old if old is not None and old.process == row.process else _Known(row.process)
        self._known = known
        self._panicked = {server: process for server, process in self._panicked.items() if server in known}

    def take(self, rows: Iterable[Row], now: float) -> Mapping[str, Domain]:
        """The same list; what is to be said of it."""
        domains = {}
        for row in sorted(rows):
            state, detail = self._state(row, self._known[row.server], now)
            if state is DomainState.CRASHED and row.server in self._panicked:
                detail = PANICKED
            before = self._domains.get(row.server)
            since_s = before.since_s if before is not None and before.state is state else now
            domains[row.server] = Domain(state, detail, since_s, self._known[row.server].agent)
        self._domains = domains
        return domains

    @staticmethod
    def _state(row: Row, known: _Known, now: float) -> tuple[DomainState, str]:
        state, detail = level(row.state, row.reason)
        if state is DomainState.FROZEN:
            known.paused_at = now
            return state, f"{detail} on {known.disk}" if known.disk else detail
        if state is DomainState.RUNNING and known.disk and known.disk_at > max(known.paused_at, now - DISK_QUIET_S):
            return DomainState.FROZEN, f"I/O error on {known.disk}"
        if state is DomainState.RUNNING and known.agent is False:
            return DomainState.UNRESPONSIVE, "guest agent disconnected"
        return state, detail
