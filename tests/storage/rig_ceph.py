# SPDX-License-Identifier: Apache-2.0
"""A real Ceph with two OSDs, and a host that floods its pool with writes while it is cut off."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.ports.cabled import Cabled
from tests.ports.ceph_server import NOVA, POOL, CephServer
from tests.ports.storage_ceph import Client, lacks, on_host, settings
from tests.storage.stamps import Stamps
from vmhad.drivers.storage.ceph import Ceph

__all__ = ["lacks", "rig"]

LIMIT_S = 5.0


class CephRig:
    name, host = "ceph", "h"

    def __init__(self, server: CephServer, cables: Cabled, where: Path) -> None:
        self.server, self.cables, self._where = server, cables, where
        self.address = cables.addresses[self.host]
        self.storage = Ceph("ceph-a", settings(server), {self.host: (self.address,)}, LIMIT_S)
        self._writer: subprocess.Popen[str] | None = None
        self._stamps: Stamps | None = None
        self._seen: Any = server.objects(POOL)
        self._clients: list[Client] = []

    def fresh(self) -> None:
        self.end()
        self.storage.restore(self.host)

    def start_writer(self, in_flight: int) -> None:
        path = self._where / "stamps"
        self._stamps = Stamps(path)
        self._writer = on_host(self.cables, self.host, self.server, path, str(in_flight))

    def client(self, host: str = host, user: str = NOVA) -> Client:
        self._clients.append(Client(self.cables, host, self.server, user))
        return self._clients[-1]

    def link(self, state: str) -> None:
        """Of the host, up or down."""
        subprocess.run(self.cables.on(self.host, "ip", "link", "set", "eth0", state), check=True)

    def last_accepted(self) -> float:
        assert self._stamps is not None
        return self._stamps.last()

    def accepted_since(self, at: float) -> int:
        assert self._stamps is not None
        return self._stamps.since(at)

    def held(self) -> int:
        return max(self.medium())

    def medium(self) -> list[int]:
        """The number of the newest write to each object."""
        # Not on top: where Ceph's binding is missing these tests are to be skipped.
        from tests.ports.ceph_client import numbers

        return numbers(self._seen)

    def end(self) -> None:
        while self._clients:
            self._clients.pop().end()
        if self._writer is not None:
            self._writer.kill()
            self._writer.communicate(timeout=10)
            self._writer = None
        if self._stamps is not None:
            self._stamps.close()
            self._stamps = None
            (self._where / "stamps").unlink()


@contextmanager
def rig(where: Path) -> Iterator[CephRig]:
    cables = Cabled([CephRig.host])
    server = CephServer(where / "ceph", cables.server)
    with ExitStack() as ends:
        ends.callback(cables.end)
        cables.lay()
        ends.callback(server.end)
        server.start()
        made = CephRig(server, cables, where)
        ends.callback(made.end)
        yield made
