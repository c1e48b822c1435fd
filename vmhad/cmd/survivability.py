# SPDX-License-Identifier: Apache-2.0
"""vmhad-manage survivability: what of the cloud can be lost with every protected VM back, and what hangs on one thing.

It reads, and changes nothing: Nova and Placement as they are now, or a topology file. Nothing of it needs an engine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

from vmhad.conf.settings import ConfigError, Settings
from vmhad.conf.topology import HostInventory, Topology
from vmhad.conf.topology_file import load_topology
from vmhad.drivers.compute.census import Census
from vmhad.drivers.compute.rooms import NO_LIMIT
from vmhad.engine.explaining import all_settled
from vmhad.guards.hosts.board import less
from vmhad.journal.policies import PolicyShelf
from vmhad.kernel.cloud import ComputeService, Room, Server
from vmhad.kernel.signal import Reading
from vmhad.ports import Unanswered
from vmhad.survivability.cloud import Cloud, Loss
from vmhad.survivability.document import lines, survivability
from vmhad.survivability.survey import Survey
from vmhad.wiring import open_compute, open_power

NAMED = "named"
NFS_GANESHA = "nfs_ganesha"


def add_survivability(nouns: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the noun to vmhad-manage."""
    one = nouns.add_parser("survivability", help="what can be lost, which VMs would be left, what hangs on one thing")
    one.add_argument("--json", action="store_true", help="the whole document")
    one.add_argument(
        "--topology", metavar="FILE", default="", help="of this cloud, instead of Nova's; no configuration"
    )
    one.add_argument(
        "--lose", metavar="NAME=HOST,HOST", action="append", default=[], help="a set of hosts to ask about, beside all"
    )
    one.add_argument("--ask-bmcs", action="store_true", help="whether each BMC answers, too")
    one.add_argument(
        "--every", metavar="SECONDS", type=float, default=0.0, help="again and again; with --json a document a line"
    )


def foretell(settings: Settings | None, shelf: PolicyShelf | None, told: argparse.Namespace) -> int:
    """Both None with a topology file. Raises ConfigError, Unanswered, Refused."""
    found: Survey | None = None
    while True:
        try:
            found = look(settings, shelf, told, found)
        except Unanswered as error:
            if found is None:
                raise
            print(f"vmhad-manage: {error}; what was said last may be old", file=sys.stderr, flush=True)
        if told.every <= 0:
            return 0
        time.sleep(told.every)


def look(
    settings: Settings | None, shelf: PolicyShelf | None, told: argparse.Namespace, before: Survey | None
) -> Survey:
    """Prints what is so now; before: what was found last."""
    if settings is None or shelf is None:
        cloud = of_topology(load_topology(told.topology))
    else:
        cloud = of_settings(settings, shelf, told.ask_bmcs)
    document, found = survivability(cloud, asked(told.lose, cloud), before)
    if told.json:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        print(json.dumps({"at": at} | dict(document), indent=None if told.every > 0 else 1), flush=True)
    else:
        print("\n".join(lines(document)), flush=True)
    return found


def asked(words: Iterable[str], cloud: Cloud) -> tuple[Loss, ...]:
    """What --lose names. Raises ConfigError."""
    known = {name for segment in cloud.segments for name in segment.names}
    found = {}
    for word in words:
        name, _, hosts = word.partition("=")
        lost = frozenset(filter(None, (one.strip() for one in hosts.split(","))))
        if not name or not lost:
            raise ConfigError(f"--lose must be NAME=HOST,HOST, not {word!r}.")
        if lost - known:
            raise ConfigError(f"--lose {name}: no segment has a host {min(lost - known)!r}.")
        if name in found:
            raise ConfigError(f"--lose names {name!r} twice.")
        found[name] = Loss(NAMED, name, lost)
    return tuple(found.values())


def of_settings(settings: Settings, shelf: PolicyShelf, ask_bmcs: bool) -> Cloud:
    """As Nova and Placement have it now, and as the policies of VMs in the journal want it."""
    held, compute = shelf.newest(), open_compute(settings)
    try:
        census = compute.prospect()
        servers = all_settled(compute, held, census.servers)
    finally:
        compute.close()
    return merged(settings, replace(census, servers=servers), unfenced(settings, ask_bmcs))


def merged(settings: Settings, census: Census, without: Mapping[str, str]) -> Cloud:
    """The segments as vmhad knows them, with what Nova and Placement have. without: as Cloud has unfenced."""
    return Cloud(
        segments=settings.segments,
        policies=settings.policies,
        services=census.services,
        rooms={room.host: room for room in census.rooms},
        zones={one.host: one.zone for one in census.stocks if one.zone},
        servers=census.servers,
        groups=tuple(sorted(census.groups, key=lambda one: one.id)),
        traits={one.host: one.traits for one in census.stocks if one.traits},
        needs=census.needs,
        migrations=census.migrations,
        aggregates={one.host: one.aggregates for one in census.stocks if one.aggregates},
        unfenced=without,
        served_by={
            one.name: str(one.settings["ssh"]).rpartition("@")[2]
            for one in settings.storages
            if one.driver == NFS_GANESHA and "ssh" in one.settings
        },
    )


def unfenced(settings: Settings, ask_bmcs: bool) -> dict[str, str]:
    """Host -> why its power cannot be proven off. A BMC that only its peers reach is not asked from here."""
    names = [name for segment in settings.segments for name in segment.names]
    found = {name: "the segments file names no BMC of it" for name in names if name not in settings.power.bmcs}
    if not ask_bmcs:
        return found
    power = open_power(settings)
    direct = [name for name in names if name in settings.power.bmcs and name not in settings.power.via_agents]
    with ThreadPoolExecutor(settings.power.poll_workers, thread_name_prefix="bmc-read") as pool:
        for name, (reading, words) in zip(direct, pool.map(power.read, direct), strict=True):
            if reading is Reading.UNKNOWN:
                found[name] = f"its BMC does not tell ({words})"
    return found


def of_topology(topology: Topology) -> Cloud:
    """As the file tells it: every host up, and as much room as its servers leave it. One without figures of CPUs and
    RAM is not counted on to receive."""
    servers: dict[str, list[Server]] = {}
    for server in topology.servers:
        servers.setdefault(server.host, []).append(server)
    names = [name for segment in topology.segments for name in segment.names]
    told = topology.inventories
    return Cloud(
        segments=topology.segments,
        policies=topology.policies,
        services=tuple(ComputeService(name, True, True, "", False, "") for name in names),
        rooms={
            name: less(room, servers.get(name, ()))
            for name in names if (room := _room(name, told.get(name, HostInventory())))
        },
        zones={name: one.zone for name, one in told.items() if one.zone},
        servers=topology.servers,
        groups=topology.groups,
        traits={name: one.traits for name, one in told.items() if one.traits},
        needs=topology.needs,
        aggregates={name: one.aggregates for name, one in told.items() if one.aggregates},
    )  # fmt: skip


def _room(name: str, told: HostInventory) -> Room | None:
    if told.vcpus is None or told.ram_mib is None:
        return None
    return Room(name, told.vcpus, told.ram_mib, NO_LIMIT if told.disk_gib is None else told.disk_gib)
