# SPDX-License-Identifier: Apache-2.0
"""Who is on a Ceph cluster's blocklist: whole addresses, and single clients of them.

Ceph takes an entry that is there already for done and never lengthens it. So an address is blocked in one of two ways,
by itself or as a range of one, and where one entry ends too soon the other is made: at no time is there none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any

from vmhad.drivers.storage.ceph_session import Session, instance, network_of

BLOCKLIST = "osd blocklist"


def block(session: Session, address: str, expire_s: float) -> None:
    """All clients of the address, for at least half of expire_s from now."""
    dump = session.ask("osd dump")
    ends = {way: _ends_of(dump, address, way) for way in WAYS}
    if max(ends.values()) > time.time() + expire_s / 2:
        return
    way = min(WAYS, key=ends.__getitem__)
    if ends[way]:
        _entry(session, "rm", way(address))
    _entry(session, "add", way(address), expire_s)


def unblock(session: Session, dump: Mapping[str, Any], address: str) -> None:
    """Takes back both ways. A wider range is an operator's."""
    for way in WAYS:
        if _ends_of(dump, address, way):
            _entry(session, "rm", way(address))


def block_clients(session: Session, clients: frozenset[str], expire_s: float) -> None:
    at_once(*[partial(_entry, session, "add", {"addr": one}, expire_s) for one in sorted(clients)])


def blocked_until(dump: Mapping[str, Any], address: str) -> float:
    """In Unix seconds, by whatever blocks all of the address; 0 where nothing does."""
    ranges = [until for entry, until in _ranges(dump).items() if ip_address(address) in network_of(entry)]
    return max([_ends_of(dump, address, _by_itself), *map(_unix, ranges)])


def at_once(*calls: Callable[[], None]) -> None:
    """In one change of the map, where it can be: each change takes Ceph up to a second."""
    if calls:
        with ThreadPoolExecutor(len(calls)) as pool:
            for done in [pool.submit(call) for call in calls]:
                done.result()


def _by_itself(address: str) -> Mapping[str, str]:
    return {"addr": instance(address)}


def _as_range(address: str) -> Mapping[str, str]:
    return {"range": "range", "addr": str(ip_network(address))}


WAYS = (_by_itself, _as_range)


def _entry(session: Session, change: str, entry: Mapping[str, str], expire_s: float = 0.0) -> None:
    lasting: dict[str, Any] = {"expire": float(expire_s)} if expire_s else {}
    session.ask(BLOCKLIST, blocklistop=change, **entry, **lasting)


def _ends_of(dump: Mapping[str, Any], address: str, way: Callable[[str], Mapping[str, str]]) -> float:
    if way is _by_itself:
        return _unix(dump["blocklist"].get(instance(address)))
    return max((_unix(until) for entry, until in _ranges(dump).items() if network_of(entry) == ip_network(address)),
               default=0.0)  # fmt: skip


def _ranges(dump: Mapping[str, Any]) -> Mapping[str, str]:
    """A Ceph that is older than its ranges has none."""
    ranges: Mapping[str, str] = dump.get("range_blocklist") or {}
    return ranges


def _unix(until: str | None) -> float:
    return datetime.fromisoformat(until).timestamp() if until else 0.0
