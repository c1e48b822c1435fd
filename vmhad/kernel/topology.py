# SPDX-License-Identifier: Apache-2.0
"""What is where: segments of hosts that take over for each other, and the domains that fail together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vmhad.kernel.policy import CutStorage


@dataclass(frozen=True, slots=True)
class Host:
    """A compute host. name is Nova's service host. domains: kind -> name, e.g. {"rack": "r1", "power": "feed-a"}.
    planes: plane (kernel.beat.Plane) -> the address that its peers find it at; empty where no agent watches.
    cut_storage: for this host alone, instead of what its segment's policy says; None where that holds for it, too."""

    name: str
    domains: Mapping[str, str] = field(default_factory=dict)
    planes: Mapping[str, str] = field(default_factory=dict)
    cut_storage: CutStorage | None = None


# How a storage names what it holds: the disks that the computes keep themselves, every volume, or the volumes of one
# backend of Cinder.
OF_NOVA, VOLUMES, OF_CINDER = "nova", "volumes", "cinder/"
# A volume that Cinder was not asked for, or did not say the place of.
UNPLACED = "volume/"


@dataclass(frozen=True, slots=True)
class Backend:
    """A shared storage that can cut a host off. holds: which disks of VMs lie there, in the words above. clients: the
    hosts that it can cut off. reached_by: the hosts that are said to reach it; empty where nobody says."""

    name: str
    holds: frozenset[str]
    clients: frozenset[str]
    reached_by: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Segment:
    """The hosts that take over for each other; the unit of ownership. backends: all storages, each with those of its
    clients that are among them."""

    name: str
    hosts: tuple[Host, ...]
    backends: tuple[Backend, ...] = ()

    def host(self, name: str) -> Host:
        """Raises KeyError if the segment has no such host."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)

    def backends_of(self, host: str) -> tuple[Backend, ...]:
        """Those that can cut it off, by name."""
        return tuple(sorted((one for one in self.backends if host in one.clients), key=lambda one: one.name))

    def backend_of(self, disk: str, host: str) -> Backend | None:
        """Of those that can cut the host off the one that holds this very kind of disk, else the one that holds all
        volumes; None where nobody knows. That holds none of a backend of Cinder that another storage names, though that
        may not know this host; and where some storage names any, a volume whose place is not known may be there, or may
        not."""
        mine = self.backends_of(host)
        held = {kind for one in self.backends for kind in one.holds}
        named = next((one for one in mine if disk in one.holds), None)
        tells_apart = any(one.startswith(OF_CINDER) for one in held)
        if named is None and disk != OF_NOVA and disk not in held and (disk.startswith(OF_CINDER) or not tells_apart):
            return next((one for one in mine if VOLUMES in one.holds), None)
        return named

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(host.name for host in self.hosts)
