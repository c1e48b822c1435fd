# SPDX-License-Identifier: Apache-2.0
"""A client of NFSv3 as a process of its own, over libnfs, for the network of the host that it stands for.

`nfs_client SERVER EXPORT FILE` opens, says «open», and for each line that it reads writes once and says ok or no.
`nfs_client SERVER EXPORT FILE STAMPS IN_FLIGHT` writes as fast as it can, so many writes on their way at a time, and
stamps each that is accepted. What is refused it asks for again; after a while it mounts anew, as a client would that
wants its disk back. Each write puts the next number into a place of its own: the file tells what has landed.
"""

from __future__ import annotations

import ctypes
import itertools
import select
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.storage.stamps import Stamps

BLOCK = 4096
PLACES = 256
LIMIT_MS = 2000
REFUSED_BEFORE_REMOUNT = 1000
Told = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


def library() -> ctypes.CDLL:
    lib = ctypes.CDLL("libnfs.so.13")
    pointer, size, text = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p
    lib.nfs_init_context.restype = pointer
    lib.nfs_get_error.restype, lib.nfs_get_error.argtypes = text, [pointer]
    lib.nfs_destroy_context.argtypes = [pointer]
    lib.nfs_set_version.argtypes = lib.nfs_set_timeout.argtypes = [pointer, ctypes.c_int]
    lib.nfs_set_autoreconnect.argtypes = [pointer, ctypes.c_int]
    lib.nfs_mount.argtypes = [pointer, text, text]
    lib.nfs_creat.argtypes = [pointer, text, ctypes.c_int, ctypes.POINTER(pointer)]
    lib.nfs_pwrite_async.argtypes = [pointer, pointer, size, size, text, Told, pointer]
    lib.nfs_get_fd.argtypes = lib.nfs_which_events.argtypes = [pointer]
    lib.nfs_service.argtypes = [pointer, ctypes.c_int]
    return lib


class Mount:
    """One file that is open for writing. Every call raises OSError where the server does not let us."""

    def __init__(self, lib: ctypes.CDLL, server: str, export: str, name: str) -> None:
        self._lib = lib
        self._nfs = ctypes.c_void_p(lib.nfs_init_context())
        self._file = ctypes.c_void_p()
        lib.nfs_set_version(self._nfs, 3)
        lib.nfs_set_timeout(self._nfs, LIMIT_MS)
        lib.nfs_set_autoreconnect(self._nfs, 0)
        self._check(lib.nfs_mount(self._nfs, server.encode(), export.encode()))
        self._check(lib.nfs_creat(self._nfs, name.encode(), 0o644, ctypes.byref(self._file)))

    def begin(self, place: int, block: bytes, told: Callable[..., None]) -> None:
        self._check(self._lib.nfs_pwrite_async(self._nfs, self._file, place * BLOCK, BLOCK, block, told, None))

    def serve(self) -> None:
        poll = select.poll()
        poll.register(self._lib.nfs_get_fd(self._nfs), self._lib.nfs_which_events(self._nfs))
        for _, seen in poll.poll(LIMIT_MS):
            self._check(self._lib.nfs_service(self._nfs, seen))

    def close(self) -> None:
        self._lib.nfs_destroy_context(self._nfs)

    def _check(self, code: int) -> None:
        if code:
            raise OSError(code, str(self._lib.nfs_get_error(self._nfs)))


class Writes:
    """Numbered writes through one mount."""

    def __init__(self, mount: Mount, numbers: Iterator[int], stamped: Callable[[float], None]) -> None:
        self._mount = mount
        self._numbers = numbers
        self._stamped = stamped
        self._told = Told(self._answered)
        # libnfs does not copy what it has yet to send.
        self._blocks: dict[int, bytes] = {}
        self.on_their_way = 0
        self.accepted = 0
        self.refused_in_a_row = 0

    def begin(self) -> None:
        number = next(self._numbers)
        place = number % PLACES
        self._blocks[place] = struct.pack("<Q", number).ljust(BLOCK, b"v")
        self._mount.begin(place, self._blocks[place], self._told)
        self.on_their_way += 1

    def _answered(self, code: int, *_: object) -> None:
        self.on_their_way -= 1
        if code == BLOCK:
            self.accepted += 1
            self.refused_in_a_row = 0
            self._stamped(time.monotonic())
        else:
            self.refused_in_a_row += 1


def as_told(server: str, export: str, name: str) -> None:
    mount = Mount(library(), server, export, name)
    writes = Writes(mount, itertools.count(1), lambda at: None)
    print("open", flush=True)
    for _ in sys.stdin:
        before, until = writes.accepted, time.monotonic() + LIMIT_MS / 1000
        try:
            writes.begin()
            while writes.on_their_way and time.monotonic() < until:
                mount.serve()
        except OSError:
            print("no", flush=True)
            continue
        print("ok" if writes.accepted > before else "no", flush=True)


def for_ever(server: str, export: str, name: str, stamps: Stamps, in_flight: int) -> None:
    lib, numbers = library(), itertools.count(1)
    while True:
        mount = None
        try:
            mount = Mount(lib, server, export, name)
            writes = Writes(mount, numbers, stamps.add)
            while writes.refused_in_a_row < REFUSED_BEFORE_REMOUNT:
                while writes.on_their_way < in_flight:
                    writes.begin()
                mount.serve()
        except OSError:
            time.sleep(0.05)
        if mount is not None:
            mount.close()


if __name__ == "__main__":
    if len(sys.argv) > 4:
        for_ever(*sys.argv[1:4], Stamps(Path(sys.argv[4])), int(sys.argv[5]))
    else:
        as_told(*sys.argv[1:4])
