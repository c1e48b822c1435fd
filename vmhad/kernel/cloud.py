# SPDX-License-Identifier: Apache-2.0
"""The cloud as the core sees it: compute services, servers, migrations, groups, room. Read from Nova, never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vmhad.kernel.vm_policy import NOTHING_SAID, VmSettings


class ServerState(StrEnum):
    """Nova's vm_state, in lower case, as the API's OS-EXT-STS:vm_state gives it; OTHER is any state not named here."""

    ACTIVE = "active"
    STOPPED = "stopped"
    ERROR = "error"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    RESCUED = "rescued"
    RESIZED = "resized"
    BUILDING = "building"
    SHELVED = "shelved"
    SHELVED_OFFLOADED = "shelved_offloaded"
    OTHER = "other"


# How every reason begins with which we disable a compute service; a service disabled with another one is left so.
OUR_REASON = "vmhad: fenced"
DRAIN_REASON = "vmhad: drained"
OPTED_OUT = "its owner wants it left alone"


@dataclass(frozen=True, slots=True)
class ComputeService:
    """A nova-compute as GET /os-services shows it. updated_at: Nova's own text, only compared for change."""

    host: str
    up: bool
    enabled: bool
    disabled_reason: str
    forced_down: bool
    updated_at: str


@dataclass(frozen=True, slots=True)
class Server:
    """One VM. host: the compute service host Nova has it on ('' if none).

    volume_backed: it has no image, so its root disk is a volume. disks: where each of its disks is kept, as Nova and
    Cinder say: «nova», «cinder/BACKEND», or «volume/ID» where Cinder was not asked; () where nobody knows. task_state
    '' if none. vcpus, ram_mib, disk_gib from its flavor.
    updated_at: Nova's own text, only compared for change; two servers that differ in it alone are the same.
    project, image: ids, flavor: its name; image is '' where it is volume_backed. settings: what the policies of VMs say
    of it; not Nova's.
    """

    id: str
    name: str
    host: str
    state: ServerState
    task_state: str = ""
    locked: bool = False
    volume_backed: bool = False
    vcpus: int = 1
    ram_mib: int = 0
    disk_gib: int = 0
    zone: str = ""
    zone_pinned: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""
    updated_at: str = field(default="", compare=False)
    disks: tuple[str, ...] = ()
    project: str = ""
    flavor: str = ""
    image: str = ""
    tags: tuple[str, ...] = ()
    settings: VmSettings = NOTHING_SAID

    def opted_out(self, key: str) -> bool:
        """Its owner wants it left alone: its metadata says false under that key."""
        return self.metadata.get(key, "").lower() == "false"

    def why_left(self, key: str) -> str:
        """'' or why it is not protected: by its owner's word, which goes first, or by an operator's policy."""
        return OPTED_OUT if self.opted_out(key) else self.settings.why_left


@dataclass(frozen=True, slots=True)
class Action:
    """A row of a server's instance actions. kind: Nova's own word (stop, start, reboot, ...). by_user: somebody asked
    for it, whoever that was; else Nova did it by itself."""

    id: str
    kind: str
    by_user: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How one server stands, read at one time. server: None if it does not exist any more. actions: what was done to
    it, newest first, read after the server: who acts in between has left a task or an action."""

    id: str
    at: float
    server: Server | None
    actions: tuple[Action, ...] = ()


# Nova's words for the end of a migration. ARRIVED: carried out, and then cleaned up at the source; BROKEN: «failed» was
# on its target, «error» never got there.
# The kinds of a migration that are asked for here.
EVACUATION, LIVE = "evacuation", "live-migration"
ARRIVED = frozenset({"done", "completed"})
BROKEN = frozenset({"error", "failed", "cancelled"})
OVER = ARRIVED | BROKEN | {"confirmed", "reverted"}


@dataclass(frozen=True, slots=True)
class Migration:
    """A row of os-migrations. kind: evacuation, live-migration, migration, resize. target '' until one is chosen.

    created_at, updated_at: Nova's own ISO texts, ordered by Nova's clock only among themselves.
    """

    id: str
    server: str
    kind: str
    status: str
    source: str
    target: str
    created_at: str
    updated_at: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """A server group. policy: affinity, anti-affinity, soft-affinity or soft-anti-affinity. max_per_host: the
    anti-affinity rule max_server_per_host, 1 unless set."""

    id: str
    policy: str
    members: tuple[str, ...]
    max_per_host: int = 1
    name: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """What Placement has left on a host, with allocation ratios and reserved amounts applied."""

    host: str
    vcpus: int
    ram_mib: int
    disk_gib: int


@dataclass(frozen=True, slots=True)
class Fallen:
    """The servers of a living host that Nova itself switched off, because it found their guests gone."""

    host: str
    servers: tuple[Server, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that planning the recovery of one host needs, read at one time. at: when the read began.

    servers: those Nova has on the host. migrations: unfinished, evacuation and live-migration ones that name the host
    as source or target, newest first. member_hosts: server id -> host for every member of the groups that a server of
    this host is in. services, rooms: of the hosts that could receive. fallen: those of servers that Nova itself
    switched off, asked only where the host was back for a while, and of those that had failed alone.
    """

    host: str
    at: float
    servers: tuple[Server, ...]
    migrations: tuple[Migration, ...]
    groups: tuple[Group, ...]
    member_hosts: Mapping[str, str]
    services: tuple[ComputeService, ...]
    rooms: tuple[Room, ...]
    zones: Mapping[str, str] = field(default_factory=dict)
    fallen: frozenset[str] = frozenset()
