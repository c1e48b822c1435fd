# SPDX-License-Identifier: Apache-2.0
"""ports.Compute over Nova and Placement, and Cinder for where volumes are kept. Needs Nova 2024.1 or later (2.96) and a
project-scoped admin.

Every microversion is written out, because two of them decide whether a recovered VM runs: evacuate at 2.95 or later
leaves every VM switched off, and only up to 2.67 may it go past the scheduler.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from keystoneauth1.plugin import BaseAuthPlugin

from vmhad.drivers.compute import attached
from vmhad.drivers.compute.around import surroundings_of
from vmhad.drivers.compute.calls import COMPUTE, Calls, Missing, asked_of
from vmhad.drivers.compute.census import MIGRATIONS, Census, census_of
from vmhad.drivers.compute.rooms import Rooms, Side
from vmhad.drivers.compute.rows import action_of, age_of, group_of, is_unfinished, migration_of, server_of, service_of
from vmhad.drivers.compute.volumes import Volumes
from vmhad.kernel.cloud import (
    EVACUATION,
    LIVE,
    Action,
    ComputeService,
    Group,
    Inventory,
    Migration,
    Server,
    ServerState,
)
from vmhad.kernel.vm_resolve import Surroundings
from vmhad.ports import Refused, Unanswered

SERVICES_AT = "2.69"
SERVERS_AT = "2.96"
MIGRATIONS_AT = "2.80"
GROUPS_AT = "2.64"
EVACUATE_AT = "2.94"
EVACUATE_BY_FORCE_AT = "2.67"
LIVE_MIGRATE_AT = "2.68"
POWER_AT = "2.94"
ACTIONS_AT = "2.84"
REASON_MAX = 255
INVENTORY_LIMITS = 3


class NovaCompute:
    """Nova behind ports.Compute. Safe in many threads; one log-in, kept-alive connections, no retries.

    auth: a keystoneauth plugin or its options (auth_url, username, password, project_name, user_domain_name, ...,
    optionally auth_type). region '' means the catalog's only one. timeout_s bounds every call, a log-in included;
    inventory, which is many calls, gets three times that. verify: False, True, or the file of a CA. Placement's
    figures are kept for room_keep_s. ask_cinder: an inventory says of volumes on which backend of Cinder they are.
    """

    def __init__(
        self,
        auth: BaseAuthPlugin | Mapping[str, str],
        *,
        region: str = "",
        interface: str = "public",
        timeout_s: float = 10.0,
        verify: bool | str = True,
        room_keep_s: float = 30.0,
        ask_cinder: bool = False,
    ) -> None:
        self.timeout_s = timeout_s
        self._calls = Calls(auth, region=region, interface=interface, timeout_s=timeout_s, verify=verify)
        self._side = Side(self._calls)
        self._rooms = Rooms(self._calls, self._side, room_keep_s)
        self._volumes = Volumes(self._calls, timeout_s) if ask_cinder else None
        self._service_ids: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def calls(self) -> Counter[tuple[str, str]]:
        """Requests made so far, by (HTTP method, kind). Those of placement…, cinder… and keystone… went elsewhere."""
        return self._calls.calls

    @property
    def calls_made(self) -> int:
        """Requests made to Nova so far."""
        return sum(count for (_, kind), count in self.calls.copy().items() if asked_of(kind) == COMPUTE)

    @property
    def http_requests(self) -> int:
        """Every HTTP request sent so far: Nova's, Placement's, Cinder's, log-ins, discovery."""
        return self._calls.http_requests

    def close(self) -> None:
        """Drops the connections; the object is not to be used again."""
        self._side.close()
        if self._volumes:
            self._volumes.close()
        self._calls.close()

    def services(self) -> tuple[ComputeService, ...]:
        """Without those whose cell does not answer: Nova cannot tell anything of them."""
        return tuple(service for row in self._service_rows() if (service := self._service(row)) is not None)

    def service(self, host: str) -> ComputeService | None:
        rows = self._service_rows(host)
        if not rows:
            return None
        service = self._service(rows[0])
        if service is None:
            raise Unanswered(f"services: the cell of {host} does not answer")
        return service

    def departures(self, host: str) -> tuple[tuple[Server, ...], tuple[Migration, ...]]:
        """Two requests up to a page (1000 by Nova's default) of each; one more per further page."""
        servers = self._servers(host)
        return servers, self.evacuations(host)

    def evacuations(self, host: str) -> tuple[Migration, ...]:
        return self._migrations({"migration_type": EVACUATION, "source_compute": host})

    def server_ids(self, host: str, active: bool = False) -> frozenset[str]:
        """Without the rows Nova asks Neutron nothing: for 60 servers a tenth of what the rows cost it."""
        params = {"all_tenants": "1", "host": host} | ({"status": "ACTIVE"} if active else {})
        rows = self._calls.pages("server ids", "/servers", SERVERS_AT, "servers", params)
        return frozenset(self._calls.parsed("server ids", lambda row: str(row["id"]), rows))

    def fallen(self, host: str) -> tuple[Server, ...]:
        """One request, and one more for each stopped server without a task."""
        stopped = [one for one in self._servers(host) if one.state is ServerState.STOPPED and not one.task_state]
        return tuple(one for one in stopped if self._nova_stopped(one.id))

    def stopped_lately(self, within_s: float) -> tuple[Server, ...]:
        """One request up to a page (1000 by Nova's default). Nova takes the time as «since», so its clock is asked."""
        since = (self._calls.time_there() - timedelta(seconds=within_s)).isoformat()
        params = {"all_tenants": "1", "status": "SHUTOFF", "changes-since": since}
        rows = self._calls.pages("stopped servers", "/servers/detail", SERVERS_AT, "servers", params)
        found = self._calls.parsed("stopped servers", server_of, rows)
        return tuple(sorted((one for one in found if one.state is ServerState.STOPPED), key=lambda one: one.id))

    def _nova_stopped(self, server_id: str) -> bool:
        """Its newest action is a stop that no user asked for: Nova's own, on finding the guest gone."""
        newest = next(iter(self.actions(server_id)), None)
        return newest is not None and newest.kind == "stop" and not newest.by_user

    def actions(self, server_id: str) -> tuple[Action, ...]:
        path = f"/servers/{_quoted(server_id)}/os-instance-actions"
        try:
            rows = self._calls.ask("actions", "GET", path, ACTIONS_AT).get("instanceActions")
        except Missing:
            return ()
        if not isinstance(rows, list):
            raise Unanswered("actions: the answer has no list of actions")
        # Nova lists the newest first; of two in one second it knows which.
        rows = sorted(rows, key=lambda row: str(row.get("start_time")), reverse=True)
        return tuple(self._calls.parsed("actions", action_of, rows))

    def server(self, server_id: str) -> Server | None:
        try:
            row = self._calls.ask("server", "GET", f"/servers/{_quoted(server_id)}", SERVERS_AT)
        except Missing:
            return None
        server: Server = self._calls.parsed("server", lambda answer: server_of(answer["server"]), [row])[0]
        return server

    def inventory(self, host: str, hosts: Sequence[str], at: float) -> Inventory:
        """Raises Unanswered as a whole when any part but Cinder's is; also when the host's cell does not answer."""
        with self._calls.limit.within(INVENTORY_LIMITS * self.timeout_s):
            return self._inventory(host, hosts, at)

    def _inventory(self, host: str, hosts: Sequence[str], at: float) -> Inventory:
        rows = self._service_rows()
        services = {row["host"]: self._service(row) for row in rows}
        if host in services and services[host] is None:
            raise Unanswered(f"inventory: the cell of {host} does not answer, so its servers cannot be seen")
        servers = self._servers(host)
        asking = self._volumes.ask(servers) if self._volumes else None
        migrations = self._migrations({"host": host})
        groups = self._groups(servers)
        rooms = self._rooms.of(hosts)
        return Inventory(
            host=host,
            at=at,
            servers=asking.placed(servers) if asking else servers,
            migrations=tuple(m for m in migrations if is_unfinished(m) or m.kind in (EVACUATION, LIVE)),
            groups=groups,
            member_hosts=self._member_hosts(servers, groups),
            services=tuple(service for name, service in services.items() if service and name in hosts),
            rooms=rooms,
            zones={row["host"]: str(row["zone"]) for row in rows if row.get("zone")},
        )

    def census(self) -> Census:
        """All there is, for an export: a few listings, and two requests for each host. Raises Unanswered as a whole."""
        servers = self._calls.pages("servers", "/servers/detail", SERVERS_AT, "servers", {"all_tenants": "1"})
        return census_of(self._calls, self._side, self._service_rows(), servers, self._all_groups())

    def prospect(self) -> Census:
        """A census with what it takes to say what may come: two more requests for each host, and some listings."""
        census = self.census()
        listed = {one.id: one for params in MIGRATIONS for one in self._migrations(params)}
        newest = sorted(listed.values(), key=lambda one: one.created_at, reverse=True)
        rooms = self._rooms.of(one.host for one in census.stocks)
        return replace(census, services=self.services(), rooms=rooms, migrations=tuple(newest))

    def all_servers(self) -> tuple[Server, ...]:
        """Of the whole cloud, by id: one request a page."""
        rows = self._calls.pages("servers", "/servers/detail", SERVERS_AT, "servers", {"all_tenants": "1"})
        return tuple(sorted(self._calls.parsed("servers", server_of, rows), key=lambda one: one.id))

    def servers_named(self, name: str) -> tuple[Server, ...]:
        """Those that have this very name, by id. Nova takes it for a pattern."""
        params = {"all_tenants": "1", "name": name}
        rows = self._calls.pages("servers", "/servers/detail", SERVERS_AT, "servers", params)
        found = (one for one in self._calls.parsed("servers", server_of, rows) if one.name == name)
        return tuple(sorted(found, key=lambda one: one.id))

    def surroundings(self, keys: frozenset[str], domains: frozenset[str]) -> Surroundings:
        with self._calls.limit.within(INVENTORY_LIMITS * self.timeout_s):
            return surroundings_of(self._calls, self._all_groups(), keys, domains)

    def port_states(self, server_id: str) -> Mapping[str, str] | None:
        """As drivers.readiness.gates asks for them."""
        return attached.port_states(self._calls, server_id)

    def addresses(self, server_id: str) -> tuple[tuple[str, bool], ...] | None:
        return attached.addresses(self._calls, server_id)

    def set_forced_down(self, host: str, forced: bool) -> None:
        """Nova refuses False while evacuations from the host are «done» and its nova-compute has not cleaned up yet."""
        self._update_service(host, {"forced_down": forced})

    def set_enabled(self, host: str, enabled: bool, reason: str) -> None:
        """On a host that died and is not forced down yet Nova blocks for a minute: force it down first."""
        change = {"status": "enabled" if enabled else "disabled"}
        if not enabled and reason:
            change["disabled_reason"] = reason[:REASON_MAX]
        self._update_service(host, change)

    def evacuate(self, server_id: str, target: str, force: bool) -> None:
        if force:
            self._act("evacuate", server_id, {"host": target, "force": True}, EVACUATE_BY_FORCE_AT)
        else:
            self._act("evacuate", server_id, {"host": target}, EVACUATE_AT)

    def live_migrations(self, server_id: str) -> tuple[Migration, ...]:
        return self._migrations({"migration_type": LIVE, "instance_uuid": server_id})

    def live_migrate(self, server_id: str, target: str) -> None:
        """From 2.68 on no target goes past the scheduler. auto: disks are copied where they are not shared."""
        self._act("os-migrateLive", server_id, {"host": target, "block_migration": "auto"}, LIVE_MIGRATE_AT)

    def start(self, server_id: str) -> None:
        self._act("os-start", server_id, None, POWER_AT)

    def stop(self, server_id: str) -> None:
        self._act("os-stop", server_id, None, POWER_AT)

    def reboot(self, server_id: str) -> None:
        self._act("reboot", server_id, {"type": "HARD"}, POWER_AT)

    def _act(self, action: str, server_id: str, body: Mapping[str, object] | None, microversion: str) -> None:
        path = f"/servers/{_quoted(server_id)}/action"
        self._calls.ask(action, "POST", path, microversion, json={action: body})

    def _service_rows(self, host: str = "") -> list[dict[str, Any]]:
        params = {"binary": "nova-compute"} | ({"host": host} if host else {})
        rows = self._calls.ask("services", "GET", "/os-services", SERVICES_AT, params=params).get("services")
        if not isinstance(rows, list) or not all(isinstance(row, dict) and row.get("host") for row in rows):
            raise Unanswered("services: the answer has no list of services")
        with self._lock:
            self._service_ids.update({row["host"]: str(row["id"]) for row in rows if "id" in row})
        return sorted(rows, key=lambda row: str(row["host"]))

    def _service(self, row: dict[str, Any]) -> ComputeService | None:
        service: ComputeService | None = self._calls.parsed("services", service_of, [row])[0]
        return service

    def _update_service(self, host: str, change: Mapping[str, object]) -> None:
        with self._calls.limit.within(self.timeout_s):
            if host not in self._service_ids:
                self._service_rows(host)
            service_id = self._service_ids.get(host)
            if service_id is None:
                raise Refused(f"Nova has no nova-compute service on {host}")
            try:
                path = f"/os-services/{_quoted(service_id)}"
                self._calls.ask("update-service", "PUT", path, SERVICES_AT, json=dict(change))
            except Missing:
                self._service_ids.pop(host, None)
                raise

    def _servers(self, host: str) -> tuple[Server, ...]:
        params = {"all_tenants": "1", "host": host}
        rows = self._calls.pages("servers", "/servers/detail", SERVERS_AT, "servers", params)
        return tuple(sorted(self._calls.parsed("servers", server_of, rows), key=lambda server: server.id))

    def _migrations(self, params: Mapping[str, str]) -> tuple[Migration, ...]:
        rows = self._calls.pages("migrations", "/os-migrations", MIGRATIONS_AT, "migrations", params)
        aged = self._calls.parsed("migrations", lambda row: (age_of(row), migration_of(row)), rows)
        return tuple(migration for _, migration in sorted(aged, key=lambda pair: pair[0], reverse=True))

    def _groups(self, servers: Sequence[Server]) -> tuple[Group, ...]:
        """The groups with a member among servers."""
        here = {server.id for server in servers}
        found = {group.id: group for group in self._all_groups() if here & set(group.members)} if here else {}
        return tuple(found[key] for key in sorted(found))

    def _all_groups(self) -> Iterator[Group]:
        """Nova's listing has no links: an empty page is its end."""
        seen = 0
        while True:
            params = {"all_projects": "True", "offset": str(seen)}
            page = self._calls.ask("groups", "GET", "/os-server-groups", GROUPS_AT, params=params).get("server_groups")
            if not isinstance(page, list):
                raise Unanswered("groups: the answer has no list of groups")
            if not page:
                return
            seen += len(page)
            yield from self._calls.parsed("groups", group_of, page)

    def _member_hosts(self, servers: Sequence[Server], groups: Sequence[Group]) -> dict[str, str]:
        known = {server.id: server.host for server in servers}
        members = {member for group in groups for member in group.members}
        others = self._side.each(self.server, sorted(members - set(known)))
        known.update({other.id: other.host for other in others if other is not None})
        return {member: known[member] for member in sorted(members) if member in known}


def _quoted(part: str) -> str:
    return quote(part, safe="")
