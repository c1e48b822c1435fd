# SPDX-License-Identifier: Apache-2.0
"""The bench of persistent reservations: a LUN, two hosts registered there, a reservation that stands. On tgt, which
knows no PREEMPT AND ABORT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports.tgt import FENCER, TARGET, Client, Target, Tgt, lacks, stand_guard
from vmhad.drivers.storage.scsi_pr import ScsiPr
from vmhad.scsi.nexus import Broken
from vmhad.scsi.scsi_bytes import Kind

__all__ = ["bench", "bench_of", "lacks"]
KEYS = {"h": 0xA1, "other": 0xB1}
OPERATOR_KEY = 0x0E
WRITES_WITHIN_S = 2.0


class ScsiBench:
    def __init__(self, target: Target, limit_s: float) -> None:
        self._target = target
        self.storage = ScsiPr(
            "lun-a",
            {"portals": [target.portal], "target": TARGET, "luns": list(target.luns), "initiator": FENCER},
            {host: (hex(key),) for host, key in KEYS.items()},
            limit_s,
        )
        self._clients: dict[str, Client] = {}

    def fresh(self) -> None:
        self.go_on()
        for host in sorted(self._clients):
            self.leave(host)
        for host, key in KEYS.items():
            self.storage.restore(host)
            self._clients[host] = Client(self._target, host, key, WRITES_WITHIN_S)
            assert self._clients[host].writes()

    def writes(self, host: str) -> bool:
        return _writes(self._clients[host])

    def writes_anew(self, host: str) -> bool:
        client = Client(self._target, host, KEYS[host], WRITES_WITHIN_S)
        try:
            return _writes(client)
        finally:
            client.close()

    def leave(self, host: str) -> None:
        self._clients.pop(host).close()

    def hang(self) -> None:
        self._target.hang()

    def go_on(self) -> None:
        self._target.go_on()


def _writes(client: Client) -> bool:
    try:
        return client.writes()
    except Broken:
        return False


@contextmanager
def bench(where: Path, limit_s: float) -> Iterator[ScsiBench]:
    with bench_of(Tgt(where), limit_s) as made:
        yield made


@contextmanager
def bench_of(target: Target, limit_s: float) -> Iterator[ScsiBench]:
    try:
        target.start()
        stand_guard(target, OPERATOR_KEY, Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
        yield ScsiBench(target, limit_s)
    finally:
        target.stop()
