# SPDX-License-Identifier: Apache-2.0
"""The contract's bench on a real Ceph, with clients on hosts that have addresses of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.ports import cabled, ceph_server
from tests.ports.cabled import Cabled
from tests.ports.ceph_server import NOVA, PG_NUM, POOL, VMHAD, CephServer
from vmhad.drivers.storage.ceph import Ceph

ROOT = Path(__file__).parents[2]
HOSTS = ("h", "other")


def lacks() -> str:
    """Why it cannot run here, or ''."""
    return cabled.lacks() or ceph_server.lacks()


def settings(server: CephServer) -> dict[str, object]:
    return {"conf_file": str(server.conf_file), "user": VMHAD, "pools": sorted(PG_NUM)}


def on_host(
    cables: Cabled, host: str, server: CephServer, *words: str | Path, user: str = NOVA
) -> subprocess.Popen[str]:
    """ceph_client.py, there."""
    argv = (sys.executable, "-m", "tests.ports.ceph_client", server.conf_file, user, POOL, *words)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
    return subprocess.Popen(
        cables.on(host, *argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


class Client:
    """One client that is open on a host."""

    def __init__(self, cables: Cabled, host: str, server: CephServer, user: str = NOVA) -> None:
        self._process = on_host(cables, host, server, user=user)

    def is_open(self) -> bool:
        """It may be refused already when it connects."""
        assert self._process.stdout is not None
        return self._process.stdout.readline() == "open\n"

    def writes(self) -> bool:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("write\n")
        self._process.stdin.flush()
        return self._process.stdout.readline() == "ok\n"

    def end(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)


class CephBench:
    def __init__(self, server: CephServer, cables: Cabled, limit_s: float) -> None:
        self.server, self.cables = server, cables
        clients = {host: (address,) for host, address in cables.addresses.items()}
        self.storage = Ceph("ceph-a", settings(server), clients, limit_s)
        self._clients: dict[str, Client] = {}

    def fresh(self) -> None:
        self.go_on()
        self.end()
        for host in HOSTS:
            self.storage.restore(host)
        self._clients = {host: Client(self.cables, host, self.server) for host in HOSTS}
        for client in self._clients.values():
            assert client.is_open() and client.writes()

    def writes(self, host: str) -> bool:
        return self._clients[host].writes()

    def writes_anew(self, host: str) -> bool:
        client = Client(self.cables, host, self.server)
        try:
            return client.is_open() and client.writes()
        finally:
            client.end()

    def leave(self, host: str) -> None:
        self._clients.pop(host).end()

    def hang(self) -> None:
        self.server.hang()

    def go_on(self) -> None:
        self.server.go_on()

    def end(self) -> None:
        while self._clients:
            self._clients.popitem()[1].end()


@contextmanager
def bench(where: Path, limit_s: float) -> Iterator[CephBench]:
    cables = Cabled(list(HOSTS))
    server = CephServer(where, cables.server)
    with ExitStack() as ends:
        ends.callback(cables.end)
        cables.lay()
        ends.callback(server.end)
        server.start()
        made = CephBench(server, cables, limit_s)
        ends.callback(made.end)
        yield made
