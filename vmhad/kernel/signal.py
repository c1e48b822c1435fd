# SPDX-License-Identifier: Apache-2.0
"""One thing seen: who saw what, of whom, when.

A reading is three-valued: UNKNOWN says «this eye cannot tell» and is never turned into the bad or the good value.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

# For so long an OFF that is read again wakes its engine, which waits for it to be read twice, or for longer. A host
# that is off for good wakes nobody.
OFF_IS_NEWS_S = 30.0


class Channel(StrEnum):
    """Which eye. AGENT: its own beats. STORAGE: its record on a shared storage, read by its peers. MANAGEMENT,
    STORAGE_PLANE, TENANT: what its peers see of its kernel there. COMPUTE, LIBVIRTD, DISKS, HARDWARE: its agent's
    word of its nova-compute, its libvirtd, the shared storages that it reaches, and what its hardware complains of.
    DUMP: what its peers hear of its crash kernel. SELF_FENCE: DOWN where its record stood still for so long that its
    watchdog has reset it, by its own promise."""

    NOVA = "nova"
    POWER = "power"
    AGENT = "agent"
    STORAGE = "storage"
    MANAGEMENT = "management plane"
    STORAGE_PLANE = "storage plane"
    TENANT = "tenant plane"
    COMPUTE = "nova-compute"
    LIBVIRTD = "libvirtd"
    DISKS = "disks"
    HARDWARE = "hardware"
    DUMP = "dump"
    SELF_FENCE = "self-fencing"


class Reading(StrEnum):
    """What an eye saw. POWER answers ON or OFF, every other eye UP or DOWN; each may answer UNKNOWN."""

    UP = "up"
    DOWN = "down"
    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class Access(StrEnum):
    """What a shared storage grants a host. CUT: no write of any client that the host had can land any more."""

    OPEN = "open"
    CUT = "cut"
    UNKNOWN = "unknown"


class Signal(NamedTuple):
    """One reading of one host through one channel. A tuple, as a thousand of them are made every second.

    at: when the reading *began*, so that nothing older can pass for newer.
    life: the reading itself is a sign of life that cannot be older than the reading before it (nova's heartbeat
    counter moved). UP alone is no life: Nova says «up» for 60 s after a host died.
    """

    host: str
    channel: Channel
    reading: Reading
    at: float
    detail: str = ""
    life: bool = False
