# SPDX-License-Identifier: Apache-2.0
"""Watches the hypervisors for the one thing that must never happen: a guest that runs on two living hosts at once.

It knows nothing of vmhad or Nova. It reads what the pretend hosts hold, so it can judge both. A guest that is merely
defined (shut down) on a second host does not run there and is no double.
"""
import json
import pathlib
import time

from lab.sampler import Sampler


def lives(state_dir):
    """Does this host have power? Read from /proc, by pid and birth."""
    try:
        pid, born = (state_dir / "chassis.pid").read_text().split()
        fields = pathlib.Path("/proc/%s/stat" % pid).read_text().rsplit(")", 1)[1].split()
    except (OSError, ValueError, IndexError):
        return False
    return fields[0] not in "ZX" and fields[19] == born


class Watcher(Sampler):
    """Samples all hosts below `state_dir` until stopped; `report()` may be read at any time."""

    def __init__(self, state_dir, interval=0.1):
        super().__init__(interval)
        self.state_dir = pathlib.Path(state_dir)
        self._cache = {}

    def _guests(self, path):
        """The uuids that run according to one file; unchanged files are not read again."""
        try:
            stat = path.stat()
            mark = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if self._cache.get(path, (None,))[0] != mark:
                rows = json.loads(path.read_text())
                self._cache[path] = (mark, frozenset(row["uuid"] for row in rows if row["state"] != "shutdown"))
            return self._cache[path][1]
        except (OSError, ValueError):
            return frozenset()

    def sample(self):
        """One look at all hosts; whether one lives is asked after its guests were read, so death is not missed."""
        where = {}
        for path in sorted(self.state_dir.glob("*/guests.json")):
            guests = self._guests(path)
            if guests and lives(path.parent):
                for uuid in guests:
                    where.setdefault(uuid, []).append(path.parent.name)
        suspects = {uuid: hosts for uuid, hosts in where.items() if len(hosts) > 1}
        now = time.time()
        with self._lock:
            self.samples += 1
            for uuid, hosts in suspects.items():
                if all(self._still(uuid, host) for host in hosts):
                    entry = self._doubles.setdefault((uuid, tuple(hosts)), {
                        "uuid": uuid, "hosts": hosts, "first_seen": now, "last_seen": now})
                    entry["last_seen"] = now

    def _still(self, uuid, host):
        """A second look: a guest that moved between the reading of two files was never on both."""
        folder = self.state_dir / host
        return uuid in self._guests(folder / "guests.json") and lives(folder)
