# SPDX-License-Identifier: Apache-2.0
"""Power of hosts whose BMCs only their own site reaches: agents of peers ask these BMCs on our behalf.

The rules kept: what no agent's signed word says is UNKNOWN, and a peer that is silent is asked for nothing more than
its turn. A call asks at most two peers, one after the other, within the limit that a call to a BMC has: the one that
answered last comes first, one that did not goes to the end. What goes over the bus is the host's name and what to do;
addresses and passwords of BMCs are in the agents' own files.

A host is no proxy for itself, for what it says of its own power proves nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from vmhad.kernel.signal import Reading
from vmhad.ports import Power, Refused, Unanswered

# Asks the agent of a peer, within so many seconds: «read», «off» or «on» of a host -> the reading and the words.
# Raises Refused and Unanswered.
Ask = Callable[[str, str, str, float], tuple[str, str]]
ASKED_MAX = 2
# With less than this left nobody is asked.
LEAST_S = 0.1


class Reader(Protocol):
    def read(self) -> tuple[Reading, str]: ...

    def close(self) -> None: ...


class Direct(Power, Protocol):
    def poll_session(self, host: str, timeout_s: float) -> Reader: ...


class ByProxy:
    """ports.Power. peers: of each host whose BMC is asked by agents, who may ask it; every other host's is direct."""

    def __init__(self, direct: Direct, peers: Mapping[str, Sequence[str]], ask: Ask, timeout_s: float = 5.0) -> None:
        self._direct = direct
        self._ask = ask
        self._timeout_s = timeout_s
        # Each host's list begins at another peer, so that its peers share the work.
        self._peers = {
            host: [*names[number % len(names) :], *names[: number % len(names)]]
            for number, (host, names) in enumerate(sorted(peers.items()))
        }
        self._lock = threading.Lock()

    def read(self, host: str) -> tuple[Reading, str]:
        return self._read(host, self._timeout_s) if host in self._peers else self._direct.read(host)

    def off(self, host: str) -> None:
        """Raises Refused where it is certain that nothing was switched, Unanswered otherwise."""
        self._switch(host, "off", self._direct.off)

    def on(self, host: str) -> None:
        """As off."""
        self._switch(host, "on", self._direct.on)

    def poll_session(self, host: str, timeout_s: float = 2.0) -> Reader:
        return (
            _ProxyReader(self, host, timeout_s) if host in self._peers else self._direct.poll_session(host, timeout_s)
        )

    def _read(self, host: str, timeout_s: float) -> tuple[Reading, str]:
        said = []
        until = time.monotonic() + timeout_s
        asked = self._next(host)
        for peer in asked:
            try:
                word, text = self._ask(peer, "read", host, _limit_s(peer == asked[-1], until))
                reading = Reading(word)
            except (Refused, Unanswered, ValueError) as error:
                said.append(str(error))
                self._heard(host, peer, False)
                continue
            said.append(f"by {peer}: {text}")
            self._heard(host, peer, reading in (Reading.ON, Reading.OFF))
            if reading in (Reading.ON, Reading.OFF):
                return reading, said[-1]
        return Reading.UNKNOWN, "; ".join(said)

    def _switch(self, host: str, what: str, direct: Callable[[str], None]) -> None:
        if host not in self._peers:
            direct(host)
            return
        said, kind = [], Refused
        until = time.monotonic() + self._timeout_s
        asked = self._next(host)
        for peer in asked:
            try:
                self._ask(peer, what, host, _limit_s(peer == asked[-1], until))
            except (Refused, Unanswered) as error:
                said.append(str(error))
                kind = Unanswered if isinstance(error, Unanswered) else kind
                self._heard(host, peer, False)
                continue
            self._heard(host, peer, True)
            return
        raise kind("; ".join(said))

    def _next(self, host: str) -> list[str]:
        with self._lock:
            return self._peers[host][:ASKED_MAX]

    def _heard(self, host: str, peer: str, answered: bool) -> None:
        with self._lock:
            rest = [one for one in self._peers[host] if one != peer]
            self._peers[host] = [peer, *rest] if answered else [*rest, peer]


class _ProxyReader:
    """Of one host, for a watch. Between two readings it keeps nothing."""

    def __init__(self, power: ByProxy, host: str, timeout_s: float) -> None:
        self._power, self._host, self._timeout_s = power, host, timeout_s

    def read(self) -> tuple[Reading, str]:
        return self._power._read(self._host, self._timeout_s)

    def close(self) -> None:
        """There is nothing to close."""


def _limit_s(is_last: bool, until: float) -> float:
    """How long this peer may take: the last one has all that is left."""
    left_s = until - time.monotonic()
    if left_s < LEAST_S:
        raise Unanswered("no time was left to ask another peer")
    return left_s if is_last else left_s / 2
