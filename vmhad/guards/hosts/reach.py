# SPDX-License-Identifier: Apache-2.0
"""Which hosts reach the disks of a VM, as far as the segments file says so.

Rule kept: on a host that does not reach its disk Nova starts a VM with a fresh one, calls that a success, and the first
host deletes the good disk when it is back. So where a storage names who reaches it, nobody else receives what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmhad.kernel.cloud import Server
from vmhad.kernel.topology import OF_NOVA, UNPLACED, Backend, Segment


def must_reach(server: Server, segment: Segment) -> tuple[Backend, ...]:
    """The storages that a target of this server has to reach, of those that say who does: where its disks are, and,
    of a disk that nobody can say the place of, wherever it may be. By name."""
    found: dict[str, Backend] = {}
    for disk in server.disks:
        backend = segment.backend_of(disk, server.host)
        if backend is not None:
            found[backend.name] = backend
        elif disk.startswith(UNPLACED):
            found |= {one.name: one for one in segment.backends_of(server.host) if one.holds - {OF_NOVA}}
    if not server.disks:
        found = {one.name: one for one in segment.backends_of(server.host)}
    return tuple(found[name] for name in sorted(found) if found[name].reached_by)


def is_reached(storages: Sequence[Backend], host: str) -> bool:
    return all(host in one.reached_by for one in storages)


def named(storages: Sequence[Backend]) -> str:
    return " and ".join(one.name for one in storages)
