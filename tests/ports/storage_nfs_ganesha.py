# SPDX-License-Identifier: Apache-2.0
"""The contract's bench on a real NFS-Ganesha, with clients of NFSv3 on hosts that have addresses of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.ports.ganesha_server import Ganesha, lacks
from vmhad.drivers.storage.nfs_ganesha import NfsGanesha

__all__ = ["bench", "lacks"]

HOSTS = ("h", "other")


def driver(
    server: Ganesha, limit_s: float, exports: tuple[int, ...] = (1,), way: Mapping[str, object] | None = None
) -> NfsGanesha:
    """way: the settings of how the server is reached; nothing is known of any, this is its host."""
    settings = {"exports": list(exports), **(way or {"files": server.files, "dbus_address": server.bus})}
    clients = {host: (address,) for host, address in server.addresses.items()}
    return NfsGanesha("nfs-a", settings, clients, limit_s)


class Client:
    """One client that is open on a host, or was not let in."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def is_open(self) -> bool:
        assert self._process.stdout is not None
        return self._process.stdout.readline() == "open\n"

    def writes(self) -> bool:
        return self.does("write") == "ok"

    def does(self, what: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)


class GaneshaBench:
    def __init__(self, server: Ganesha, limit_s: float) -> None:
        self.server = server
        self.storage = driver(server, limit_s, way=server.let_in())
        self._clients: dict[str, Client] = {}

    def fresh(self) -> None:
        self.go_on()
        self.end()
        for host in HOSTS:
            self.storage.restore(host)
        self._clients = {host: Client(self.server.on_host(host)) for host in HOSTS}
        for client in self._clients.values():
            assert client.is_open() and client.writes()

    def writes(self, host: str) -> bool:
        return self._clients[host].writes()

    def writes_anew(self, host: str) -> bool:
        client = Client(self.server.on_host(host))
        try:
            return client.is_open() and client.writes()
        finally:
            client.end()

    def leave(self, host: str) -> None:
        self._clients.pop(host).end()

    def hang(self) -> None:
        self.server.hang()

    def go_on(self) -> None:
        self.server.hang(False)

    def end(self) -> None:
        while self._clients:
            self._clients.popitem()[1].end()


@contextmanager
def bench(where: Path, limit_s: float) -> Iterator[GaneshaBench]:
    with ExitStack() as ends:
        made = GaneshaBench(ends.enter_context(Ganesha(where)), limit_s)
        ends.callback(made.storage.close)
        ends.callback(made.end)
        yield made
