# SPDX-License-Identifier: Apache-2.0
"""Which of a cluster's own daemons share their addresses with a host, and so whether the host may be blocked by them.

The blocklist is for clients. OSDs and monitors are none of each other: one whose address is blocked serves on, boots
and recovers. A manager and an MDS are clients, for everybody: blocked they keep their place and can write nothing. And
a client is known by the address by which it came to the monitor that answered it first: on the host of a monitor, by
chance, by that monitor's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vmhad.drivers.storage.ceph_session import Session, Unsaid, addresses_in


def refuse_to_block(session: Session, host: str, addresses: tuple[str, ...], hyperconverged: bool) -> None:
    """Raises Unsaid where to block these addresses would take something from others, or leave a way in to the host."""
    dump, mons = session.ask("osd dump"), session.ask("mon dump")
    shared = shared_with(dump, mons, [session.ask("mgr dump"), session.ask("fs dump")], addresses, hyperconverged)
    if shared:
        raise Unsaid(f"{', '.join(shared)} is also the address of a daemon of the cluster", refused=True)
    if session.own_addresses().intersection(addresses):
        raise Unsaid("the host is the one that this engine runs on", refused=True)
    osds = _osds_at(dump, addresses)
    if hyperconverged and osds and (tiers := _tiers(dump)):
        # An OSD that promotes an object reads it from another OSD, as a client.
        raise Unsaid(f"pool {tiers[0]} is a cache, and the host has OSDs, which fill it as clients", refused=True)
    metadata = session.ask("mon metadata")
    known = {_host_of(session.ask("osd metadata", id=osd)) for osd in osds}
    for name, at in unlisted_monitors(mons, metadata, {host} | known, addresses):
        raise Unsaid(
            f"its monitor {name} has the address {at}, which is not among its clients: whom that monitor answers "
            "first is known by it",
            refused=True,
        )


def shared_with(
    osds: Mapping[str, Any], mons: Any, clients: list[Any], addresses: tuple[str, ...], hyperconverged: bool
) -> list[str]:
    """Those of the addresses that are also a daemon's which must not be blocked. clients: what was said of the managers
    and of the MDSs."""
    spared = addresses_in(clients) if hyperconverged else addresses_in([*clients, osds["osds"], mons])
    return sorted(spared.intersection(addresses))


def unlisted_monitors(
    mons: Mapping[str, Any], metadata: Iterable[Mapping[str, Any]], names: Iterable[str], addresses: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Monitors on the host with an address that is not among these. names: by which the host may be known."""
    host_of = {one["name"]: _host_of(one) for one in metadata}
    at = {one["name"]: addresses_in(one) for one in mons["mons"]}
    here = {*names, *(host_of.get(name, "") for name, known in at.items() if known.intersection(addresses))} - {""}
    beside = [name for name in at if any(_is_same(host_of.get(name, ""), one) for one in here)]
    return [(name, one) for name in sorted(beside) for one in sorted(at[name].difference(addresses))]


def _osds_at(dump: Mapping[str, Any], addresses: tuple[str, ...]) -> list[int]:
    return [one["osd"] for one in dump["osds"] if addresses_in(one).intersection(addresses)]


def _tiers(dump: Mapping[str, Any]) -> list[str]:
    return sorted(pool["pool_name"] for pool in dump["pools"] if pool.get("tier_of", -1) >= 0)


def _host_of(metadata: Mapping[str, Any]) -> str:
    return str(metadata.get("hostname", ""))


def _is_same(one: str, other: str) -> bool:
    """The one may be the other without its domain."""
    return bool(one) and (one == other or one.startswith(f"{other}.") or other.startswith(f"{one}."))
