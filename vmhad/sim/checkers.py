# SPDX-License-Identifier: Apache-2.0
"""What must never be true of the simulated world, asked after every event and before every act.

A checker looks at the truth, not at what an engine believes. It reports each breach once, as a sentence. It costs
nothing while nothing happens: guests that start, requests that arrive and VMs that land call it. What the journal
says is held against the truth in ledger.py.
"""

from __future__ import annotations

from collections.abc import Callable

from vmhad.kernel.cloud import ARRIVED
from vmhad.sim.compute import Post
from vmhad.sim.datacentre import Datacentre
from vmhad.sim.nova import UNFINISHED, MigrationRow, ServerRow, SimNova
from vmhad.sim.power import PowerOrder

# Somebody may switch a host on between our last reading and the request that rests on it: its guests are gone for good.
JUST_SWITCHED_ON_S = 1.5


class Checkers:
    """report is called with (subject, sentence). off_limits: host -> why, says the story, a fence of it is wrong.

    excused: hosts whose BMC says OFF of them while nobody hears them, or that an operator called down while they were
    not. No eye can tell such a host from a dead one. opened: those that somebody gave a storage back that we had cut.
    said_down: those that an operator called down; one that is switched on after that with a silent BMC is empty.
    """

    def __init__(self, datacentre: Datacentre, nova: SimNova, report: Callable[[str, str], None]) -> None:
        self._datacentre, self._nova = datacentre, nova
        self._report = report
        self._reported: set[tuple[str, str]] = set()
        self.off_limits: dict[str, str] = {}
        self.excused: set[str] = set()
        self.opened: set[str] = set()
        self.said_down: set[str] = set()
        self.posts: list[Post] = []
        self.power_orders: list[PowerOrder] = []
        self.breaches: list[str] = []

    def after_event(self) -> None:
        touched = self._datacentre.touched
        while touched:
            vm = touched.pop()
            writers = self._datacentre.writers(vm)
            if len(writers) > 1 and not writers & (self.excused | self.opened):
                self.breach(f"vm {vm.name}", f"two writers on one disk: {', '.join(sorted(writers))}")

    def on_evacuate(self, post: Post) -> None:
        """No host that may run it is on and may write to its disk but the named target: a late twin of the same request
        fails there by itself."""
        self.posts.append(post)
        vm = self._datacentre.vms.get(post.server)
        server = self._nova.servers.get(post.server)
        if vm is None or server is None:
            return
        may_run = {server.host, *vm.guests}
        mine = [move for move in self._nova.migrations if move.server == post.server]
        landed = max((move.number for move in mine if move.status in ARRIVED), default=0)
        for move in mine:
            if move.status in UNFINISHED:
                # It left that source by a newer one; what it was sent to before may do it yet.
                source = move.source if move.number > landed else ""
                may_run |= {source, "" if self._died_with_it(move) else move.target} - {""}
        cut = self._datacentre.fenced_from_all(vm) | self._datacentre.reset | (self.said_down - vm.guests)
        on = sorted(name for name in may_run - {post.target} - self.excused - cut if self._is_on(name))
        if on and not (post.late or self._datacentre.bmc_ever_lied and not self.excused):
            self.breach(f"vm {vm.name}", f"evacuated to {post.target} while {', '.join(on)} has power")

    def on_power(self, order: PowerOrder) -> None:
        self.power_orders.append(order)
        if order.verb == "power_off" and order.host in self.off_limits:
            self.breach(f"host {order.host}", f"power_off sent although {self.off_limits[order.host]}")

    def on_landed(self, move: MigrationRow, server: ServerRow) -> None:
        """An evacuation is over and its VM is on the target: no rule of the VM's may be broken there."""
        hosts, subject = self._datacentre.hosts, f"vm {server.name}"
        if server.zone_pinned and hosts[move.target].zone != hosts[move.source].zone:
            self.breach(subject, f"it left its zone {hosts[move.source].zone} for {move.target}")
        for backend in self._datacentre.vms[server.id].disk.backends:
            if move.target not in self._datacentre.mounted.get(backend, {move.target}):
                self.breach(subject, f"it has a fresh disk on {move.target}, which does not reach {backend}")
        if self._nova.room(move.target).vcpus < 0:
            self.breach(subject, f"{move.target} has more on it than it has room for")
        for group in self._nova.groups.values():
            others = [one for one in group.members if one != server.id and one in self._nova.servers]
            if server.id not in group.members or not others:
                continue
            where = [self._nova.servers[one].host for one in others]
            if group.policy == "anti-affinity" and where.count(move.target) >= group.max_per_host:
                self.breach(subject, f"its anti-affinity group {group.id} has too many members on {move.target}")
            elif group.policy == "affinity" and set(where) - {move.target, move.source}:
                self.breach(subject, f"it was parted from its affinity group {group.id}")

    def breach(self, subject: str, sentence: str) -> None:
        if (subject, sentence) not in self._reported:
            self._reported.add((subject, sentence))
            self.breaches.append(f"{subject}: {sentence}")
            self._report(subject, sentence)

    def _died_with_it(self, move: MigrationRow) -> bool:
        """Its target had read the request, and was switched off since."""
        return bool(move.target and move.taken_at) and self._datacentre.hosts[move.target].powered_at > move.taken_at

    def _is_on(self, name: str) -> bool:
        host = self._datacentre.hosts[name]
        return host.powered and self._datacentre.agenda.now - host.powered_at >= JUST_SWITCHED_ON_S
