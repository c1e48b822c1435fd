# SPDX-License-Identifier: Apache-2.0
"""Hosts that fence themselves, in virtual time: a hardware watchdog resets the one whose record stands still.

It fires in time for what the record promises, whatever the host does: hung or cut off, it starts anew without a guest.
"""

from __future__ import annotations

from vmhad.sim.agents import Agents

LOOKS_EVERY_S = 1.0
# Lease and watchdog are over before a tenth of the sum and 5 s more are (kernel/self_fence.py).
FIRES_SHARE = 0.7


class Watchdogs:
    """after_s: what every record promises. broken: hosts whose watchdog does not fire."""

    def __init__(self, agents: Agents, after_s: float) -> None:
        self._agents, self._after_s = agents, after_s
        self.broken: set[str] = set()
        agents.self_fence_s = after_s
        agents.datacentre.compute_started.append(agents.datacentre.reset.discard)
        self._look()

    def _look(self) -> None:
        self._agents.settle()
        for name, agent in self._agents.agents.items():
            host = self._agents.datacentre.hosts[name]
            armed = [at for boot, _, at in agent.records.values() if boot == self._agents.boot(name)]
            if host.powered and host.alive and armed and name not in self.broken:
                if self._agents.agenda.now - max(armed) >= self._after_s * FIRES_SHARE:
                    self._agents.datacentre.reboot(name)
                    self._agents.datacentre.reset.add(name)
        self._agents.agenda.after(LOOKS_EVERY_S, self._look, periodic=True)
