# SPDX-License-Identifier: Apache-2.0
"""A simulated Nova on the simulated datacentre: its records, and what its API does with them.

It behaves as Nova 34 was measured to (evacuate at 2.94, force at 2.67). What happens after an evacuate was accepted
stands in rebuild.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vmhad.kernel.cloud import ComputeService, Group, Inventory, Migration, Room, Server, ServerState
from vmhad.ports import Nudge, Refused
from vmhad.sim.datacentre import Datacentre, SimHost, SimVm

HEARTBEAT_S = 10.0
SERVICE_DOWN_S = 60.0
CLEAN_EVACUATED_S = 3.2
START_STOP_S = 1.0
UNFINISHED = ("accepted", "pre-migrating")
EVACUABLE = (ServerState.ACTIVE, ServerState.STOPPED, ServerState.ERROR)


@dataclass
class ServiceRow:
    """A row of the services table. last_seen: when its last heartbeat landed."""

    host: str
    last_seen: float
    updated_at: str
    forced_down: bool = False
    enabled: bool = True
    disabled_reason: str = ""


@dataclass
class ServerRow:
    """A row of the instances table. refused: what the API answers to its evacuation. needs: a trait of its host."""

    id: str
    name: str
    host: str
    state: ServerState = ServerState.ACTIVE
    task_state: str = ""
    locked: bool = False
    local_disk: bool = False
    vcpus: int = 1
    ram_mib: int = 1024
    zone_pinned: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    fault: str = ""
    refused: str = ""
    needs: str = ""


@dataclass
class MigrationRow:
    """A row of the migrations table."""

    number: int
    server: str
    source: str
    target: str
    created_at: str
    kind: str = "evacuation"
    status: str = "accepted"
    updated_at: str = ""


@dataclass
class GroupRow:
    id: str
    policy: str
    members: list[str] = field(default_factory=list)
    max_per_host: int = 1


class SimNova:
    """The records, and the API's synchronous half. affinity_check_off: targets run with the group-check workaround."""

    def __init__(self, datacentre: Datacentre) -> None:
        self.datacentre = datacentre
        self.agenda = datacentre.agenda
        self.services: dict[str, ServiceRow] = {}
        self.servers: dict[str, ServerRow] = {}
        self.migrations: list[MigrationRow] = []
        self.groups: dict[str, GroupRow] = {}
        self.allocations: set[tuple[str, str]] = set()
        self.heartbeats_lost_until = 0.0
        self.stopped_by_nova: set[str] = set()
        self.nudge: Callable[[Nudge], None] = lambda nudge: None
        self.affinity_check_off = False
        datacentre.compute_started.append(self._compute_started)

    # Building the cloud.

    def add_host(self, host: SimHost) -> None:
        self.datacentre.add_host(host)
        self.services[host.name] = ServiceRow(host.name, self.agenda.now, self.agenda.iso())
        first_s = (1.7 * len(self.services)) % HEARTBEAT_S
        self.agenda.after(first_s, lambda: self._heartbeat(host.name))

    def add_server(self, server: ServerRow) -> None:
        vm = SimVm(server.id, server.name)
        if server.state is ServerState.ACTIVE:
            vm.guests.add(server.host)
        self.datacentre.vms[server.id] = vm
        self.servers[server.id] = server
        self.allocations.add((server.id, server.host))

    # What the API shows.

    def is_up(self, host: str) -> bool:
        row = self.services[host]
        return not row.forced_down and self.agenda.now - row.last_seen <= SERVICE_DOWN_S

    def service(self, host: str) -> ComputeService | None:
        row = self.services.get(host)
        if row is None:
            return None
        return ComputeService(
            host, self.is_up(host), row.enabled, row.disabled_reason, row.forced_down, row.updated_at
        )

    def fallen(self, host: str) -> tuple[Server, ...]:
        return tuple(one for one in self.on_host(host) if one.id in self.stopped_by_nova)

    def server(self, server_id: str) -> Server | None:
        row = self.servers.get(server_id)
        if row is None:
            return None
        return Server(
            id=row.id,
            name=row.name,
            host=row.host,
            state=row.state,
            task_state=row.task_state,
            locked=row.locked,
            volume_backed=not row.local_disk,
            vcpus=row.vcpus,
            ram_mib=row.ram_mib,
            zone=self.datacentre.hosts[row.host].zone,
            zone_pinned=row.zone_pinned,
            metadata=dict(row.metadata),
            fault=row.fault,
        )

    def on_host(self, host: str) -> tuple[Server, ...]:
        found = (self.server(row.id) for row in self.servers.values() if row.host == host)
        return tuple(server for server in found if server is not None)

    def evacuations_from(self, host: str) -> tuple[Migration, ...]:
        return tuple(_shown(row) for row in reversed(self.migrations) if row.source == host)

    def inventory(self, host: str, hosts: Sequence[str], at: float) -> Inventory:
        servers = self.on_host(host)
        ids = {server.id for server in servers}
        groups = tuple(
            Group(row.id, row.policy, tuple(row.members), row.max_per_host)
            for row in self.groups.values()
            if ids & set(row.members)
        )
        members = {member for group in groups for member in group.members if member in self.servers}
        services = (self.service(name) for name in sorted(hosts))
        return Inventory(
            host=host,
            at=at,
            servers=servers,
            migrations=tuple(_shown(row) for row in reversed(self.migrations) if host in (row.source, row.target)),
            groups=groups,
            member_hosts={member: self.servers[member].host for member in sorted(members)},
            services=tuple(service for service in services if service is not None),
            rooms=tuple(self.room(name) for name in sorted(hosts) if name in self.services),
            zones={name: self.datacentre.hosts[name].zone for name in sorted(hosts) if name in self.services},
        )

    def room(self, host: str) -> Room:
        """What is left. An evacuated server counts on its source too until that one's nova-compute has cleaned up."""
        held = [self.servers[server] for server, where in self.allocations if where == host and server in self.servers]
        truth = self.datacentre.hosts[host]
        vcpus = truth.vcpus - sum(server.vcpus for server in held)
        return Room(host, vcpus, truth.ram_mib - sum(server.ram_mib for server in held), 1000)

    # What the API does at once.

    def set_forced_down(self, host: str, forced: bool) -> None:
        row = self._service_row(host)
        if not forced and any(move.source == host and move.status == "done" for move in self.migrations):
            raise Refused(f"400: unable to force up host {host}: done evacuation migration records remain")
        if row.forced_down != forced:
            row.forced_down = forced
            row.updated_at = self.agenda.iso()

    def set_enabled(self, host: str, enabled: bool, reason: str) -> None:
        row = self._service_row(host)
        if (row.enabled, row.disabled_reason) != (enabled, "" if enabled else reason):
            row.enabled, row.disabled_reason = enabled, "" if enabled else reason
            row.updated_at = self.agenda.iso()

    def accept_evacuation(self, server_id: str, target: str) -> MigrationRow:
        """The API's checks and the migration row. Neither task_state nor lock is asked: never idempotent."""
        server = self.server_row(server_id)
        if server.refused:
            raise Refused(f"{server.refused}")
        if server.state not in EVACUABLE:
            raise Refused(f"409: cannot evacuate instance {server_id} while it is in vm_state {server.state.value}")
        if target and target not in self.services:
            raise Refused(f"404: compute host {target} could not be found")
        if target == server.host:
            raise Refused("400: the target host can't be the same one")
        if self.is_up(server.host):
            raise Refused(f"400: compute service of {server.host} is still in use")
        now = self.agenda.iso()
        row = MigrationRow(len(self.migrations) + 1, server_id, server.host, target, now, updated_at=now)
        self.migrations.append(row)
        server.task_state = "rebuilding"
        return row

    def start(self, server_id: str) -> None:
        row = self.server_row(server_id)
        if row.state is not ServerState.STOPPED or row.task_state:
            raise Refused(f"409: cannot start instance {server_id} while it is {row.state.value} {row.task_state}")
        row.task_state = "powering-on"
        self.stopped_by_nova.discard(server_id)
        self._cast(row.host, lambda: self._started(row))

    def stop(self, server_id: str) -> None:
        row = self.server_row(server_id)
        if row.state not in (ServerState.ACTIVE, ServerState.ERROR) or row.task_state:
            raise Refused(f"409: cannot stop instance {server_id} while it is {row.state.value} {row.task_state}")
        row.task_state = "powering-off"
        self.stopped_by_nova.discard(server_id)
        self._cast(row.host, lambda: self.stopped(row))

    def server_row(self, server_id: str) -> ServerRow:
        if server_id not in self.servers:
            raise Refused(f"404: instance {server_id} could not be found")
        return self.servers[server_id]

    def stopped(self, row: ServerRow) -> None:
        self.datacentre.vms[row.id].guests.discard(row.host)
        row.state, row.task_state = ServerState.STOPPED, ""

    def delete(self, server_id: str) -> None:
        """Its user deletes it; a guest on a host that does not listen stays until that host's nova-compute starts."""
        row = self.servers.pop(server_id)
        if self.datacentre.hosts[row.host].serves:
            self.datacentre.vms[server_id].guests.discard(row.host)
        self.allocations = {one for one in self.allocations if one[0] != server_id}

    # Within.

    def _service_row(self, host: str) -> ServiceRow:
        if host not in self.services:
            raise Refused(f"404: host {host} could not be found")
        return self.services[host]

    def _cast(self, host: str, act: Callable[[], None]) -> None:
        """A message to a nova-compute. One that is dead when it comes never hears it: its queue goes with it."""

        def arrive() -> None:
            if self.datacentre.hosts[host].serves:
                act()

        self.agenda.after(START_STOP_S, arrive)

    def _started(self, row: ServerRow) -> None:
        self.datacentre.vms[row.id].guests.add(row.host)
        row.state, row.task_state = ServerState.ACTIVE, ""

    def _heartbeat(self, host: str) -> None:
        self.agenda.after(HEARTBEAT_S, lambda: self._heartbeat(host))
        if self.datacentre.hosts[host].serves and self.agenda.now >= self.heartbeats_lost_until:
            row = self.services[host]
            row.last_seen = self.agenda.now
            row.updated_at = self.agenda.iso()

    def _compute_started(self, host: str) -> None:
        if self.agenda.now >= self.heartbeats_lost_until:
            self.services[host].last_seen = self.agenda.now
            self.services[host].updated_at = self.agenda.iso()
        life = self.datacentre.hosts[host].life
        self.agenda.after(CLEAN_EVACUATED_S, lambda: self._init_host(host, life))

    def _init_host(self, host: str, life: int) -> None:
        """What a starting nova-compute does: evacuated guests go, and a VM whose guest is gone counts as stopped."""
        truth = self.datacentre.hosts[host]
        if truth.life != life or not truth.compute:
            return
        for move in self.migrations:
            if move.source == host and move.status in (*UNFINISHED, "done"):
                self.datacentre.vms[move.server].guests.discard(host)
                self.allocations.discard((move.server, host))
                move.status, move.updated_at = "completed", self.agenda.iso()
        for row in self.servers.values():
            here = host in self.datacentre.vms[row.id].guests
            if row.host == host and row.state is ServerState.ACTIVE and not here and not row.task_state:
                row.state = ServerState.STOPPED
                self.stopped_by_nova.add(row.id)
                self.nudge(Nudge(host, row.id, "instance.power_off.end"))


def _shown(row: MigrationRow) -> Migration:
    number = f"migration-{row.number}"
    return Migration(
        number, row.server, row.kind, row.status, row.source, row.target, row.created_at, row.updated_at
    )
