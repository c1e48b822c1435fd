# SPDX-License-Identifier: Apache-2.0
"""What is where: segments of hosts that take over for each other, and the domains that fail together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Host:
    """A compute host. name is Nova's service host. domains: kind -> name, e.g. {"rack": "r1", "power": "feed-a"}.
    planes: plane (kernel.beat.Plane) -> the address that its peers find it at; empty where no agent watches."""

    name: str
    domains: Mapping[str, str] = field(default_factory=dict)
    planes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Segment:
    """The hosts that take over for each other; the unit of ownership."""

    name: str
    hosts: tuple[Host, ...]

    def host(self, name: str) -> Host:
        """Raises KeyError if the segment has no such host."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(host.name for host in self.hosts)
