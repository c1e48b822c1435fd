# SPDX-License-Identifier: Apache-2.0
"""vmhad-manage topology export: the cloud as it is now, as the file that vmhad-sim rehearses.

What is in no segment is no part of it, and is told. The BMCs stay at home unless they are asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from vmhad.conf.settings import ConfigError, Settings
from vmhad.conf.topology import HostInventory, Topology
from vmhad.conf.topology_file import GROUP_POLICIES, topology_text
from vmhad.drivers.compute.census import Census, Stock
from vmhad.kernel.cloud import Group, Server
from vmhad.kernel.policy import Policy
from vmhad.wiring import open_compute

NAMES_TOLD = 5


def add_topology(nouns: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the noun to vmhad-manage."""
    verbs = nouns.add_parser("topology", help="what is where, for rehearsals").add_subparsers(required=True)
    one = verbs.add_parser("export", help="writes the file that «vmhad-sim rehearse --topology» reads")
    one.add_argument("--output", metavar="FILE", help="a new file; without it, to standard output")
    one.add_argument("--with-bmc", action="store_true", help="with addresses and users of the BMCs; never passwords")


def export(settings: Settings, policy: Policy, told: argparse.Namespace) -> int:
    """policy: what [policy] says for every segment. Raises ConfigError, Unanswered, Refused."""
    compute = open_compute(settings)
    try:
        census = compute.census()
    finally:
        compute.close()
    topology = merged(settings, policy, census)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    text = topology_text(topology, at, settings.power.bmcs if told.with_bmc else None, settings.storages)
    if told.output:
        _write_new(Path(told.output), text)
    else:
        print(text, end="")
    for line in summary(topology, census):
        print(line, file=sys.stderr)
    return 0


def merged(settings: Settings, policy: Policy, census: Census) -> Topology:
    """The segments as vmhad knows them, with what Nova and Placement have on their hosts."""
    at_home = {host: segment.name for segment in settings.segments for host in segment.names}
    servers = tuple(
        _kept(one, settings.policies[at_home[one.host]].opt_out_key) for one in census.servers if one.host in at_home
    )
    ids = {one.id for one in servers}
    return Topology(
        segments=settings.segments,
        policy=policy,
        policies=settings.policies,
        inventories={one.host: _inventory(one) for one in census.stocks if one.host in at_home},
        servers=servers,
        groups=tuple(_groups(census.groups, ids)),
        needs={server: traits for server, traits in census.needs.items() if server in ids},
    )


def summary(topology: Topology, census: Census) -> Iterable[str]:
    """What is in the file, and what of the cloud is not."""
    hosts = {host for segment in topology.segments for host in segment.names}
    yield (
        f"{len(topology.segments)} segments, {len(hosts)} hosts, {len(topology.servers)} servers, "
        f"{len(topology.groups)} groups"
    )
    known = {one.host for one in census.stocks}
    yield from _told("in a segment, but Nova has no nova-compute of that name", hosts - known)
    yield from _told("in no segment, so not protected and not in the file", known - hosts)
    kept = {one.id for one in topology.servers}
    strays = {one.name or one.id for one in census.servers if one.id not in kept}
    yield from _told("servers on no host of a segment, so not in the file", strays)


def _told(what: str, names: set[str]) -> Iterable[str]:
    if names:
        some = ", ".join(sorted(names)[:NAMES_TOLD])
        yield f"{len(names)} {what}: {some}{', ...' if len(names) > NAMES_TOLD else ''}"


def _kept(server: Server, opt_out_key: str) -> Server:
    """What users wrote about their servers is theirs; only what vmhad acts on is taken."""
    told = server.metadata.get(opt_out_key)
    metadata = {opt_out_key: told} if told else {}
    zone = server.zone if server.zone_pinned else ""
    return replace(server, name=server.name or server.id, task_state="", fault="", zone=zone, metadata=metadata)


def _inventory(stock: Stock) -> HostInventory:
    return HostInventory(
        stock.vcpus, stock.ram_mib, stock.disk_gib, stock.zone, aggregates=stock.aggregates, traits=stock.traits
    )


def _groups(groups: Iterable[Group], ids: set[str]) -> Iterable[Group]:
    """Those with a member here, by their members here."""
    for group in sorted(groups, key=lambda one: one.id):
        members = tuple(member for member in group.members if member in ids)
        if members and group.policy in GROUP_POLICIES:
            yield replace(group, members=members)


def _write_new(path: Path, text: str) -> None:
    """Never over a file that is there: it may be the one an engine runs on."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"--output: there is a file {path} already.") from None
    except OSError as error:
        raise ConfigError(f"--output: {path} cannot be written: {error.strerror}.") from None
