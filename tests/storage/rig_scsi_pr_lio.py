# SPDX-License-Identifier: Apache-2.0
"""The rig of persistent reservations on LIO, which does PREEMPT AND ABORT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports.lio import Lio, lacks
from tests.storage.rig_scsi_pr import ScsiRig, rig_of

__all__ = ["lacks", "rig"]


@contextmanager
def rig(where: Path) -> Iterator[ScsiRig]:
    with rig_of(where, Lio(where / "lio"), "scsi_pr on LIO") as one:
        yield one
