# SPDX-License-Identifier: Apache-2.0
"""What Nova does after it accepted an evacuate: conductor, scheduler, and the target's nova-compute.

accepted -> (scheduler) -> pre-migrating -> done, over one to three seconds; error where no host is valid, failed where
the target declines. A target that dies keeps the migration as it was; one that hangs goes on when it goes on.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from vmhad.kernel.cloud import ServerState
from vmhad.sim.nova import UNFINISHED, GroupRow, MigrationRow, ServerRow, SimNova

CONDUCTOR_S = 0.15
CLAIM_S = 0.2
HOST_MOVES_S = 0.05
STOP_AGAIN_S = 0.4
HUNG_LOOK_S = 0.5
SPAWN_S = (0.6, 2.4)


class Rebuilds:
    """Carries accepted evacuations on. spawn_draw: a seeded source, so that a story always runs the same way."""

    def __init__(self, nova: SimNova, seed: int = 0) -> None:
        self.nova = nova
        self.agenda = nova.agenda
        self.datacentre = nova.datacentre
        self._draw = random.Random(seed)
        self.ended: list[Callable[[ServerRow], None]] = []

    def begin(self, server_id: str, target: str, force: bool) -> None:
        """POST evacuate. Raises Refused."""
        move = self.nova.accept_evacuation(server_id, target)
        server = self.nova.servers[server_id]
        origin = server.state
        spawn_s = self._draw.uniform(*SPAWN_S)
        self.agenda.after(CONDUCTOR_S, lambda: self._conduct(move, server, origin, force, spawn_s))

    def _conduct(
        self, move: MigrationRow, server: ServerRow, origin: ServerState, force: bool, spawn_s: float
    ) -> None:
        if force:
            if self.nova.room(move.target).vcpus < server.vcpus:
                self._end(move, server, "error", origin, "no room on the forced host")
                return
        else:
            target = self._schedule(move, server)
            if not target:
                self._end(move, server, "error", ServerState.ERROR, "No valid host was found.")
                return
            move.target = target
        self.nova.allocations.add((server.id, move.target))
        life = self.datacentre.hosts[move.target].life

        def claim() -> None:
            self._claim(move, server, origin, life, spawn_s)

        self._on_target(move.target, life, CLAIM_S, claim, needs_network=True)

    def _schedule(self, move: MigrationRow, server: ServerRow) -> str:
        """The target if the filters pass it; without one, the fitting host with most room."""
        hosts = [move.target] if move.target else [name for name in self.nova.services if name != move.source]
        fitting = [name for name in hosts if self._fits(name, server)]
        return max(fitting, key=lambda name: self.nova.room(name).vcpus, default="")

    def _fits(self, host: str, server: ServerRow) -> bool:
        room, truth = self.nova.room(host), self.datacentre.hosts[host]
        if not (self.nova.is_up(host) and self.nova.services[host].enabled):
            return False
        if room.vcpus < server.vcpus or room.ram_mib < server.ram_mib:
            return False
        if server.needs and server.needs not in truth.traits:
            return False
        if server.zone_pinned and truth.zone != self.datacentre.hosts[server.host].zone:
            return False
        return all(self._group_passes(group, host, server) for group in self._groups(server))

    def _groups(self, server: ServerRow) -> list[GroupRow]:
        return [group for group in self.nova.groups.values() if server.id in group.members]

    def _group_passes(self, group: GroupRow, host: str, server: ServerRow) -> bool:
        """The scheduler's filter: it knows where members are, not where evacuations under way will bring them."""
        where = [self.nova.servers[member].host for member in group.members if member in self.nova.servers]
        if group.policy == "anti-affinity":
            return where.count(host) < group.max_per_host
        return group.policy != "affinity" or host in where

    def _claim(
        self, move: MigrationRow, server: ServerRow, origin: ServerState, life: int, spawn_s: float
    ) -> None:
        """The target's nova-compute takes it, after the checks that come too late for another host to be chosen."""
        complaint = self._late_complaint(move, server)
        if complaint:
            if server.host != move.target:
                self.nova.allocations.discard((server.id, move.target))
            self._end(move, server, "failed", ServerState.ERROR, complaint)
            return
        self._set(move, "pre-migrating")
        self._on_target(move.target, life, spawn_s, lambda: self._spawn(move, server, origin, life))

    def _late_complaint(self, move: MigrationRow, server: ServerRow) -> str:
        if move.target in self.datacentre.vms[server.id].guests or self._twin_spawns(move):
            return f"Instance {server.name} already exists."
        if self.nova.affinity_check_off:
            return ""
        for group in self._groups(server):
            others = [m for m in group.members if m != server.id and m in self.nova.servers]
            where = [self.nova.servers[member].host for member in others]
            coming = [m for m in self.nova.migrations if m.target == move.target and m.status == "pre-migrating"]
            here = where.count(move.target) + sum(m.server in others for m in coming)
            if group.policy == "anti-affinity" and here >= group.max_per_host:
                return "Anti-affinity instance group policy was violated."
            if group.policy == "affinity" and where and move.target not in where:
                return "Affinity instance group policy was violated."
        return ""

    def _twin_spawns(self, move: MigrationRow) -> bool:
        """Another evacuation of the server is being built on that host: the host's lock makes this one the later."""
        return any(
            other is not move
            and other.server == move.server
            and other.target == move.target
            and other.status == "pre-migrating"
            for other in self.nova.migrations
        )

    def _spawn(self, move: MigrationRow, server: ServerRow, origin: ServerState, life: int) -> None:
        """The guest runs from here on, before Nova says so; a stopped server runs for a moment too."""
        self.datacentre.vms[server.id].guests.add(move.target)
        keep_stopped = origin is ServerState.STOPPED
        delay_s = STOP_AGAIN_S if keep_stopped else 0.0
        self._on_target(move.target, life, delay_s, lambda: self._built(move, server, keep_stopped, life))

    def _built(self, move: MigrationRow, server: ServerRow, keep_stopped: bool, life: int) -> None:
        """Nova saves the state first and the host a moment later: ACTIVE with the old host is readable."""
        if keep_stopped:
            self.datacentre.vms[server.id].guests.discard(move.target)
        server.state = ServerState.STOPPED if keep_stopped else ServerState.ACTIVE
        server.task_state, server.fault = "", ""
        self._on_target(move.target, life, HOST_MOVES_S, lambda: self._landed(move, server))

    def _landed(self, move: MigrationRow, server: ServerRow) -> None:
        server.host = move.target
        self._set(move, "done")
        for call in self.ended:
            call(server)

    def _end(self, move: MigrationRow, server: ServerRow, status: str, state: ServerState, fault: str) -> None:
        self._set(move, status)
        server.state, server.task_state, server.fault = state, "", fault
        for call in self.ended:
            call(server)

    def _set(self, move: MigrationRow, status: str) -> None:
        if move.status in UNFINISHED or status == "done":
            move.status, move.updated_at = status, self.agenda.iso()

    def _on_target(
        self, host: str, life: int, delay_s: float, act: Callable[[], None], needs_network: bool = False
    ) -> None:
        """Runs act on the target if it still lives that same life by then; a hung one does it when it goes on."""

        def due() -> None:
            truth = self.datacentre.hosts[host]
            if truth.life != life or not (truth.powered and truth.alive):
                return
            if truth.hung or not truth.compute or (needs_network and not truth.network):
                self.agenda.after(HUNG_LOOK_S, due)
            else:
                act()

        self.agenda.after(delay_s, due)
