# SPDX-License-Identifier: Apache-2.0
"""The message queue of each nova-compute, as a broker keeps it.

A request waits there until a nova-compute reads it, over its host's death too: nobody takes back what was cast. Only
what was read dies with its reader. A nova-compute that lives reads within milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable

from vmhad.sim.datacentre import Datacentre

# A starting nova-compute reads its queue only after it has cleaned up (nova.CLEAN_EVACUATED_S).
READS_AFTER_S = 3.3
LOOK_AGAIN_S = 0.5
CAST_S = 0.02


class HostQueues:
    """One queue a host. What waits is read in the order in which it came."""

    def __init__(self, datacentre: Datacentre) -> None:
        self._datacentre, self._agenda = datacentre, datacentre.agenda
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._reads_from: dict[str, float] = {}
        self._looking: set[str] = set()
        self._starts: dict[str, int] = {}
        datacentre.compute_started.append(self._compute_started)

    def cast(self, host: str, takes_s: float, act: Callable[[], None]) -> None:
        """act runs on the host when its nova-compute has read the request and worked on it; takes_s: in all."""

        def read() -> None:
            self.work(host, self.life(host), takes_s - CAST_S, act)

        def arrive() -> None:
            self._waiting.setdefault(host, []).append(read)
            self._read(host)

        self._agenda.after(CAST_S, arrive)

    def work(
        self, host: str, life: tuple[int, int], takes_s: float, act: Callable[[], None], alone: bool = False
    ) -> None:
        """act, if that nova-compute still lives by then. A hung one does it when it goes on, and one that is not
        reached when it is: a nova-compute saves nothing by itself. alone: it needs nobody for it."""

        def due() -> None:
            truth = self._datacentre.hosts[host]
            if self.life(host) != life or not truth.compute:
                return
            if truth.hung or truth.stalled or not (truth.is_reached or alone):
                self._agenda.after(LOOK_AGAIN_S, due, periodic=True)
            else:
                act()

        self._agenda.after(takes_s, due)

    def life(self, host: str) -> tuple[int, int]:
        """Which nova-compute of the host this is: another after each start of the host, and after each of its own."""
        return self._datacentre.hosts[host].life, self._starts.get(host, 0)

    def _compute_started(self, host: str) -> None:
        self._starts[host] = self._starts.get(host, 0) + 1
        self._reads_from[host] = self._agenda.now + READS_AFTER_S
        self._read(host)

    def _read(self, host: str) -> None:
        truth = self._datacentre.hosts[host]
        wait_s = self._reads_from.get(host, 0.0) - self._agenda.now
        if not self._waiting.get(host) or not (truth.powered and truth.alive and truth.compute):
            return
        if not truth.serves or wait_s > 0.0:
            self._look_again(host, max(wait_s, LOOK_AGAIN_S))
            return
        for act in self._waiting.pop(host):
            act()

    def _look_again(self, host: str, delay_s: float) -> None:
        """A host that hangs or is not reached reads on when it can; periodic, for that may be never."""

        def look() -> None:
            self._looking.discard(host)
            self._read(host)

        if host not in self._looking:
            self._looking.add(host)
            self._agenda.after(delay_s, look, periodic=True)
