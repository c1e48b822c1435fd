# SPDX-License-Identifier: Apache-2.0
"""The whole cloud at one look, for an export and for what may come: every server and group, what each host has.

Nothing here is asked while a host is being recovered. Every request has its own time limit; one that fails fails all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vmhad.drivers.compute.around import aggregates_of
from vmhad.drivers.compute.calls import Calls, Missing
from vmhad.drivers.compute.rooms import HYPERVISORS_AT, NO_LIMIT, PLACEMENT_AT, Side, room_of
from vmhad.drivers.compute.rows import server_of
from vmhad.kernel.cloud import EVACUATION, LIVE, ComputeService, Group, Migration, Room, Server
from vmhad.ports import Unanswered

TRAIT = "trait"
# The listings of migrations that say where else a server may run, or may not be moved by force: all evacuations, for
# what failed counts until one landed; live ones that ended in error; and what is not over. Nova keeps the others for
# ever, and a listing without a filter would be all of those.
UNDER_WAY = ("accepted", "queued", "preparing", "pre-migrating", "running", "migrating", "post-migrating")
MIGRATIONS: tuple[Mapping[str, str], ...] = (
    {"migration_type": EVACUATION},
    {"migration_type": LIVE, "status": "error"},
    *({"status": status} for status in UNDER_WAY),
)


@dataclass(frozen=True, slots=True)
class Stock:
    """What a host has in all, ratios and reserved amounts applied; None where Placement has no figure of it."""

    host: str
    zone: str = ""
    vcpus: int | None = None
    ram_mib: int | None = None
    disk_gib: int | None = None
    aggregates: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Census:
    """needs: server id -> the traits that its flavor requires, for the servers whose flavor requires some. services,
    rooms, migrations (newest first): only where what may come is asked."""

    servers: tuple[Server, ...]
    needs: Mapping[str, tuple[str, ...]]
    groups: tuple[Group, ...]
    stocks: tuple[Stock, ...]
    services: tuple[ComputeService, ...] = ()
    rooms: tuple[Room, ...] = ()
    migrations: tuple[Migration, ...] = ()


def census_of(
    calls: Calls, side: Side, services: Iterable[Mapping[str, Any]], servers: Iterable[Any], groups: Iterable[Group]
) -> Census:
    """services: rows of os-services; servers: rows of servers/detail. Raises Unanswered, Refused."""
    rows = list(servers)
    told: list[Server] = calls.parsed("servers", server_of, rows)
    needs: list[tuple[str, ...]] = calls.parsed("servers", needs_of, rows)
    providers = _providers(calls)
    aggregates = aggregates_of(calls)
    wanted = {trait for traits in needs for trait in traits}

    def stock(row: Mapping[str, Any]) -> Stock:
        host = str(row["host"])
        known = _figures(calls, host, providers[host], wanted) if host in providers else {}
        return Stock(host, str(row.get("zone") or ""), aggregates=aggregates.get(host, ()), **known)

    return Census(
        servers=tuple(sorted(told, key=lambda server: server.id)),
        needs={server.id: traits for server, traits in zip(told, needs, strict=True) if traits},
        groups=tuple(groups),
        stocks=tuple(side.each(stock, services)),
    )


def needs_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The traits that a server's flavor requires: extra specs «trait:NAME» and «traitN:NAME»."""
    specs = (row.get("flavor") or {}).get("extra_specs") or {}
    found = set()
    for key, value in specs.items():
        kind, _, name = str(key).partition(":")
        if kind.rstrip("0123456789") == TRAIT and name and value == "required":
            found.add(name)
    return tuple(sorted(found))


def _providers(calls: Calls) -> Mapping[str, str]:
    rows = calls.pages("hypervisors", "/os-hypervisors/detail", HYPERVISORS_AT, "hypervisors", {})
    return dict(calls.parsed("hypervisors", lambda row: (str(row["service"]["host"]), str(row["id"])), rows))


def _figures(calls: Calls, host: str, provider: str, wanted: set[str]) -> dict[str, Any]:
    """Of the traits only those that tell hosts apart: custom ones, and what some server's flavor requires."""

    def ask(part: str) -> Any:
        path = f"/resource_providers/{provider}/{part}"
        return calls.ask(f"placement-{part}", "GET", path, PLACEMENT_AT)[part]

    try:
        inventories, traits = ask("inventories"), ask("traits")
        room = room_of(host, inventories, {})
        kept = tuple(sorted(trait for trait in traits if trait in wanted or trait.startswith("CUSTOM_")))
    except Missing:
        return {}
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise Unanswered(f"placement: the inventory of {host} cannot be read") from exc
    return _known(room, inventories) | {"traits": kept}


def _known(room: Room, inventories: Mapping[str, Any]) -> dict[str, Any]:
    """A host without an inventory of a kind has no figure; its disk may be a pool's."""
    has_cpus = "VCPU" in inventories or "PCPU" in inventories
    return {
        "vcpus": room.vcpus if has_cpus else None,
        "ram_mib": room.ram_mib if "MEMORY_MB" in inventories else None,
        "disk_gib": room.disk_gib if room.disk_gib < NO_LIMIT else None,
    }
