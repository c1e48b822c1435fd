# SPDX-License-Identifier: Apache-2.0
"""The rows of the simulated Nova's tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from vmhad.kernel.cloud import ServerState
from vmhad.kernel.topology import OF_CINDER, OF_NOVA


@dataclass
class ServiceRow:
    """A row of the services table. last_seen: when its last heartbeat landed. heard_from: when the unbroken run of
    heartbeats began that it was the last of, and silent_s how long it was not heard before. barred_until: Placement
    keeps the host from the scheduler till then."""

    host: str
    last_seen: float
    updated_at: str
    heard_from: float = 0.0
    forced_down: bool = False
    enabled: bool = True
    disabled_reason: str = ""
    barred_until: float = 0.0
    silent_s: float = 0.0


@dataclass
class ServerRow:
    """A row of the instances table. refused: what the API answers to its evacuation. needs: a trait of its host.

    backend: the storage of its first disk; also: those of its further volumes. unlisted: nobody says where they are;
    unplaced: Nova lists its volume, and Cinder does not say where that is.
    """

    id: str
    name: str
    host: str
    state: ServerState = ServerState.ACTIVE
    task_state: str = ""
    locked: bool = False
    local_disk: bool = False
    vcpus: int = 1
    ram_mib: int = 1024
    zone_pinned: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    fault: str = ""
    refused: str = ""
    needs: str = ""
    backend: str = "ceph"
    also: tuple[str, ...] = ()
    unlisted: bool = False
    unplaced: bool = False
    stopped_at: float = -inf

    @property
    def disks(self) -> tuple[str, ...]:
        """Where they are kept, as the drivers tell it."""
        if self.unlisted or self.unplaced:
            return (f"volume/{self.id}",) if self.unplaced else ()
        first = OF_NOVA if self.local_disk else f"{OF_CINDER}{self.backend}"
        return (first, *(f"{OF_CINDER}{one}" for one in self.also))


@dataclass
class MigrationRow:
    """A row of the migrations table. taken_at: when its target read the request last, 0.0 if none did."""

    number: int
    server: str
    source: str
    target: str
    created_at: str
    kind: str = "evacuation"
    status: str = "accepted"
    updated_at: str = ""
    taken_at: float = 0.0


@dataclass
class GroupRow:
    id: str
    policy: str
    members: list[str] = field(default_factory=list)
    max_per_host: int = 1
