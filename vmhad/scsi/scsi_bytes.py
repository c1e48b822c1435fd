# SPDX-License-Identifier: Apache-2.0
"""The bytes of SCSI that persistent reservations are made of (SPC-4): what is asked, and what an answer says.

The rule kept: an answer that is shorter than it says, or of a shape that is not known, is Garbled and never «no keys».
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

GOOD = 0x00
CHECK_CONDITION = 0x02
BUSY = 0x08
RESERVATION_CONFLICT = 0x18
TASK_SET_FULL = 0x28

ILLEGAL_REQUEST = 0x05
UNIT_ATTENTION = 0x06

KEY_MAX = (1 << 64) - 1
PARAMETERS = struct.Struct(">QQIBBH")
HEADER = struct.Struct(">II")
# As many as fit into an answer to READ KEYS whose length has 16 bits.
KEYS_MAX = (0xFFF8 - HEADER.size) // 8
READ_MAX = HEADER.size + 8 * KEYS_MAX
DISK = 0x00
INQUIRY_BYTES = 36


class Garbled(Exception):
    """An answer that cannot be one."""


class Out(IntEnum):
    """Service actions of PERSISTENT RESERVE OUT."""

    REGISTER = 0x00
    RESERVE = 0x01
    PREEMPT = 0x04
    PREEMPT_AND_ABORT = 0x05
    REGISTER_AND_IGNORE = 0x06


class In(IntEnum):
    """Service actions of PERSISTENT RESERVE IN."""

    READ_KEYS = 0x00
    READ_RESERVATION = 0x01
    REPORT_CAPABILITIES = 0x02


class Kind(IntEnum):
    """The types of reservations that keep out whoever is not registered, and nobody else."""

    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 0x05
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 0x06
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 0x07
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 0x08


KEEP_OUT = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class Keys:
    """generation: moves with every change of the registrations. A key stands as often as nexuses are registered."""

    generation: int
    keys: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reservation:
    """kind 0: there is none. holder: the key of the nexus that holds it; 0 where all registrants do."""

    generation: int
    holder: int = 0
    kind: int = 0

    @property
    def keeps_out(self) -> bool:
        return self.kind in KEEP_OUT


def inquiry() -> bytes:
    return bytes((0x12, 0, 0, 0, INQUIRY_BYTES, 0))


def is_disk(answer: bytes) -> bool:
    """False also for a LUN that is not there, as some targets answer for it by another one."""
    return answer[0] == DISK


def reserve_in(action: In, allocated: int) -> bytes:
    return struct.pack(">BB5xHx", 0x5E, action, allocated)


def reserve_out(action: Out, kind: int = 0) -> bytes:
    """Of the whole logical unit: the scope's bits are zero."""
    return struct.pack(">BBB2xIx", 0x5F, action, kind, PARAMETERS.size)


def parameters(key: int, action_key: int, persists: bool = False) -> bytes:
    """key: what this nexus is registered with. action_key: the new one, or the one to be preempted. persists: all that
    is registered and reserved outlives a power cut of the target; whoever registers without it takes that from all."""
    return PARAMETERS.pack(key, action_key, 0, int(persists), 0, 0)


def keys_of(answer: bytes) -> Keys:
    generation, length = _opened(answer)
    if length % 8:
        raise Garbled(f"READ KEYS says {length} bytes, which is no number of keys")
    return Keys(generation, struct.unpack_from(f">{length // 8}Q", answer, HEADER.size))


def reservation_of(answer: bytes) -> Reservation:
    generation, length = _opened(answer)
    if length == 0:
        return Reservation(generation)
    if length < 16:
        raise Garbled(f"READ RESERVATION says {length} bytes")
    holder, scope_and_kind = struct.unpack_from(">Q5xB", answer, HEADER.size)
    if scope_and_kind >> 4:
        raise Garbled(f"a reservation of scope {scope_and_kind >> 4}")
    return Reservation(generation, holder, scope_and_kind & 0x0F)


def can_persist(answer: bytes) -> bool:
    """Through a power cut of the target."""
    if len(answer) < 8 or answer[:2] != b"\0\x08":
        raise Garbled("REPORT CAPABILITIES is not as long as it is")
    return bool(answer[2] & 0x01)


def _opened(answer: bytes) -> tuple[int, int]:
    if len(answer) < HEADER.size:
        raise Garbled(f"an answer of {len(answer)} bytes")
    generation, length = HEADER.unpack_from(answer)
    if length > len(answer) - HEADER.size:
        raise Garbled(f"an answer of {len(answer)} bytes that says it has {length} more than its header")
    return generation, length
