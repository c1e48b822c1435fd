# SPDX-License-Identifier: Apache-2.0
"""What the agent of a compute host says once a second: that it lives, and what it sees.

A beat is a level, never an edge: each one says all that its agent knows now, and only the newest of a host counts. Its
times are the agent's own boot clock, so that no two clocks have to agree and no step of a clock makes a host look dead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vmhad.kernel.signal import Reading


class Plane(StrEnum):
    """A network that hosts see each other on."""

    MANAGEMENT = "management"
    STORAGE = "storage"
    TENANT = "tenant"


class DomainState(StrEnum):
    """What libvirt says of a guest. CRASHED: its process is gone or broken without anybody having asked for it, it
    panicked, or its own watchdog stopped it. FROZEN: paused by an I/O error, or running on a disk that gives errors, as
    Nova lets it. UNRESPONSIVE: its guest agent answered since it was started and does not any more; every orderly
    shutdown looks so for a while."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUT_OFF = "shut off"
    CRASHED = "crashed"
    FROZEN = "frozen"
    UNRESPONSIVE = "unresponsive"
    OTHER = "other"


# How the detail of a guest begins that is FROZEN because it was paused, and may be resumed.
DISK_PAUSED = "paused by an I/O error"


@dataclass(frozen=True, slots=True)
class Domain:
    """One guest. detail: libvirt's own reason, or the error of its disk. since_s: the agent's boot clock when this
    state was first seen; inf is never sent. agent: whether its guest agent has its port open; None where it was never
    seen to since the guest was started, or nobody looks."""

    state: DomainState
    detail: str = ""
    since_s: float = 0.0
    agent: bool | None = None


class UnitState(StrEnum):
    """What systemd says of a service. FAILED: it ended without having been asked to, and systemd gave it up. WAITS: it
    ended so, and systemd starts it again after a pause. STOPPED: it ended clean, as when somebody stops it, or was
    never started. CHANGING: it is being started or stopped, or is about to be."""

    RUNS = "runs"
    WAITS = "waits to be started again"
    FAILED = "failed"
    STOPPED = "stopped"
    CHANGING = "changing"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Unit:
    """One service as systemd has it. detail: its own word of how it ended ("exit-code", "oom-kill"). kept_off: '' or
    systemd's word of an operator's wish that it does not run ("masked", "disabled"). invocation: drawn by systemd for
    each start, '' if there was none. since_s: the agent's boot clock when it was first seen so."""

    state: UnitState
    detail: str = ""
    kept_off: str = ""
    invocation: str = ""
    since_s: float = 0.0

    @property
    def is_wanted_off(self) -> bool:
        """By somebody, as far as systemd can tell: it ended clean, or is kept from running."""
        return self.state is UnitState.STOPPED or (self.state is not UnitState.RUNS and bool(self.kept_off))


@dataclass(frozen=True, slots=True)
class StorageBeat:
    """What the sender read of a peer's record on one shared storage. boot, count: as the record says. still_s: for how
    long, by the sender's own clock, it has not moved: from when the sender first read it until it last did.

    self_fence_s: 0, or the peer's own word that a watchdog will have reset it once its record was still for so long.
    """

    boot: str
    count: int
    still_s: float
    self_fence_s: float = 0.0


# So long after the newest message of its crash kernel a host is taken for writing its dump: fence_kdump_send sends one
# every 10 s by default, and one may be lost.
DUMP_HEARD_S = 25.0
# And so long after it, written or not, the host is known to have panicked, if nothing of it lives since.
PANIC_KNOWN_S = 60.0


@dataclass(frozen=True, slots=True)
class Dump:
    """What the sender heard of a peer that writes a dump of its panicked kernel. first_s, last_s: how long ago, by the
    sender's own clock, the first and the newest message of a row without a gap of DUMP_HEARD_S came."""

    first_s: float
    last_s: float


@dataclass(frozen=True, slots=True)
class PeerView:
    """What the sender sees of one peer. planes: UP where the peer's own kernel answered, DOWN where it did not though
    others did or nobody was to be expected to, UNKNOWN where the sender cannot tell (its own link is down, say).
    storage: storage -> the peer's record there; a storage that the sender cannot read itself is left out. dump: None
    where the peer's crash kernel was not heard lately."""

    planes: Mapping[Plane, Reading] = field(default_factory=dict)
    storage: Mapping[str, StorageBeat] = field(default_factory=dict)
    dump: Dump | None = None


@dataclass(frozen=True, slots=True)
class Beat:
    """One beat. boot: the host's boot id. run: drawn when the agent started. count: grows by one with every beat of a
    run. uptime_s: CLOCK_BOOTTIME when it was made. sent_at: the host's Unix time, for the replay window only.

    leaving: the agent was told to stop, so its silence will mean nothing. services: systemd unit or service -> UP, DOWN
    or UNKNOWN ("nova-compute", "libvirtd"). storages: shared storage -> UP where its marker was read lately, DOWN where
    it was not. peers: host -> what is seen of it. domains: server id -> guest; None: libvirt cannot be asked. A guest
    that Nova reboots hard is not among them for a moment: it is defined anew. hardware: complaints in words, '' never
    among them. units: service -> how systemd has it; none where no systemd answers.
    """

    host: str
    boot: str
    run: str
    count: int
    uptime_s: float
    sent_at: float
    leaving: bool = False
    services: Mapping[str, Reading] = field(default_factory=dict)
    storages: Mapping[str, Reading] = field(default_factory=dict)
    peers: Mapping[str, PeerView] = field(default_factory=dict)
    domains: Mapping[str, Domain] | None = None
    hardware: tuple[str, ...] = ()
    units: Mapping[str, Unit] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeardBeat:
    """A beat as an engine got it, its signature proven. at: when it was made, by the engine's clock, as late as can be
    excluded that it was made later: a beat that waited in the broker is as old as it is.

    refused: '' or why it says nothing of its host's life (its clock is outside the replay window); such a beat neither
    is life nor lets its host's silence count.
    """

    beat: Beat
    at: float
    refused: str = ""
