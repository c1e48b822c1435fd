# SPDX-License-Identifier: Apache-2.0
"""A cloud as a topology file tells it, as frozen values: what a rehearsal is built from, and what an export writes.

Rule kept: nothing here knows where it was read; the simulator may take these values without seeing any configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vmhad.kernel.cloud import Group, Server
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Segment


@dataclass(frozen=True, slots=True)
class HostInventory:
    """What a host has in all, allocation ratios and reserved amounts applied; None where nobody said."""

    vcpus: int | None = None
    ram_mib: int | None = None
    disk_gib: int | None = None
    zone: str = ""
    aggregates: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Topology:
    """policy: what holds for all segments; policies: the same with each segment's own changes, by segment name.

    inventories: by host name, for the hosts that have one. needs: server id -> the traits that its host must have.
    """

    segments: tuple[Segment, ...]
    policy: Policy
    policies: Mapping[str, Policy]
    inventories: Mapping[str, HostInventory] = field(default_factory=dict)
    servers: tuple[Server, ...] = ()
    groups: tuple[Group, ...] = ()
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
