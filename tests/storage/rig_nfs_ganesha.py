# SPDX-License-Identifier: Apache-2.0
"""The rounds' rig on a real NFS-Ganesha: the host's client is libnfs's, over NFSv3."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.ports.ganesha_server import Ganesha, lacks
from tests.ports.storage_nfs_ganesha import driver
from tests.storage.stamps import Stamps

__all__ = ["lacks", "rig"]

LIMIT_S = 4.0


class GaneshaRig:
    name = "nfs_ganesha"
    host = "h"

    def __init__(self, server: Ganesha) -> None:
        self._server = server
        self.storage = driver(server, LIMIT_S, way=server.let_in())
        self._numbers = itertools.count()
        self._stamps_file = server.where / "stamps"
        self._writer: subprocess.Popen[str] | None = None

    def fresh(self) -> None:
        self.end()
        self.storage.restore(self.host)
        # Never the same again: Ganesha remembers files that are taken away behind its back.
        self._file = f"{self.host}.{next(self._numbers)}"
        self._stamps_file.unlink(missing_ok=True)
        self._stamps = Stamps(self._stamps_file)

    def start_writer(self, in_flight: int) -> None:
        self._writer = self._server.on_host(self.host, self._stamps_file, str(in_flight), name=self._file)

    def last_accepted(self) -> float:
        return self._stamps.last()

    def accepted_since(self, at: float) -> int:
        return self._stamps.since(at)

    def held(self) -> int:
        return self._server.landed(self._file)

    def end(self) -> None:
        if self._writer is not None:
            self._writer.kill()
            self._writer.communicate(timeout=10)
            self._writer = None


@contextmanager
def rig(where: Path) -> Iterator[GaneshaRig]:
    with ExitStack() as ends:
        made = GaneshaRig(ends.enter_context(Ganesha(where / "server")))
        ends.callback(made.storage.close)
        ends.callback(made.end)
        yield made
