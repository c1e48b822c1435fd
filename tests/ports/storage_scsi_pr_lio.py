# SPDX-License-Identifier: Apache-2.0
"""The bench of persistent reservations on LIO, which does PREEMPT AND ABORT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports.lio import Lio, lacks
from tests.ports.storage_scsi_pr import ScsiBench, bench_of

__all__ = ["bench", "lacks"]


@contextmanager
def bench(where: Path, limit_s: float) -> Iterator[ScsiBench]:
    with bench_of(Lio(where), limit_s) as made:
        yield made
