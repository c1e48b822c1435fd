# SPDX-License-Identifier: Apache-2.0
"""The paths of this host to the LUNs that it can be cut off from: each is registered with the host's key, once.

What is done for one path, and why that is safe, stands in registrar.py. Here is who does it: one thread looks which
paths there are, woken by the kernel's word of a new block device, and one a port looks after those that go by it: a
target that hangs holds nobody but those.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vmhad.agent.bootclock import boot_s
from vmhad.agent.lun_memory import LunMemory
from vmhad.agent.lun_paths import LunPath, has_map, path_of, paths
from vmhad.agent.registrar import Registrar
from vmhad.agent.scsi_device import Device
from vmhad.agent.told import Rounds, Told
from vmhad.scsi.marks import Marks
from vmhad.scsi.nexus import Broken, Declined, Nexus, Overtaken
from vmhad.scsi.scsi_bytes import Garbled

LOG = logging.getLogger(__name__)
LISTS_S, LOOKS_S, APART_S = 1.0, 2.0, 0.1
# A look that takes longer than the kernel lets one command take.
STALE_S = 45.0
COMPLAINTS_MAX = 8
# From linux/netlink.h: where the kernel tells of devices, and to whom.
KOBJECT_UEVENT, FROM_KERNEL = 15, 1
# What a device answers that has just been taken away.
GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO)
EVENT_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Reserved:
    """LUNs of one storage that this host can be cut off from. luns: by target and number. wwids: as the kernel has
    them, in small letters."""

    storage: str
    key: int
    marks: Marks
    luns: frozenset[tuple[str, int]]
    wwids: frozenset[str]

    def has(self, path: LunPath) -> bool:
        return (path.target, path.number) in self.luns or path.wwid.lower() in self.wwids


class Gone(Exception):
    """The path is not there any more, or another one has its name."""


class _Watched:
    """One path. word: '' or the complaint; None before it was looked at."""

    def __init__(self, path: LunPath, storage: str, registrar: Registrar) -> None:
        self.path, self.storage, self.registrar = path, storage, registrar
        self.word: str | None = None
        self.looked_at = boot_s()


class Registrations:
    """The eye on them, and the hand. root: where /sys and /dev are."""

    def __init__(self, storages: Sequence[Reserved], memory: LunMemory, root: Path = Path("/")) -> None:
        self._storages = tuple(storages)
        self._memory = memory
        self._root = root
        self._list = Rounds("LUN paths", self._look, LISTS_S, APART_S)
        self._events = threading.Thread(target=self._hear, name="block devices", daemon=True)
        self._ending = threading.Event()
        self._wwids: dict[str, str] = {}
        # What other threads read is replaced as a whole and never changed.
        self._watched: Mapping[str, _Watched] = {}
        self._ports: Mapping[str, Rounds] = {}

    def start(self) -> None:
        self._list.start()
        self._events.start()

    def stop(self) -> None:
        self._ending.set()
        for rounds in (self._list, *self._ports.values()):
            rounds.stop()

    def tell(self, now: float) -> Told:
        found: dict[tuple[str, str], list[LunPath]] = {}
        for one in self._watched.values():
            word = "it does not answer" if now - one.looked_at > STALE_S else one.word
            if word:
                found.setdefault((one.storage, word), []).append(one.path)
        return Told(hardware=tuple(_complaints(found))[:COMPLAINTS_MAX])

    def _look(self) -> None:
        """Which paths there are, and who looks after them."""
        found = paths(self._root)
        there = {path.born: path for path in found if path.works}
        watched = {born: one for born, one in self._watched.items() if born in there}
        for born, path in there.items():
            storage = next((one for one in self._storages if one.has(path)), None)
            if born not in watched and storage is not None:
                registrar = Registrar(storage.key, storage.marks, self._memory, path.where, path.born)
                watched[born] = _Watched(path, storage.storage, registrar)
                self._wwids[path.where] = path.wwid
        fresh = {one.path.by for born, one in watched.items() if born not in self._watched}
        self._watched = watched
        self._forget({path.where for path in found})
        self._attend(fresh)

    def _forget(self, there: Collection[str]) -> None:
        """What is attached anew is a new path for whoever opens it. But what a multipath map has open lives on."""
        for lun in self._memory.luns():
            if lun not in there and not has_map(self._root, self._wwids.get(lun, "")):
                self._memory.forget(lun)

    def _attend(self, fresh: Iterable[str]) -> None:
        used = {one.path.by for one in self._watched.values()}
        ports = {by: rounds for by, rounds in self._ports.items() if by in used}
        for by in self._ports.keys() - used:
            self._ports[by].stop()
        begun = sorted(used - ports.keys())
        for by in begun:
            ports[by] = Rounds(f"LUN paths by {by}", lambda by=by: self._settle(by), LOOKS_S, APART_S)  # type: ignore[misc]
        self._ports = ports
        if self._ending.is_set():
            return
        for by in begun:
            ports[by].start()
        for by in sorted(set(fresh) - set(begun)):
            ports[by].nudge()

    def _settle(self, by: str) -> None:
        for one in sorted(self._watched.values(), key=lambda one: one.path.name):
            if one.path.by == by:
                self._settle_one(one)

    def _settle_one(self, one: _Watched) -> None:
        try:
            with self._opened(one.path) as nexus:
                word = one.registrar.settle(nexus)
        except Gone:
            return
        except (Broken, Declined, Overtaken, Garbled, OSError) as error:
            if isinstance(error, OSError) and error.errno in GONE:
                return
            said = error.strerror if isinstance(error, OSError) else str(error)
            word = f"nobody knows whether it is registered: {said}"
            if one.word == "":
                # One look that fails is ordinary noise; many in a row are told as old.
                LOG.info("%s by %s: %s", one.path.where, one.path.name, word)
                return
        if word != one.word:
            LOG.log(
                logging.WARNING if word else logging.INFO,
                "%s by %s: %s", one.path.where, one.path.name, word or "registered",
            )  # fmt: skip
        one.word, one.looked_at = word, boot_s()

    @contextmanager
    def _opened(self, path: LunPath) -> Iterator[Nexus]:
        """While it is open no other device gets its number, so that it is the one that was listed, or none is told."""
        with Device(os.fspath(self._root / "dev" / path.name)) as device:
            entry = (self._root / "sys/dev/block" / device.number).resolve()
            if path_of(self._root, entry) != path:
                raise Gone
            yield Nexus(device, path.number)

    def _hear(self) -> None:
        """Edges only: a path that nobody told of is found a second later."""
        try:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, KOBJECT_UEVENT) as heard:
                heard.bind((0, FROM_KERNEL))
                while not self._ending.is_set():
                    if _is_of_block(heard):
                        self._list.nudge()
        except OSError as error:
            LOG.info("the kernel does not tell of its devices (%s); they are looked for", error.strerror)


def _is_of_block(heard: socket.socket) -> bool:
    try:
        return b"SUBSYSTEM=block" in heard.recv(EVENT_BYTES)
    except OSError as error:
        if error.errno == errno.ENOBUFS:
            # More came than were taken, and some are lost.
            return True
        raise


def _complaints(found: Mapping[tuple[str, str], Sequence[LunPath]]) -> Iterator[str]:
    """One a storage and reason: a beat stays small however many LUNs there are."""
    for (storage, word), ailing in sorted(found.items(), key=lambda one: one[0]):
        first = min(ailing, key=lambda path: (path.where, path.name))
        more = f" (and {len(ailing) - 1} more paths)" if len(ailing) > 1 else ""
        yield f"storage {storage}: {first.where} by {first.name}{more}: {word}"
