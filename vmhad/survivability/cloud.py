# SPDX-License-Identifier: Apache-2.0
"""The cloud that is asked about, and what could be lost of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vmhad.kernel.cloud import ComputeService, Group, Migration, Room, Server
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Segment

HOST, SEGMENT = "host", "segment"


@dataclass(frozen=True, slots=True)
class Cloud:
    """policies: by segment name. services: the nova-computes; rooms: host -> what is left on it. A host that lacks one
    of them is not counted on. zones: host -> availability zone. traits: host -> what it has; needs: server id -> the
    traits that its host must have. migrations: those that are not over, and evacuations whose source did not clean up
    yet. aggregates: host -> those that it is in. unfenced: host -> why its power cannot be proven off. served_by:
    storage -> its one server."""

    segments: tuple[Segment, ...]
    policies: Mapping[str, Policy]
    services: tuple[ComputeService, ...]
    rooms: Mapping[str, Room]
    zones: Mapping[str, str]
    servers: tuple[Server, ...]
    groups: tuple[Group, ...] = ()
    traits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    migrations: tuple[Migration, ...] = ()
    aggregates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unfenced: Mapping[str, str] = field(default_factory=dict)
    served_by: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loss:
    """A named set of hosts that fail together. kind: host, segment, a kind of domain, or what its caller calls it."""

    kind: str
    name: str
    hosts: frozenset[str]


def single_losses(segments: Iterable[Segment]) -> tuple[Loss, ...]:
    """Every host, and every domain of every kind, by kind and name; hosts first."""
    losses = [Loss(HOST, name, frozenset({name})) for segment in segments for name in segment.names]
    domains: dict[tuple[str, str], set[str]] = {}
    for segment in segments:
        for host in segment.hosts:
            for kind, name in host.domains.items():
                domains.setdefault((kind, name), set()).add(host.name)
    found = (Loss(kind, name, frozenset(hosts)) for (kind, name), hosts in domains.items())
    return (*sorted(losses, key=lambda one: one.name), *sorted(found, key=lambda one: (one.kind, one.name)))
