# SPDX-License-Identifier: Apache-2.0
"""A file that takes what /dev/watchdog takes: `python fuse_watchdog.py FILE [SECONDS]`, by root.

The machines that run the tests have no watchdog and cannot load one. So the kernel is asked through FUSE, whose one
file knows the two ioctls. Each thing done to it is a line on stdout. SECONDS: the only time it knows; 0: it takes any.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

INIT, GETATTR, OPEN, WRITE, STATFS, RELEASE, FLUSH, IOCTL, DESTROY = 26, 3, 14, 16, 17, 18, 25, 39, 38
SETTIMEOUT, GETTIMEOUT = 0xC0045706, 0x80045707
DIRECT_IO = 1
HEAD = struct.Struct("=IIQQIIII")


def say(*words: object) -> None:
    print(*words, flush=True)


class Server:
    def __init__(self, file: int, seconds: int) -> None:
        self.file = file
        self.only = seconds
        self.seconds = seconds or 60

    def serve(self) -> None:
        while True:
            try:
                asked = os.read(self.file, 1 << 17)
            except OSError:
                return
            _, what, unique, *_ = HEAD.unpack_from(asked)
            if what == DESTROY:
                return
            error, answer = self.answer(what, asked[HEAD.size :])
            os.write(self.file, struct.pack("=IiQ", 16 + len(answer), -error, unique) + answer)

    def answer(self, what: int, body: bytes) -> tuple[int, bytes]:
        if what == INIT:
            return 0, struct.pack("=IIIIHHII", 7, 31, 0, 0, 8, 8, 4096, 1) + bytes(36)
        if what == GETATTR:
            attributes = struct.pack("=6Q3I", 1, 0, 0, 0, 0, 0, 0, 0, 0)
            return 0, struct.pack("=QII", 0, 0, 0) + attributes + struct.pack("=7I", 0o100600, 1, 0, 0, 0, 512, 0)
        if what == OPEN:
            say("open")
            return 0, struct.pack("=QII", 1, DIRECT_IO, 0)
        if what == WRITE:
            (size,) = struct.unpack_from("=I", body, 16)
            say("disarm" if b"V" in body[40 : 40 + size] else "feed")
            return 0, struct.pack("=II", size, 0)
        if what == IOCTL:
            return self.ioctl(*struct.unpack_from("=I", body, 12), body[32:])
        if what == RELEASE:
            say("close")
        return (0, b"") if what in (RELEASE, FLUSH) else (errno.ENOSYS, b"")

    def ioctl(self, command: int, argument: bytes) -> tuple[int, bytes]:
        if command == SETTIMEOUT:
            self.seconds = self.only or struct.unpack("i", argument[:4])[0]
            say("timeout", self.seconds)
        elif command != GETTIMEOUT:
            return errno.ENOTTY, b""
        return 0, struct.pack("=iIII", 0, 0, 0, 0) + struct.pack("i", self.seconds)


def main() -> None:
    target, seconds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    file = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={file},rootmode=100600,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"watchdog", target.encode(), b"fuse", ctypes.c_ulong(0), options):
        sys.exit(os.strerror(ctypes.get_errno()))
    say("mounted")
    Server(file, seconds).serve()


if __name__ == "__main__":
    main()
