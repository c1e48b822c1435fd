# SPDX-License-Identifier: Apache-2.0
"""Watches the disks of the guests for the one thing that must never happen: two guests that write to one disk.

Every boot of a guest signs what it writes with an id of its own. A boot that is seen again after another one has
written is a second writer. It knows nothing of vmhad, Nova or libvirt, and reads only the disks.
"""
import os
import pathlib
import time

from lab.qemu import guest
from lab.sampler import Sampler

NEW_DISKS_EVERY_S = 0.5


class Directory:
    """The disks on the shared directory of a lab."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def names(self):
        return [path.parent.name for path in self.folder.glob("*/disk")]

    def read(self, name, sector, count=1):
        """As it is on the storage: a guest's direct write goes past this machine's page cache."""
        file = os.open(self.folder / name / "disk", os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            return os.pread(file, count * guest.SECTOR, sector * guest.SECTOR)
        finally:
            os.close(file)

    def close(self):
        """Nothing is held open."""


def parse(sector):
    """(boot id, count), or None for a disk that no guest has written yet."""
    words = sector.decode(errors="replace").split()
    if len(words) == 3 and words[0] == guest.MARK and words[2].isdigit():
        return words[1], int(words[2])
    return None


def ledger(source, name):
    """count -> boot id of every count that is on the disk. One that is missing was lost."""
    rows = source.read(name, 1, guest.LEDGER)
    found = (parse(rows[at:at + guest.SECTOR]) for at in range(0, len(rows), guest.SECTOR))
    return {row[1]: row[0] for row in found if row}


class DiskWatcher(Sampler):
    """Samples the disks until stopped; `report()` may be read at any time.

    doubles: one entry a disk and boot that came back. disks: for each the boots in the order of their first write,
    with their first and last count and when these were seen.
    """

    def __init__(self, source, interval=0.01):
        super().__init__(interval)
        self.source = source
        self._disks = {}
        self._names, self._look_again = [], 0.0

    def _note(self, name, boot, count, now):
        boots = self._disks.setdefault(name, [])
        if boots and boots[-1]["boot"] == boot:
            if boots[-1]["last"] != count:
                boots[-1].update(last=count, last_seen=now)
            return
        mine = next((one for one in boots if one["boot"] == boot), None)
        if mine is None:
            boots.append({"boot": boot, "first": count, "first_seen": now, "last": count, "last_seen": now})
            return
        entry = self._doubles.setdefault((name, boot), {
            "uuid": name, "boot": boot, "after": boots[-1]["boot"], "first_seen": now, "times": 0})
        if mine["last"] != count or entry["times"] == 0:
            entry.update(last_seen=now, times=entry["times"] + 1)
            mine.update(last=count, last_seen=now)

    def sample(self):
        now = time.monotonic()
        if now >= self._look_again:
            self._names, self._look_again = self.source.names(), now + NEW_DISKS_EVERY_S
        for name in self._names:
            try:
                found = parse(self.source.read(name, 0))
            except OSError:
                continue
            if found:
                with self._lock:
                    self._note(name, *found, time.time())
        with self._lock:
            self.samples += 1

    def report(self):
        with self._lock:
            disks = {name: [dict(boot) for boot in boots] for name, boots in self._disks.items()}
        return {**super().report(), "disks": disks}

    def stop(self):
        super().stop()
        self.source.close()
        return self.report()
