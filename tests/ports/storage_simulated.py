# SPDX-License-Identifier: Apache-2.0
"""A simulated storage under the contract of the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vmhad.kernel.topology import Backend
from vmhad.sim.clock import Agenda, SimClock
from vmhad.sim.datacentre import Datacentre, SimHost
from vmhad.sim.life import Life
from vmhad.sim.storage import Backends, SimStorage
from vmhad.sim.vms import SimVm

HOSTS = ("h", "other")


def lacks() -> str:
    return ""


class SimBench:
    """Time is virtual: whatever takes some has passed before the next call. A guest of a VM is the client that was
    opened first, whose disk lies there; its user may start others."""

    # Worse than any real one: what was open writes on when the cut is taken back.
    writes_on = True

    def __init__(self, limit_s: float) -> None:
        self._datacentre = Datacentre(Agenda())
        for name in HOSTS:
            self._datacentre.add_host(SimHost(name))
            self._datacentre.add_vm(SimVm(name, name))
        life = Life(self._datacentre.agenda, "e1")
        clock = SimClock(self._datacentre.agenda)
        backend = Backend("ceph", frozenset({"cinder/ceph"}), frozenset(HOSTS))
        self.storage = SimStorage(Backends(self._datacentre), backend, life, clock, limit_s)

    def fresh(self) -> None:
        self.go_on()
        for name in HOSTS:
            self._datacentre.fence_client("ceph", name, False)
            self._datacentre.vms[name].guests.add(name)

    def writes(self, host: str) -> bool:
        return host in self._datacentre.writers(self._datacentre.vms[host])

    def writes_anew(self, host: str) -> bool:
        return self._datacentre.takes("ceph", host)

    def leave(self, host: str) -> None:
        self._datacentre.vms[host].guests.discard(host)

    def hang(self) -> None:
        self._datacentre.hang_storage("ceph", True)

    def go_on(self) -> None:
        self._datacentre.hang_storage("ceph", False)


@contextmanager
def bench(where: Path, limit_s: float) -> Iterator[SimBench]:
    yield SimBench(limit_s)
