# SPDX-License-Identifier: Apache-2.0
"""A shared storage that is a directory: NFS, CephFS, a cluster file system.

Everything is read and written past the page cache (O_DIRECT): memory would go on answering for a disk that is dead, and
for one whose other readers have long been cut off. Files are opened anew for each round, so that a file that somebody
deleted or another file system mounted above it does not go unnoticed.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

from vmhad.agent.record import BLOCK
from vmhad.agent.storage import Unfit

MARKER = ".vmhad-storage"
RECORDS = ".vmhad"
# File systems that live in one host's memory: whatever their name, nobody shares them.
MEMORY = ("ramfs", "tmpfs")


class Directory:
    """storage.Store over a directory. buffered: an operator's word that its file system does without O_DIRECT."""

    def __init__(self, path: str, buffered: bool = False) -> None:
        self._path = Path(path)
        self._records = self._path / RECORDS
        self._direct = 0 if buffered else os.O_DIRECT
        self._buffered = buffered
        # Memory of a map begins at a page, as O_DIRECT wants it.
        self._block = mmap.mmap(-1, BLOCK)

    def marker(self) -> str:
        if not self._buffered and (kind := filesystem(self._path)) in MEMORY:
            raise Unfit(f"{self._path} is on {kind}, which no other host can read")
        return (self._read(self._path / MARKER) or b"").decode(errors="replace").strip()

    def write(self, host: str, block: bytes) -> None:
        self._records.mkdir(mode=0o700, exist_ok=True)
        file = self._open(self._records / host, os.O_WRONLY | os.O_CREAT | os.O_DSYNC)
        try:
            self._block[:] = block
            if os.pwritev(file, [self._block], 0) != BLOCK:
                raise OSError(0, "only a part was written", str(self._records / host))
        finally:
            os.close(file)

    def read(self, host: str) -> bytes | None:
        return self._read(self._records / host)

    def _read(self, path: Path) -> bytes | None:
        try:
            file = self._open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return self._block[: os.preadv(file, [self._block], 0)]
        finally:
            os.close(file)

    def _open(self, path: Path, flags: int) -> int:
        try:
            return os.open(path, flags | self._direct | os.O_CLOEXEC, 0o600)
        except OSError as error:
            # What Linux says where O_DIRECT is not known.
            if self._direct and error.errno == errno.EINVAL:
                raise Unfit(f"{self._path} is on a file system without O_DIRECT") from None
            raise


def filesystem(path: Path) -> str:
    """The kind of file system that the path is on, as mountinfo has it; '' if that cannot be told."""
    device = os.stat(path).st_dev
    sought = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, kind = line.partition(" - ")
        if place.split()[2] == sought:
            return kind.split()[0]
    return ""
