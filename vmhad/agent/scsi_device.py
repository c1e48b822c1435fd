# SPDX-License-Identifier: Apache-2.0
"""SCSI commands by a path of this host: the kernel's own nexus, by its ioctl SG_IO on the path's block device.

The kernel's ioctls for reservations (IOC_PR_REGISTER) will not do: they read no keys, and they ask for APTPL whether
the target knows it or not, which some refuse.
"""

from __future__ import annotations

import ctypes as C
import fcntl
import os

from vmhad.scsi.nexus import Answer, Broken
from vmhad.scsi.scsi_bytes import CHECK_CONDITION, GOOD

# From scsi/sg.h.
SG_IO = 0x2285
NO_DATA, TO_DEVICE, FROM_DEVICE = -1, -2, -3
SENSE_BYTES = 64
# As long as the kernel gives to its own: it resets the device of a command that takes longer, which costs the guests.
COMMAND_MS = 30_000
FIXED, DESCRIPTOR = (0x70, 0x71), (0x72, 0x73)


class _Header(C.Structure):
    _fields_ = [
        ("interface_id", C.c_int), ("direction", C.c_int), ("cdb_length", C.c_ubyte), ("sense_room", C.c_ubyte),
        ("pieces", C.c_ushort), ("data_length", C.c_uint), ("data", C.c_void_p), ("cdb", C.c_char_p),
        ("sense", C.c_void_p), ("timeout_ms", C.c_uint), ("flags", C.c_uint), ("pack_id", C.c_int),
        ("own", C.c_void_p), ("status", C.c_ubyte), ("masked", C.c_ubyte), ("message", C.c_ubyte),
        ("sense_length", C.c_ubyte), ("host_status", C.c_ushort), ("driver_status", C.c_ushort), ("left", C.c_int),
        ("duration", C.c_uint), ("info", C.c_uint),
    ]  # fmt: skip


class Device:
    """nexus.Way, open until it is closed. Raises OSError where there is no such device (any more)."""

    def __init__(self, node: str) -> None:
        # For reading: to close what was open for writing would have udev look at it anew.
        self._file = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def number(self) -> str:
        """As /sys/dev/block has it; it is no other device's while this one is open."""
        number = os.fstat(self._file).st_rdev
        return f"{os.major(number)}:{os.minor(number)}"

    def command(self, lun: int, cdb: bytes, out: bytes = b"", wanted: int = 0) -> Answer:
        """lun: the device knows."""
        data = C.create_string_buffer(out, len(out)) if out else C.create_string_buffer(wanted)
        sense = C.create_string_buffer(SENSE_BYTES)
        direction = TO_DEVICE if out else FROM_DEVICE if wanted else NO_DATA
        header = _Header(
            ord("S"), direction, len(cdb), SENSE_BYTES, 0, len(out) or wanted, C.addressof(data), cdb,
            C.addressof(sense), COMMAND_MS,
        )  # fmt: skip
        fcntl.ioctl(self._file, SG_IO, header)
        if header.host_status:
            raise Broken(f"the way to it is disturbed (host status 0x{header.host_status:02x})")
        got = data.raw[: max(0, wanted - header.left)] if header.status == GOOD else b""
        said = sense.raw[: header.sense_length] if header.status == CHECK_CONDITION else b""
        return Answer(header.status, got, sense_of(said))

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sense_of(said: bytes) -> tuple[int, int]:
    """Key and additional code, of both formats; 0 where it says none."""
    kind = said[0] & 0x7F if said else 0
    if kind in FIXED and len(said) >= 14:
        return said[2] & 0x0F, said[12] << 8 | said[13]
    if kind in DESCRIPTOR and len(said) >= 4:
        return said[1] & 0x0F, said[2] << 8 | said[3]
    return 0, 0
