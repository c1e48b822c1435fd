# SPDX-License-Identifier: Apache-2.0
"""A client of Ceph on a pretended host, a process of its own: it writes once for each line that it reads, or floods.

    ceph_client.py CONF USER POOL                       one write a line; answers "ok" or the kind of the error
    ceph_client.py CONF USER POOL STAMPS IN_FLIGHT      writes until it is ended, and stamps what was accepted

A flood goes over many objects, so over all placement groups. After an error it tries again, as a guest does, and all
the time new clients of the host try to write as well, as a guest that is started again does.
"""

from __future__ import annotations

import itertools
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import rados

OBJECTS = 48
SIZE = 4096
AGAIN_S = 0.2


def objects_of(conf_file: str, user: str, pool: str, limit_s: int = 3) -> Any:
    limits = dict.fromkeys(("rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout"), str(limit_s))
    cluster = rados.Rados(conffile=conf_file, rados_id=user, conf=limits)
    cluster.connect()
    return cluster.open_ioctx(pool)


def name(number: int) -> str:
    return f"flood.{number % OBJECTS}"


def numbers(objects: Any) -> list[int]:
    """The number of the newest write to each of the objects; 0 where there is none."""
    return [_number(objects, name(one)) for one in range(OBJECTS)]


def _number(objects: Any, one: str) -> int:
    try:
        return int(struct.unpack("<Q", objects.read(one, 8))[0])
    except rados.ObjectNotFound:
        return 0


def answer(objects: Any) -> None:
    print("open", flush=True)
    for line in sys.stdin:
        try:
            objects.write_full("one", line.encode())
            print("ok", flush=True)
        except rados.Error as error:
            print(type(error).__name__, flush=True)


class Flood:
    def __init__(self, where: list[str], stamps: Path) -> None:
        from tests.storage.stamps import Stamps

        self._where = where
        self._stamps = Stamps(stamps)
        self._turn = threading.Lock()
        self._numbers = itertools.count(1)

    def run(self, in_flight: int) -> None:
        # A write whose answer comes late counts all the same.
        objects = objects_of(*self._where, limit_s=60)
        self._numbers = itertools.count(max(numbers(objects)) + 1)
        for _ in range(in_flight):
            threading.Thread(target=self._write_on, args=[objects], daemon=True).start()
        while True:
            time.sleep(AGAIN_S)
            try:
                other = objects_of(*self._where)
                self._write(other)
                other.close()
            except rados.Error:
                continue

    def _write_on(self, objects: Any) -> None:
        while True:
            try:
                self._write(objects)
            except rados.Error:
                time.sleep(0.005)

    def _write(self, objects: Any) -> None:
        with self._turn:
            number = next(self._numbers)
        objects.write_full(name(number), struct.pack("<Q", number).ljust(SIZE, b"."))
        with self._turn:
            self._stamps.add(time.monotonic())


def main() -> None:
    where, rest = sys.argv[1:4], sys.argv[4:]
    if rest:
        Flood(where, Path(rest[0])).run(int(rest[1]))
    else:
        answer(objects_of(*where))


if __name__ == "__main__":
    main()
