# SPDX-License-Identifier: Apache-2.0
"""The topology file: the segments file with what a rehearsal has to know beside it, read and written here.

One schema: a file that an engine runs on can be rehearsed once its servers are added, and an export that names the BMCs
can be an engine's segments file. Rule kept: no password is ever written, and BMCs only where they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

import yaml

from vmhad.conf.load import policy_defaults
from vmhad.conf.segments_file import HOST_FIELDS, OPTIONAL_PARTS, Addresses, host_of, name_of, overridden
from vmhad.conf.settings import BmcAccess, StorageAccess
from vmhad.conf.storages_file import storage_rows, storages_of, with_backends
from vmhad.conf.topology import HostInventory, Topology
from vmhad.conf.yaml_file import Field, parse, read_text
from vmhad.kernel.cloud import Group, Server, ServerState
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Segment

TOPOLOGY_OPTION = "--topology"
POLICY_OPTION = "--policy"
MANY = 1 << 31
INVENTORY_FIELDS = ("vcpus", "ram_mib", "disk_gib", "zone", "aggregates", "traits")
SERVER_FIGURES = ("vcpus", "ram_mib", "disk_gib")
SERVER_MARKS = ("volume_backed", "locked", "zone_pinned")
SERVER_FIELDS = ("state", *SERVER_FIGURES, *SERVER_MARKS, "zone", "group", "needs", "metadata")
GROUP_POLICIES = ("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity")
BMC_FIELDS = ("driver", "address", "port", "user", "privilege", "system", "ca_file", "guid", "via")


def load_topology(path: str, policy: Policy | None = None) -> Topology:
    """policy: what holds for all segments instead of what the file was exported with. Raises ConfigError."""
    document = parse(read_text(path, TOPOLOGY_OPTION), path, TOPOLOGY_OPTION)
    top = Field(path, "", document).mapping(["segments"], OPTIONAL_PARTS)
    base = policy or _exported_policy(top)
    read = _Segments(base)
    for entry in top["segments"].items():
        read.take(entry)
    storages = storages_of(top["storages"], read.segments) if "storages" in top else ()
    segments = tuple(with_backends(one, storages) for one in read.segments)
    groups = [_group(entry) for entry in top["groups"].items()] if "groups" in top else []
    told = _Servers(set(read.at_home), {group.id for group in groups})
    for entry in top["servers"].items() if "servers" in top else []:
        told.take(entry)
    members = tuple(Group(one.id, one.policy, tuple(told.members[one.id]), one.max_per_host) for one in groups)
    return Topology(
        segments, base, read.policies, read.inventories, tuple(told.servers.values()), members, told.needs
    )


def load_policy(path: str) -> Policy:
    """From a YAML file of policy fields (.yaml, .yml), else from the [policy] of an ini file. Raises ConfigError."""
    if path.endswith((".yaml", ".yml")):
        return overridden(Policy(), Field(path, "", parse(read_text(path, POLICY_OPTION), path, POLICY_OPTION)))
    read_text(path, POLICY_OPTION)
    return policy_defaults(["--config-file", path])


@dataclass
class _Segments:
    """Takes one segment of the file at a time. at_home: host -> its segment."""

    policy: Policy
    segments: list[Segment] = field(default_factory=list)
    policies: dict[str, Policy] = field(default_factory=dict)
    inventories: dict[str, HostInventory] = field(default_factory=dict)
    at_home: dict[str, str] = field(default_factory=dict)
    addresses: Addresses = field(default_factory=Addresses)

    def take(self, entry: Field) -> None:
        parts = entry.mapping(["name", "hosts"], ["policy"])
        name = name_of(parts["name"])
        if name in self.policies:
            raise parts["name"].wrong(f"repeats the segment {name!r}")
        hosts = []
        for host_entry in parts["hosts"].items():
            host_parts = host_entry.mapping(["name"], HOST_FIELDS)
            host = host_of(host_parts)
            if host.name in self.at_home:
                home = self.at_home[host.name]
                raise host_entry.wrong(f"repeats the host {host.name!r}, which is in segment {home!r}")
            self.addresses.take(host_entry, host)
            self.at_home[host.name] = name
            if "inventory" in host_parts:
                self.inventories[host.name] = _inventory(host_parts["inventory"])
            hosts.append(host)
        self.segments.append(Segment(name, tuple(hosts)))
        self.policies[name] = overridden(self.policy, parts["policy"]) if "policy" in parts else self.policy


@dataclass
class _Servers:
    """Takes one server of the file at a time, and holds it against the hosts and groups that there are."""

    hosts: set[str]
    groups: set[str]
    servers: dict[str, Server] = field(default_factory=dict)
    needs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    members: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.members = {group: [] for group in self.groups}

    def take(self, entry: Field) -> None:
        parts = entry.mapping(["id", "name", "host"], SERVER_FIELDS)
        server = _server(parts)
        if server.id in self.servers:
            raise parts["id"].wrong(f"repeats the server {server.id}")
        if server.host not in self.hosts:
            raise parts["host"].wrong(f"names {server.host!r}, which is a host of no segment here")
        if "group" in parts:
            group = parts["group"].text()
            if group not in self.groups:
                raise parts["group"].wrong(f"names {group!r}, which is not among the groups here")
            self.members[group].append(server.id)
        if "needs" in parts:
            self.needs[server.id] = parts["needs"].texts()
        self.servers[server.id] = server


def _exported_policy(top: Mapping[str, Field]) -> Policy:
    if "exported" not in top:
        return Policy()
    parts = top["exported"].mapping([], ["at", "policy"])
    return overridden(Policy(), parts["policy"]) if "policy" in parts else Policy()


def _inventory(entry: Field) -> HostInventory:
    parts = entry.mapping([], INVENTORY_FIELDS)
    values: dict[str, Any] = {}
    for name, part in parts.items():
        if name == "zone":
            values[name] = part.text()
        elif name in ("aggregates", "traits"):
            values[name] = part.texts()
        else:
            values[name] = part.number(0, MANY)
    return HostInventory(**values)


def _server(parts: Mapping[str, Field]) -> Server:
    values: dict[str, Any] = {"id": name_of(parts["id"]), "name": parts["name"].text(), "host": parts["host"].text()}
    for name in SERVER_FIGURES:
        if name in parts:
            values[name] = parts[name].number(0, MANY)
    for name in SERVER_MARKS:
        if name in parts:
            values[name] = parts[name].truth()
    if "zone" in parts:
        values["zone"] = parts["zone"].text()
    if "metadata" in parts:
        values["metadata"] = {key: part.text() for key, part in parts["metadata"].entries().items()}
    return Server(state=_state(parts), **values)


def _state(parts: Mapping[str, Field]) -> ServerState:
    if "state" not in parts:
        return ServerState.ACTIVE
    try:
        return ServerState(parts["state"].text())
    except ValueError:
        known = ", ".join(state.value for state in ServerState)
        raise parts["state"].wrong(f"must be one of {known}") from None


def _group(entry: Field) -> Group:
    """Its members are named in the servers."""
    parts = entry.mapping(["id", "policy"], ["max_per_host"])
    policy = parts["policy"].text()
    if policy not in GROUP_POLICIES:
        raise parts["policy"].wrong(f"must be one of {', '.join(GROUP_POLICIES)}")
    most = parts["max_per_host"].number(1, MANY) if "max_per_host" in parts else 1
    return Group(name_of(parts["id"]), policy, (), most)


def topology_text(
    topology: Topology,
    at: str,
    bmcs: Mapping[str, BmcAccess] | None = None,
    storages: Iterable[StorageAccess] = (),
) -> str:
    """The file's text. at: when it was exported. bmcs: of the hosts whose BMC is to be named; never its password.
    storages: as the engine's own file has them."""
    exported: dict[str, Any] = {"at": at}
    changed = _changes(Policy(), topology.policy)
    document: dict[str, Any] = {"exported": exported | ({"policy": changed} if changed else {})}
    document["segments"] = [_segment_row(topology, segment, bmcs or {}) for segment in topology.segments]
    if rows := storage_rows(storages):
        document["storages"] = rows
    if topology.groups:
        document["groups"] = [_group_row(group) for group in topology.groups]
    if topology.servers:
        group_of = {member: group.id for group in topology.groups for member in group.members}
        document["servers"] = [
            _server_row(one, group_of.get(one.id, ""), topology.needs.get(one.id, ())) for one in topology.servers
        ]
    return yaml.dump(document, Dumper=_RowDumper, sort_keys=False, width=1000, allow_unicode=True)


class _Row(dict[str, Any]):
    """A mapping that is written on one line."""


class _RowDumper(yaml.SafeDumper):
    """Without YAML's shorthands for what stands twice: this file is read by people."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_RowDumper.add_representer(
    _Row, lambda dumper, row: dumper.represent_mapping("tag:yaml.org,2002:map", row.items(), flow_style=True)
)


def _segment_row(topology: Topology, segment: Segment, bmcs: Mapping[str, BmcAccess]) -> dict[str, Any]:
    changed = _changes(topology.policy, topology.policies[segment.name])
    hosts = []
    for host in segment.hosts:
        row: dict[str, Any] = {"name": host.name}
        if host.domains:
            row["domains"] = _Row(host.domains)
        if host.planes:
            row["planes"] = _Row(host.planes)
        if host.cut_storage is not None:
            row["cut_storage"] = host.cut_storage.value
        if host.name in bmcs:
            row |= _power_rows(bmcs[host.name])
        if host.name in topology.inventories:
            row["inventory"] = _set_fields(topology.inventories[host.name], INVENTORY_FIELDS)
        hosts.append(row)
    return {"name": segment.name} | ({"policy": changed} if changed else {}) | {"hosts": hosts}


def _power_rows(bmc: BmcAccess) -> dict[str, Any]:
    rows: dict[str, Any] = {"bmc": _power_row(bmc)}
    if bmc.second is not None:
        rows["second_power"] = _Row(_power_row(bmc.second) | ({"outlet": True} if bmc.second.outlet else {}))
    if bmc.outlets:
        rows["outlets"] = [_power_row(one) for one in bmc.outlets]
    return rows


def _power_row(one: BmcAccess) -> _Row:
    return _Row((name, value) for name in BMC_FIELDS if (value := getattr(one, name)) != "")


def _group_row(group: Group) -> _Row:
    most = {"max_per_host": group.max_per_host} if group.max_per_host != 1 else {}
    return _Row({"id": group.id, "policy": group.policy} | most)


def _server_row(server: Server, group: str, needs: tuple[str, ...]) -> _Row:
    """Figures are always written, the rest where it is not what a plain server has."""
    row = _Row(id=server.id, name=server.name, host=server.host)
    row.update(_set_fields(server, ("state", *SERVER_FIGURES)))
    plain = Server("", "", "", ServerState.ACTIVE)
    for name in (*SERVER_MARKS, "zone", "metadata"):
        value = getattr(server, name)
        if value != getattr(plain, name):
            row[name] = dict(value) if name == "metadata" else value
    return _Row(row | ({"group": group} if group else {}) | ({"needs": list(needs)} if needs else {}))


def _set_fields(value: object, names: tuple[str, ...]) -> _Row:
    row = _Row()
    for name in names:
        one = getattr(value, name)
        if one is not None and one != "" and one != ():
            row[name] = list(one) if isinstance(one, tuple) else _plain(one)
    return row


def _changes(old: Policy, new: Policy) -> dict[str, Any]:
    return {
        one.name: _plain(getattr(new, one.name))
        for one in fields(new)
        if getattr(new, one.name) != getattr(old, one.name)
    }


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
