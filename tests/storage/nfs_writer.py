# SPDX-License-Identifier: Apache-2.0
"""A client of NFS that writes as fast as it can, over libnfs, and keeps when each write was accepted.

Runs as a process of its own, in the network of the host that it stands for:
nfs_writer.py VERSION SERVER EXPORT FILE DEPTH TALLY. DEPTH writes are always on their way. What is refused is asked for
again; after a while the export is mounted anew, as a client would that wants its disk back. Every write puts the next
number into a place of its own, so that the file tells what has landed whoever was told.
"""

from __future__ import annotations

import ctypes
import itertools
import select
import struct
import sys
import time
from collections.abc import Callable, Iterator

from tally import Tally

BLOCK = 4096
PLACES = 256
REFUSED_BEFORE_REMOUNT = 1000
Callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


def library() -> ctypes.CDLL:
    lib = ctypes.CDLL("libnfs.so.13")
    pointer, size, text = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p
    lib.nfs_init_context.restype = pointer
    lib.nfs_get_error.restype, lib.nfs_get_error.argtypes = text, [pointer]
    lib.nfs_destroy_context.argtypes = [pointer]
    lib.nfs_set_version.argtypes = [pointer, ctypes.c_int]
    lib.nfs_set_timeout.argtypes = [pointer, ctypes.c_int]
    lib.nfs_set_autoreconnect.argtypes = [pointer, ctypes.c_int]
    lib.nfs_mount.argtypes = [pointer, text, text]
    lib.nfs_creat.argtypes = [pointer, text, ctypes.c_int, ctypes.POINTER(pointer)]
    lib.nfs_pwrite_async.argtypes = [pointer, pointer, size, size, text, Callback, pointer]
    lib.nfs_get_fd.argtypes = lib.nfs_which_events.argtypes = [pointer]
    lib.nfs_service.argtypes = [pointer, ctypes.c_int]
    return lib


class Mount:
    """Raises OSError where the server does not let us in."""

    def __init__(self, lib: ctypes.CDLL, version: int, server: str, export: str, name: str) -> None:
        self._lib = lib
        self._nfs = ctypes.c_void_p(lib.nfs_init_context())
        self._file = ctypes.c_void_p()
        lib.nfs_set_version(self._nfs, version)
        lib.nfs_set_timeout(self._nfs, 2000)
        lib.nfs_set_autoreconnect(self._nfs, 0)
        self._check(lib.nfs_mount(self._nfs, server.encode(), export.encode()))
        self._check(lib.nfs_creat(self._nfs, name.encode(), 0o644, ctypes.byref(self._file)))

    def write(self, place: int, block: bytes, told: Callback) -> None:
        self._check(self._lib.nfs_pwrite_async(self._nfs, self._file, place * BLOCK, BLOCK, block, told, None))

    def serve(self) -> None:
        events = self._lib.nfs_which_events(self._nfs)
        poll = select.poll()
        poll.register(self._lib.nfs_get_fd(self._nfs), events)
        for _, seen in poll.poll(1000):
            self._check(self._lib.nfs_service(self._nfs, seen))

    def close(self) -> None:
        self._lib.nfs_destroy_context(self._nfs)

    def _check(self, code: int) -> None:
        if code:
            raise OSError(code, str(self._lib.nfs_get_error(self._nfs)))


def write_on(mount: Mount, numbers: Iterator[int], depth: int, tally: Tally) -> None:
    """Writes until it was refused for a while, or the connection broke."""
    refused = 0
    flying = 0

    def told(code: int, *_: object) -> None:
        nonlocal refused, flying
        flying -= 1
        if code == BLOCK:
            refused = 0
            tally.accepted(time.monotonic())
        else:
            refused += 1
            tally.refused()

    callback: Callable[..., None] = Callback(told)
    blocks: dict[int, bytes] = {}
    while refused < REFUSED_BEFORE_REMOUNT:
        while flying < depth:
            number = next(numbers)
            blocks[number % PLACES] = struct.pack("<Q", number).ljust(BLOCK, b"v")
            mount.write(number % PLACES, blocks[number % PLACES], callback)
            flying += 1
        mount.serve()


def main() -> None:
    version, server, export, name, depth, path = sys.argv[1:]
    lib, tally, numbers = library(), Tally(path), itertools.count(1)
    while True:
        mount = None
        try:
            mount = Mount(lib, int(version), server, export, name)
            write_on(mount, numbers, int(depth), tally)
        except OSError:
            time.sleep(0.05)
        tally.mounted_anew()
        if mount is not None:
            mount.close()


if __name__ == "__main__":
    main()
