# SPDX-License-Identifier: Apache-2.0
"""What must never be true of the simulated world, asked after every event and before every act.

A checker looks at the truth, not at what an engine believes. It reports each breach once, as a sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from vmhad.sim.compute import Post
from vmhad.sim.datacentre import Datacentre
from vmhad.sim.nova import UNFINISHED, SimNova
from vmhad.sim.power import PowerOrder


class Checkers:
    """report is called with (subject, sentence). off_limits: host -> why, says the story, a fence of it is wrong."""

    def __init__(self, datacentre: Datacentre, nova: SimNova, report: Callable[[str, str], None]) -> None:
        self._datacentre, self._nova = datacentre, nova
        self._report = report
        self._reported: set[tuple[str, str]] = set()
        self.off_limits: dict[str, str] = {}
        self.posts: list[Post] = []
        self.power_orders: list[PowerOrder] = []
        self.breaches: list[str] = []

    def after_event(self) -> None:
        for vm in self._datacentre.vms.values():
            if len(vm.guests) > 1:
                writers = self._datacentre.writers(vm)
                if len(writers) > 1:
                    self._breach(f"vm {vm.name}", f"two writers on one disk: {', '.join(sorted(writers))}")

    def on_evacuate(self, post: Post) -> None:
        """No host that may run it is on but the named target: a late twin of the same request fails there by itself."""
        self.posts.append(post)
        vm = self._datacentre.vms.get(post.server)
        server = self._nova.servers.get(post.server)
        if vm is None or server is None:
            return
        may_run = {server.host, *vm.guests}
        for move in self._nova.migrations:
            if move.server == post.server and move.status in UNFINISHED:
                may_run |= {move.source, move.target} - {""}
        on = sorted(name for name in may_run - {post.target} if self._datacentre.hosts[name].powered)
        if on and not self._datacentre.bmc_ever_lied:
            self._breach(f"vm {vm.name}", f"evacuated to {post.target} while {', '.join(on)} has power")

    def on_power(self, order: PowerOrder) -> None:
        self.power_orders.append(order)
        if order.verb == "power_off" and order.host in self.off_limits:
            self._breach(f"host {order.host}", f"power_off sent although {self.off_limits[order.host]}")

    def evacuated_twice(self) -> dict[str, int]:
        """VM name -> how many migrations Nova has of it, where there is more than one."""
        counts = Counter(move.server for move in self._nova.migrations)
        return {self._datacentre.vms[server].name: n for server, n in sorted(counts.items()) if n > 1}

    def _breach(self, subject: str, sentence: str) -> None:
        if (subject, sentence) not in self._reported:
            self._reported.add((subject, sentence))
            self.breaches.append(f"{subject}: {sentence}")
            self._report(subject, sentence)
