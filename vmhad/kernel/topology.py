# SPDX-License-Identifier: Apache-2.0
"""What is where: segments of hosts that take over for each other, and the domains that fail together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Host:
    """A compute host. name is Nova's service host. domains: kind -> name, e.g. {"rack": "r1", "power": "feed-a"}.
    planes: plane (kernel.beat.Plane) -> the address that its peers find it at; empty where no agent watches."""

    name: str
    domains: Mapping[str, str] = field(default_factory=dict)
    planes: Mapping[str, str] = field(default_factory=dict)


# How a storage names what it holds: the disks that the computes keep themselves, every volume, or the volumes of one
# backend of Cinder.
OF_NOVA, VOLUMES, OF_CINDER = "nova", "volumes", "cinder/"
# A volume that Cinder was not asked for, or did not say the place of.
UNPLACED = "volume/"


@dataclass(frozen=True, slots=True)
class Backend:
    """A shared storage that can cut a host off. holds: which disks of VMs lie there, in the words above. clients: the
    hosts that it can cut off."""

    name: str
    holds: frozenset[str]
    clients: frozenset[str]


def backend_of(disk: str, backends: Iterable[Backend]) -> Backend | None:
    """The one that holds this very kind of disk, else the one that holds all volumes; None where nobody knows. Where
    some storage holds a backend of Cinder, a volume whose place is not known may be there, or may not."""
    known = list(backends)
    named = next((one for one in known if disk in one.holds), None)
    tells_apart = any(held.startswith(OF_CINDER) for one in known for held in one.holds)
    if named is None and disk != OF_NOVA and (disk.startswith(OF_CINDER) or not tells_apart):
        return next((one for one in known if VOLUMES in one.holds), None)
    return named


@dataclass(frozen=True, slots=True)
class Segment:
    """The hosts that take over for each other; the unit of ownership. backends: the storages that any of them uses."""

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

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(host.name for host in self.hosts)
