# SPDX-License-Identifier: Apache-2.0
"""The rig of persistent reservations: a LUN, and a host's disk that writes to it with commands queued."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.ports.lio import Lio
from tests.ports.lio import lacks as lio_lacks
from tests.ports.tgt import FENCER, TARGET, Target, Tgt, lacks, stand_guard
from tests.storage.stamps import Stamps
from vmhad.drivers.storage.iscsi_session import Portal
from vmhad.drivers.storage.scsi_pr import ScsiPr
from vmhad.ports import Storage
from vmhad.scsi.scsi_bytes import Kind

__all__ = ["lacks", "lio_lacks", "lio_rig", "rig"]
ROOT = Path(__file__).parents[2]
HOST, KEY = "h", 0xA1
OPERATOR_KEY = 0x0E
LIMIT_S = 4.0


class ScsiRig:
    name = "scsi_pr"
    host = HOST

    def __init__(self, where: Path, target: Target) -> None:
        self._where = where
        self._target = target
        self.storage: Storage = ScsiPr(
            "lun-a",
            {"portals": [target.portal], "target": TARGET, "luns": [1], "initiator": FENCER},
            {HOST: (hex(KEY),)},
            LIMIT_S,
        )
        self._writer: subprocess.Popen[bytes] | None = None
        self._stamps: Stamps | None = None
        self._round = 0

    @property
    def portal(self) -> Portal:
        """For who cuts in another way."""
        return Portal(self._target.portal, TARGET, FENCER)

    def fresh(self) -> None:
        self.end()
        self.storage.restore(HOST)

    def start_writer(self, in_flight: int) -> None:
        self._round += 1
        path = self._where / f"stamps-{self._round}"
        self._stamps = Stamps(path)
        python_path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
        environment = dict(os.environ, PYTHONPATH=python_path)
        with (self._where / "writer.log").open("ab") as log:
            self._writer = subprocess.Popen(
                [
                    sys.executable, "-m", "tests.storage.scsi_writer", self._target.portal, HOST, hex(KEY), str(path),
                    str(self.held()), str(in_flight),
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT, env=environment,
            )  # fmt: skip

    def last_accepted(self) -> float:
        return self._stamps.last() if self._stamps else 0.0

    def accepted_since(self, at: float) -> int:
        return self._stamps.since(at) if self._stamps else 0

    def held(self) -> int:
        return max(self.medium())

    def medium(self) -> list[int]:
        """The number of the newest write at each place."""
        return self._target.numbers()

    def end(self) -> None:
        if self._writer is not None:
            self._writer.kill()
            self._writer.wait()
            self._writer = None
        if self._stamps is not None:
            self._stamps.close()
            self._stamps = None
            (self._where / f"stamps-{self._round}").unlink()


@contextmanager
def rig(where: Path, flags: Sequence[str] = ()) -> Iterator[ScsiRig]:
    with _rig_of(where, Tgt(where / "tgt", flags=flags)) as one:
        yield one


@contextmanager
def lio_rig(where: Path, writes_per_s: int = 0) -> Iterator[ScsiRig]:
    """Its answers come through a guest's network, later than those that the driver gets: for who reads the medium."""
    with _rig_of(where, Lio(where / "lio", writes_per_s=writes_per_s)) as one:
        yield one


@contextmanager
def _rig_of(where: Path, target: Target) -> Iterator[ScsiRig]:
    try:
        target.start()
        stand_guard(target, OPERATOR_KEY, Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
        one = ScsiRig(where, target)
        try:
            yield one
        finally:
            one.end()
    finally:
        target.stop()
