# SPDX-License-Identifier: Apache-2.0
"""A simulated Nova on the simulated datacentre: its records, and what its API does with them.

It behaves as Nova 34 was measured to (evacuate at 2.94, force at 2.67). What happens after an evacuate was accepted
stands in rebuild.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from vmhad.kernel.cloud import Action, ComputeService, Group, Inventory, Migration, Room, Server, ServerState
from vmhad.ports import Nudge, Refused
from vmhad.sim.datacentre import Datacentre, SimHost
from vmhad.sim.queues import HostQueues
from vmhad.sim.records import GroupRow, MigrationRow, ServerRow, ServiceRow
from vmhad.sim.vms import Disk, SimVm

HEARTBEAT_S = 10.0
SERVICE_DOWN_S = 60.0
CLEAN_EVACUATED_S = 3.2
START_STOP_S = 1.0
RESYNC_S = 60.0
MISSED_AFTER_S = 15.5
REBOOTING = "rebooting_hard"
EVACUATION, LIVE, MIGRATING = "evacuation", "live-migration", "migrating"
UNFINISHED = ("accepted", "pre-migrating")
EVACUABLE = (ServerState.ACTIVE, ServerState.STOPPED, ServerState.ERROR)
REBOOTABLE = (*EVACUABLE, ServerState.PAUSED, ServerState.SUSPENDED)


class SimNova:
    """The records, and the API's synchronous half. affinity_check_off: targets run with the group-check workaround.

    wished: server id -> the state its user wants it in, whatever befalls it.
    taken: servers that their users paused or are resizing: whatever they are, it is theirs.
    spoilt: servers that had arrived elsewhere when a request of their evacuation was read: ERROR, in a task for good.
    copies: (server, host) where a hypervisor holds the server, running or not; it outlives the host's power.
    """

    def __init__(self, datacentre: Datacentre) -> None:
        self.datacentre = datacentre
        self.agenda = datacentre.agenda
        self.services: dict[str, ServiceRow] = {}
        self.servers: dict[str, ServerRow] = {}
        self.migrations: list[MigrationRow] = []
        self.groups: dict[str, GroupRow] = {}
        self.allocations: set[tuple[str, str]] = set()
        self.copies: set[tuple[str, str]] = set()
        self.queues = HostQueues(datacentre)
        self.heartbeats_lost_until = 0.0
        self.hidden_until: dict[str, float] = {}
        self.hidden_from: dict[str, float] = {}
        self.stopped_by_nova: set[str] = set()
        self.nudge: Callable[[Nudge], None] = lambda nudge: None
        self.affinity_check_off = False
        self.spoilt: set[str] = set()
        self.wished: dict[str, ServerState] = {}
        self.wished_at: dict[str, float] = {}
        self.actions: dict[str, list[Action]] = {}
        self.acted_at: dict[str, float] = {}
        self.died_alone: set[str] = set()
        self.taken: set[str] = set()
        datacentre.compute_started.append(self._compute_started)

    # Building the cloud.

    def add_host(self, host: SimHost) -> None:
        self.datacentre.add_host(host)
        self.services[host.name] = ServiceRow(host.name, self.agenda.now, self.agenda.iso())
        first_s = (1.7 * len(self.services)) % HEARTBEAT_S
        self.agenda.after(first_s, lambda: self._heartbeat(host.name), periodic=True)

    def add_server(self, server: ServerRow) -> None:
        vm = SimVm(server.id, server.name, disk=Disk(server.backend, server.also))
        if server.state is ServerState.ACTIVE:
            vm.guests.add(server.host)
        self.datacentre.add_vm(vm)
        self.servers[server.id] = server
        self.wished[server.id] = server.state
        self.allocations.add((server.id, server.host))
        self.copies.add((server.id, server.host))

    # What the API shows.

    def is_up(self, host: str) -> bool:
        row = self.services[host]
        return not row.forced_down and self.agenda.now - row.last_seen <= SERVICE_DOWN_S

    def service(self, host: str) -> ComputeService | None:
        row = self.services.get(host)
        if row is None or self.is_hidden(host):
            return None
        return ComputeService(
            host, self.is_up(host), row.enabled, row.disabled_reason, row.forced_down, row.updated_at
        )

    def is_hidden(self, host: str) -> bool:
        """Its cell is down: Nova's lists are without it."""
        return self.agenda.now < self.hidden_until.get(host, 0.0)

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
            updated_at=f"{row.stopped_at}",
            disks=row.disks,
        )

    def on_host(self, host: str) -> tuple[Server, ...]:
        found = (self.server(row.id) for row in self.servers.values() if row.host == host)
        return tuple(server for server in found if server is not None)

    def evacuations_from(self, host: str) -> tuple[Migration, ...]:
        mine = (row for row in reversed(self.migrations) if (row.source, row.kind) == (host, EVACUATION))
        return tuple(_shown(row) for row in mine if self._lives(row))

    def live_migrations(self, server_id: str) -> tuple[Migration, ...]:
        mine = (row for row in reversed(self.migrations) if (row.server, row.kind) == (server_id, LIVE))
        return tuple(_shown(row) for row in mine if self._lives(row))

    def inventory(self, host: str, hosts: Sequence[str], at: float) -> Inventory:
        servers = self.on_host(host)
        ids = {server.id for server in servers}
        groups = tuple(
            Group(row.id, row.policy, tuple(row.members), row.max_per_host, row.id)
            for row in self.groups.values()
            if ids & set(row.members)
        )
        members = {member for group in groups for member in group.members if member in self.servers}
        services = (self.service(name) for name in sorted(hosts))
        return Inventory(
            host=host,
            at=at,
            servers=servers,
            migrations=tuple(
                _shown(row)
                for row in reversed(self.migrations)
                if host in (row.source, row.target) and self._lives(row)
            ),
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
        done = [move for move in self.migrations if move.source == host and move.status == "done" and self._lives(move)]
        if not forced and done:
            raise Refused(f"Unable to force up host {host} as `done` evacuation migration records remain")
        if row.forced_down != forced:
            row.forced_down = forced
            row.updated_at = self.agenda.iso()

    def set_enabled(self, host: str, enabled: bool, reason: str) -> None:
        row = self._service_row(host)
        if (row.enabled, row.disabled_reason) != (enabled, "" if enabled else reason):
            row.enabled, row.disabled_reason = enabled, "" if enabled else reason
            row.updated_at = self.agenda.iso()
            self._bar(row)

    def _bar(self, row: ServiceRow) -> None:
        """Placement is told by the nova-compute that is told; one that is not sees it a minute later by itself."""
        if self.is_up(row.host):
            row.barred_until = 0.0 if row.enabled else inf
        elif row.enabled and row.barred_until:
            row.barred_until = self.agenda.now + RESYNC_S

    def accept_evacuation(self, server_id: str, target: str) -> MigrationRow:
        """The API's checks and the migration row. Neither task_state nor lock is asked: never idempotent."""
        server = self.server_row(server_id)
        if server.refused:
            raise Refused(f"{server.refused}")
        if server.state not in EVACUABLE:
            raise Refused(f"Cannot 'evacuate' instance {server_id} while it is in vm_state {server.state.value}")
        if target and target not in self.services:
            raise Refused(f"Compute host {target} could not be found.")
        if target == server.host:
            raise Refused("The target host can't be the same one.")
        if self.is_up(server.host):
            raise Refused(f"Compute service of {server.host} is still in use.")
        server.task_state = "rebuilding"
        return self.add_migration(server_id, server.host, target)

    def add_migration(self, server_id: str, source: str, target: str, kind: str = EVACUATION) -> MigrationRow:
        now = self.agenda.iso()
        row = MigrationRow(len(self.migrations) + 1, server_id, source, target, now, kind, updated_at=now)
        self.migrations.append(row)
        return row

    def start(self, server_id: str) -> None:
        row = self.server_row(server_id)
        if row.state is not ServerState.STOPPED or row.task_state:
            raise Refused(f"Cannot 'start' instance {server_id} while it is {_busy(row)}")
        self._begin(row, "start", "powering-on")

    def stop(self, server_id: str) -> None:
        row = self.server_row(server_id)
        if row.state not in (ServerState.ACTIVE, ServerState.ERROR) or row.task_state:
            raise Refused(f"Cannot 'stop' instance {server_id} while it is {_busy(row)}")
        self._begin(row, "stop", "powering-off")

    def reboot(self, server_id: str) -> None:
        """HARD: its guest is started anew, whatever became of it."""
        row = self.server_row(server_id)
        if row.state not in REBOOTABLE or row.task_state:
            raise Refused(f"Cannot 'reboot' instance {server_id} while it is {_busy(row)}")
        self._begin(row, "reboot", REBOOTING)

    def _begin(self, row: ServerRow, action: str, task_state: str) -> None:
        row.task_state = task_state
        self.stopped_by_nova.discard(row.id)
        self.acted(row.id, action)
        self._cast_power(row, row.host)

    def acted(self, server_id: str, action: str, by_user: bool = True) -> None:
        done = self.actions.setdefault(server_id, [])
        done.insert(0, Action(f"req-{len(done) + 1}", action, by_user))
        self.acted_at[server_id] = self.agenda.now

    def server_row(self, server_id: str) -> ServerRow:
        if server_id not in self.servers:
            raise Refused(f"Instance {server_id} could not be found.")
        return self.servers[server_id]

    def stopped(self, row: ServerRow) -> None:
        self.datacentre.vms[row.id].guests.discard(row.host)
        row.state, row.task_state, row.stopped_at = ServerState.STOPPED, "", self.agenda.now

    def delete(self, server_id: str) -> None:
        """Its user deletes it; a guest on a host that does not listen stays until that host's nova-compute starts."""
        row = self.servers.pop(server_id)
        if self.datacentre.hosts[row.host].serves:
            self.datacentre.vms[server_id].guests.discard(row.host)
            self.copies.discard((server_id, row.host))
        self.allocations = {one for one in self.allocations if one[0] != server_id}

    # Within.

    def _service_row(self, host: str) -> ServiceRow:
        if host not in self.services:
            raise Refused(f"Nova has no nova-compute service on {host}")
        return self.services[host]

    def _lives(self, move: MigrationRow) -> bool:
        """A server's records go with it."""
        return move.server in self.servers

    def _cast_power(self, row: ServerRow, host: str) -> None:
        """Sent to where the server is now. A nova-compute that reads it late does it, wherever the server is by then:
        it switches first and looks at the task state afterwards."""
        order = row.task_state

        def read() -> None:
            if order == REBOOTING:
                self._rebooted(row, host)
                return
            if order == "powering-on":
                self.datacentre.vms[row.id].started_anew(host)
                self.copies.add((row.id, host))
            else:
                self.datacentre.vms[row.id].guests.discard(host)
            if row.task_state == order == "powering-on":
                row.state, row.task_state = ServerState.ACTIVE, ""
            elif row.task_state == order:
                self.stopped(row)

        self.queues.cast(host, START_STOP_S, read)

    def _rebooted(self, row: ServerRow, host: str) -> None:
        """A nova-compute that finds another task than it was sent for does nothing."""
        if row.task_state == REBOOTING and row.id in self.servers:
            self.datacentre.vms[row.id].started_anew(host)
            row.state, row.task_state = ServerState.ACTIVE, ""

    def _heartbeat(self, host: str) -> None:
        self.agenda.after(HEARTBEAT_S, lambda: self._heartbeat(host), periodic=True)
        if self.datacentre.hosts[host].serves:
            self._heard(host)

    def _heard(self, host: str) -> None:
        if self.agenda.now < self.heartbeats_lost_until:
            return
        row = self.services[host]
        if self.agenda.now - row.last_seen > 1.5 * HEARTBEAT_S:
            row.silent_s, row.heard_from = self.agenda.now - row.last_seen, self.agenda.now
        row.last_seen = self.agenda.now
        row.updated_at = self.agenda.iso()

    def _compute_started(self, host: str) -> None:
        self._heard(host)
        self.services[host].barred_until = 0.0 if self.services[host].enabled else inf
        life = self.datacentre.hosts[host].life
        self.agenda.after(CLEAN_EVACUATED_S, lambda: self._init_host(host, life))

    def _init_host(self, host: str, life: int) -> None:
        """What a starting nova-compute does: evacuated guests go, and a VM whose guest is gone counts as stopped.

        It ends one record a server, the newest; where there are two, the other waits for its next start.
        """
        truth = self.datacentre.hosts[host]
        if truth.life != life or not truth.compute:
            return
        mine = [move for move in self.migrations if move.source == host]
        self._end_live_migrations(mine)
        gone = [move for move in mine if move.kind == EVACUATION and move.status in (*UNFINISHED, "done")]
        evacuated = {move.server: move for move in gone if self._lives(move)}
        for move in evacuated.values():
            self.datacentre.vms[move.server].guests.discard(host)
            self.copies.discard((move.server, host))
            self.allocations.discard((move.server, host))
            move.status, move.updated_at = "completed", self.agenda.iso()
        for row in self.servers.values():
            if row.host == host and row.id not in evacuated:
                self._init_server(row)

    def _end_live_migrations(self, moves: Sequence[MigrationRow]) -> None:
        """Those that its nova-compute did not finish; their servers, where they are here yet, are as they were."""
        for move in moves:
            if move.kind == LIVE and move.status in ("accepted", "running"):
                move.status, move.updated_at = "error", self.agenda.iso()
                row = self.servers.get(move.server)
                if row is not None and row.host == move.source and row.task_state == MIGRATING:
                    row.task_state = ""
                    self.allocations.discard((row.id, move.target))

    def _init_server(self, row: ServerRow) -> None:
        """A rebuild that nobody will go on with is an ERROR; a start or a stop that was under way is done."""
        if row.task_state.startswith("rebuild") and row.state is not ServerState.ERROR:
            row.state, row.task_state = ServerState.ERROR, ""
        elif row.task_state in ("powering-on", "powering-off", REBOOTING):
            self._cast_power(row, row.host)
        else:
            self.miss(row)

    def miss(self, row: ServerRow) -> None:
        """Its nova-compute looks for its guest, and switches off what has none."""
        gone = row.host not in self.datacentre.vms[row.id].guests
        if row.state is ServerState.ACTIVE and not row.task_state and gone:
            self.acted(row.id, "stop", by_user=False)
            self.stopped(row)
            self.stopped_by_nova.add(row.id)
            self.nudge(Nudge(row.host, row.id, "instance.power_off.end"))

    def guest_dies(self, server_id: str) -> None:
        """Its process is gone, and its host lives: nova-compute hears of it, and waits whether it was a reboot."""
        row, vm = self.servers[server_id], self.datacentre.vms[server_id]
        host = row.host
        if host in vm.guests:
            vm.guests.discard(host)
            self.died_alone.add(server_id)
            self.queues.work(host, self.queues.life(host), MISSED_AFTER_S, lambda: self._missed(server_id, host))

    def _missed(self, server_id: str, host: str) -> None:
        row = self.servers.get(server_id)
        if row is not None and row.host == host:
            self.miss(row)


def _busy(row: ServerRow) -> str:
    return f"in task_state {row.task_state}" if row.task_state else f"in vm_state {row.state.value}"


def _shown(row: MigrationRow) -> Migration:
    number = f"migration-{row.number}"
    return Migration(
        number, row.server, row.kind, row.status, row.source, row.target, row.created_at, row.updated_at
    )
