# SPDX-License-Identifier: Apache-2.0
"""What Placement has left on named hosts. Read for those hosts only, side by side, and kept for a moment.

It predicts; Nova's scheduler decides. So a figure may be half a minute old, and a host that Placement does not know
has no room rather than an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from vmhad.drivers.compute.calls import Calls, Missing
from vmhad.kernel.cloud import Room
from vmhad.ports import Unanswered

PLACEMENT_AT = "1.9"
HYPERVISORS_AT = "2.53"  # from 2.88 on Nova asks every host for its uptime, the dead ones too
NO_LIMIT = 1 << 30  # a host without an inventory of its own for disk: a shared pool holds it
THREADS = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


class Side:
    """Calls made side by side by few threads, under the time limit of the thread that asks."""

    def __init__(self, calls: Calls) -> None:
        self._limit = calls.limit
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="compute-read")

    def each(self, call: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """The results in the order of items; raises what the first failing call raised."""
        until = self._limit.until

        def limited(item: Item) -> Result:
            with self._limit.same_as(until):
                return call(item)

        return list(self._pool.map(limited, items))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Rooms:
    """Rooms of hosts, each kept for keep_s seconds."""

    def __init__(self, calls: Calls, side: Side, keep_s: float) -> None:
        self._calls = calls
        self._side = side
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._providers: Mapping[str, str] = {}
        self._providers_at = float("-inf")
        self._kept: dict[str, tuple[float, Room]] = {}

    def of(self, hosts: Iterable[str]) -> tuple[Room, ...]:
        """Sorted by host; without those that Nova or Placement does not know. Raises Unanswered, Refused."""
        wanted = sorted(set(hosts))
        oldest = time.monotonic() - self._keep_s
        with self._lock:
            kept = {host: room for host, (at, room) in self._kept.items() if at >= oldest}
        missing = [host for host in wanted if host not in kept]
        providers = self._provider_ids(missing)
        began = time.monotonic()
        fresh = self._side.each(lambda host: self._read(host, providers[host]), [h for h in missing if h in providers])
        found = {room.host: room for room in fresh if room is not None}
        with self._lock:
            self._kept.update({host: (began, room) for host, room in found.items()})
        return tuple(room for host in wanted if (room := found.get(host) or kept.get(host)) is not None)

    def _provider_ids(self, hosts: list[str]) -> Mapping[str, str]:
        """host -> resource provider id, which is the hypervisor's. Read anew when one is missing or had gone."""
        with self._lock:
            known, fresh = self._providers, time.monotonic() - self._providers_at < self._keep_s
        if fresh or all(host in known for host in hosts):
            return known
        rows = self._calls.pages("hypervisors", "/os-hypervisors/detail", HYPERVISORS_AT, "hypervisors", {})
        read = dict(self._calls.parsed("hypervisors", lambda row: (row["service"]["host"], str(row["id"])), rows))
        with self._lock:
            self._providers, self._providers_at = read, time.monotonic()
        return read

    def _read(self, host: str, provider: str) -> Room | None:
        path = f"/resource_providers/{provider}"
        try:
            inventories = self._calls.ask("placement-inventories", "GET", f"{path}/inventories", PLACEMENT_AT)
            usages = self._calls.ask("placement-usages", "GET", f"{path}/usages", PLACEMENT_AT)
        except Missing:
            with self._lock:
                self._providers = {}
            return None
        try:
            return room_of(host, inventories["inventories"], usages["usages"])
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise Unanswered(f"placement: the inventory of {host} cannot be read") from exc


def room_of(host: str, inventories: Mapping[str, Any], usages: Mapping[str, Any]) -> Room:
    """Capacity is (total - reserved) * allocation_ratio, cut to a whole number; room is that less what is used.

    Dedicated CPUs count as CPUs: which kind a server wants is the scheduler's to check.
    """

    def left(kind: str, absent: int) -> int:
        if kind not in inventories:
            return absent
        row = inventories[kind]
        return int((row["total"] - row["reserved"]) * row["allocation_ratio"]) - int(usages.get(kind, 0))

    return Room(
        host=host,
        vcpus=left("VCPU", 0) + left("PCPU", 0),
        ram_mib=left("MEMORY_MB", 0),
        disk_gib=left("DISK_GB", NO_LIMIT),
    )
