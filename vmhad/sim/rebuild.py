# SPDX-License-Identifier: Apache-2.0
"""What Nova does after it accepted an evacuate: conductor, scheduler, and the target's nova-compute.

accepted -> (scheduler) -> pre-migrating -> done, over one to three seconds; error where no host is valid, failed where
the target declines. As in Nova itself a request and its record are not bound to each other: the conductor takes the
oldest accepted record of the server, whoever made it. What keeps two requests for one server apart is its task state
alone, and the one that finds another than it expects leaves the server in ERROR, however well it runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from vmhad.kernel.cloud import ServerState
from vmhad.sim.nova import EVACUATION, GroupRow, MigrationRow, ServerRow, SimNova

CONDUCTOR_S = 0.15
CLAIM_S = 0.2
HOST_MOVES_S = 0.05
STOP_AGAIN_S = 0.4
SPAWN_S = (0.6, 2.4)
REBUILDING = "rebuilding"
SPAWNING = "rebuild_spawning"
POWERING_OFF = "powering-off"


@dataclass
class Attempt:
    """One request on its way. move: the record it goes by, which need not be the one that its POST made; None where no
    accepted one was left. life: the nova-compute that read the request, for
    what it began dies with it. origin: the server's state then."""

    server: ServerRow
    source: str
    target: str
    spawn_s: float
    move: MigrationRow | None = None
    life: tuple[int, int] = (0, 0)
    origin: ServerState = ServerState.ACTIVE


class Rebuilds:
    """Carries accepted evacuations on; a spawn takes as long as a seeded source says, so that a story always runs the
    same way. slow: host -> how many seconds longer each spawn on it takes. finish_s: how long a target that has the
    guest running waits before it says so; with fifteen arriving at once real ones waited for more than 6 s."""

    def __init__(self, nova: SimNova, seed: int = 0) -> None:
        self.nova = nova
        self.agenda = nova.agenda
        self.datacentre = nova.datacentre
        self._draw = random.Random(seed)
        self.slow: dict[str, float] = {}
        self.spawn_s = SPAWN_S
        self.finish_s = HOST_MOVES_S
        self.ended: list[Callable[[ServerRow], None]] = []
        self.landed: list[Callable[[MigrationRow, ServerRow], None]] = []

    def begin(self, server_id: str, target: str, force: bool) -> None:
        """POST evacuate. Raises Refused."""
        source = self.nova.accept_evacuation(server_id, target).source
        attempt = Attempt(self.nova.servers[server_id], source, target, self._draw.uniform(*self.spawn_s))
        self.agenda.after(CONDUCTOR_S, lambda: self._conduct(attempt, force))

    # The conductor and the scheduler.

    def _conduct(self, attempt: Attempt, force: bool) -> None:
        server = attempt.server
        if server.id not in self.nova.servers:
            return
        of_it = (one for one in self.nova.migrations if (one.server, one.kind) == (server.id, EVACUATION))
        mine = (one for one in of_it if one.status == "accepted")
        attempt.move = next(mine, None)
        if force:
            complaint = self._forced_complaint(attempt)
            if complaint:
                self._end(attempt, "error", server.state, complaint)
                return
        else:
            attempt.target = self._schedule(attempt)
            if not attempt.target:
                self._end(attempt, "error", ServerState.ERROR, "No valid host was found.")
                return
        self.nova.allocations.add((server.id, attempt.target))
        self.nova.queues.cast(attempt.target, CLAIM_S, lambda: self._claim(attempt))

    def _forced_complaint(self, attempt: Attempt) -> str:
        """Past the scheduler, yet not past Placement. A server that it has on two hosts cannot be forced."""
        server = attempt.server
        if sum(one == server.id for one, _ in self.nova.allocations) > 1:
            return "The instance has complex allocations on the source host so move cannot be forced."
        room = self.nova.room(attempt.target)
        if room.vcpus < server.vcpus or room.ram_mib < server.ram_mib:
            return f"There is not enough capacity on host {attempt.target}."
        return ""

    def _schedule(self, attempt: Attempt) -> str:
        """The target if the filters pass it; without one, the fitting host with most room."""
        hosts = [attempt.target] if attempt.target else [name for name in self.nova.services if name != attempt.source]
        fitting = [name for name in hosts if self.fits(name, attempt.server)]
        return max(fitting, key=lambda name: self.nova.room(name).vcpus, default="")

    def fits(self, host: str, server: ServerRow) -> bool:
        """The filters pass it."""
        room, truth, service = self.nova.room(host), self.datacentre.hosts[host], self.nova.services[host]
        if not (self.nova.is_up(host) and service.enabled) or self.agenda.now < service.barred_until:
            return False
        if room.vcpus < server.vcpus or room.ram_mib < server.ram_mib:
            return False
        if server.needs and server.needs not in truth.traits:
            return False
        if server.zone_pinned and truth.zone != self.datacentre.hosts[server.host].zone:
            return False
        return all(self._group_passes(group, host) for group in self._groups(server))

    def _groups(self, server: ServerRow) -> list[GroupRow]:
        return [group for group in self.nova.groups.values() if server.id in group.members]

    def _group_passes(self, group: GroupRow, host: str) -> bool:
        """The scheduler's filter: it knows where members are, not where evacuations under way will bring them."""
        where = [self.nova.servers[member].host for member in group.members if member in self.nova.servers]
        if group.policy == "anti-affinity":
            return where.count(host) < group.max_per_host
        return group.policy != "affinity" or host in where

    # The target.

    def _claim(self, attempt: Attempt) -> None:
        """The target's nova-compute has read it, and makes the checks that come too late for another host."""
        server, target = attempt.server, attempt.target
        if server.id not in self.nova.servers:
            return
        attempt.life = self.nova.queues.life(target)
        if attempt.move is None:
            attempt.move = self.nova.add_migration(server.id, attempt.source, target)
        attempt.move.target, attempt.move.taken_at = target, self.agenda.now
        self._set(attempt, "pre-migrating")
        complaint = self._late_complaint(attempt)
        if complaint:
            self._fail(attempt, complaint)
            server.task_state = ""
        elif server.task_state != REBUILDING:
            self._preempted(attempt, REBUILDING, REBUILDING)
        else:
            attempt.origin, server.task_state = server.state, SPAWNING
            takes_s = attempt.spawn_s + self.slow.get(target, 0.0)
            self.nova.queues.work(target, attempt.life, takes_s, lambda: self._spawned(attempt), alone=True)

    def _late_complaint(self, attempt: Attempt) -> str:
        server, target = attempt.server, attempt.target
        for group in [] if self.nova.affinity_check_off else self._groups(server):
            others = {m for m in group.members if m != server.id and m in self.nova.servers}
            where = {self.nova.servers[member].host for member in others}
            here = {m for m in others if self.nova.servers[m].host == target} | others & self._moving(target)
            if group.policy == "anti-affinity" and len(here) >= group.max_per_host:
                return "Anti-affinity instance group policy was violated"
            if group.policy == "affinity" and where and target not in where:
                return "Affinity instance group policy was violated"
        if (server.id, target) in self.nova.copies:
            return f"Instance {server.name} already exists."
        return ""

    def _moving(self, host: str) -> set[str]:
        """Servers with a record under way to the host, or away from it, also one that nobody will ever finish."""
        return {
            one.server
            for one in self.nova.migrations
            if (one.target == host and one.status == "pre-migrating")
            or (one.source == host and one.status in ("accepted", "pre-migrating"))
        }

    def _spawned(self, attempt: Attempt) -> None:
        """The guest runs from here on, before Nova says so; a stopped server runs for a moment too."""
        server = attempt.server
        self.datacentre.vms[server.id].started_anew(attempt.target)
        self.nova.copies.add((server.id, attempt.target))
        self._on_target(attempt, 0.0, self._saved)

    def _saved(self, attempt: Attempt) -> None:
        """What the target tells Nova of it, if it can; a server that was deleted meanwhile leaves its guest behind."""
        server = attempt.server
        if server.id not in self.nova.servers:
            return
        if server.task_state != SPAWNING:
            self._preempted(attempt, SPAWNING, "")
            return
        server.state, server.task_state, server.fault = ServerState.ACTIVE, "", ""
        if attempt.origin is ServerState.STOPPED:
            server.task_state = POWERING_OFF
            self._on_target(attempt, STOP_AGAIN_S, self._stopped_again)
        else:
            self._on_target(attempt, self.finish_s, self._landed)

    def _stopped_again(self, attempt: Attempt) -> None:
        self.datacentre.vms[attempt.server.id].guests.discard(attempt.target)
        attempt.server.state, attempt.server.task_state = ServerState.STOPPED, ""
        attempt.server.stopped_at = self.agenda.now
        self._on_target(attempt, self.finish_s, self._landed)

    def _landed(self, attempt: Attempt) -> None:
        """Nova saves the state first and the host a moment later: ACTIVE with the old host is readable. A server that
        was deleted meanwhile cannot be saved, and its record stays as it is."""
        if attempt.server.id not in self.nova.servers:
            return
        attempt.server.host = attempt.target
        self._set(attempt, "done")
        for call in self.landed:
            if attempt.move is not None:
                call(attempt.move, attempt.server)
        self._tell(attempt.server)

    def _preempted(self, attempt: Attempt, expected: str, wanted: str) -> None:
        """Somebody else changed the server's task meanwhile. The server reads ERROR; and what could not be saved is
        saved with that after all, over the task of whoever came first."""
        if attempt.server.host != attempt.source:
            self.nova.spoilt.add(attempt.server.id)
        actual = attempt.server.task_state or "None"
        self._fail(attempt, f"Conflict updating instance: expected task_state {expected}, it is {actual}")
        attempt.server.task_state = wanted

    def _fail(self, attempt: Attempt, fault: str) -> None:
        """Whatever the target holds of the server stays there, and its room counts as free, even if it runs there."""
        self.nova.allocations.discard((attempt.server.id, attempt.target))
        self._set(attempt, "failed")
        attempt.server.state, attempt.server.fault = ServerState.ERROR, fault
        self._tell(attempt.server)

    def _end(self, attempt: Attempt, status: str, state: ServerState, fault: str) -> None:
        self._set(attempt, status)
        attempt.server.state, attempt.server.task_state, attempt.server.fault = state, "", fault
        self._tell(attempt.server)

    def _tell(self, server: ServerRow) -> None:
        for call in self.ended:
            call(server)

    def _set(self, attempt: Attempt, status: str) -> None:
        """Nova overwrites, whatever became of the record meanwhile."""
        if attempt.move is not None:
            attempt.move.status, attempt.move.updated_at = status, self.agenda.iso()

    def _on_target(self, attempt: Attempt, takes_s: float, act: Callable[[Attempt], None]) -> None:
        self.nova.queues.work(attempt.target, attempt.life, takes_s, lambda: act(attempt))
