# SPDX-License-Identifier: Apache-2.0
"""What a disk had queued when its host was cut off is ended before CUT is said, and a cut that left that out would be
found out here.

What counts is the medium itself, read past the target just after the proof and again later: an answer may be on its way
to the host for a write that was there before. The disks are slow, so that the queue is never empty.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports.tgt import lacks
from tests.storage.rig_scsi_pr import HOST, KEY, ScsiRig, lio_lacks, lio_rig, rig
from tests.storage.rounds import ROUNDS
from vmhad.drivers.storage import scsi_lun
from vmhad.drivers.storage.iscsi_session import Portal, Session
from vmhad.drivers.storage.scsi_lun import Lun
from vmhad.kernel.signal import Access
from vmhad.ports import Storage
from vmhad.scsi.marks import ACTOR_PORT, PREFIX, marks_of

pytestmark = pytest.mark.skipif(bool(lacks()), reason=lacks() or "it is here")
# Each write is on its medium before it is answered.
SLOW = ("--bsoflags", "sync")
WRITES_PER_S = 200
QUEUED = 64
MIN_WRITES = 20
ROUNDS_MAX = 100
WITHIN_S = 10.0
WATCH_S = 0.5


class PreemptAlone(Lun):
    def reset(self) -> None:
        """Left out."""


class Hasty:
    """ports.Storage that believes PREEMPT AND ABORT, or does a PREEMPT, and no more."""

    def __init__(self, storage: Storage, portal: Portal) -> None:
        self._storage = storage
        self._portal = portal

    def read(self, host: str) -> tuple[Access, str]:
        return self._storage.read(host)

    def cut(self, host: str) -> None:
        marks, until = marks_of(HOST, PREFIX), time.monotonic() + 4.0
        with Session(self._portal, until, ACTOR_PORT) as acting, Session(self._portal, until, marks.port) as holding:
            scsi_lun.cut(PreemptAlone(acting, 1), Lun(holding, 1), frozenset({KEY}), marks)

    def restore(self, host: str) -> None:
        self._storage.restore(host)


def landed_after_the_proof(one: ScsiRig) -> int:
    one.fresh()
    one.start_writer(QUEUED)
    until = time.monotonic() + WITHIN_S
    while one.accepted_since(time.monotonic() - 0.5) < MIN_WRITES:
        assert time.monotonic() < until, "the writer does not write"
        time.sleep(0.02)
    one.storage.cut(HOST)
    while (seen := one.storage.read(HOST))[0] is not Access.CUT:
        assert time.monotonic() < until, seen
    before = one.medium()
    time.sleep(WATCH_S)
    return sum(old != new for old, new in zip(before, one.medium(), strict=True))


@pytest.fixture(params=["tgt", "lio"])
def one(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ScsiRig]:
    if request.param == "lio" and lio_lacks():
        pytest.skip(lio_lacks())
    with rig(tmp_path, SLOW) if request.param == "tgt" else lio_rig(tmp_path, WRITES_PER_S) as made:
        yield made


def test_what_was_queued_is_ended_before_cut_is_said(one: ScsiRig) -> None:
    assert [landed_after_the_proof(one) for _ in range(ROUNDS)] == [0] * ROUNDS


@pytest.mark.parametrize("one", ["lio"], indirect=True)
def test_to_take_the_key_alone_is_found_out(one: ScsiRig) -> None:
    """LIO says that it aborted, and did not. tgt knows no PREEMPT AND ABORT, but the disk of a build machine may be so
    fast that its queue is never caught full, in 200 rounds: only LIO, whose disk takes so many writes a second and no
    more, shows each time what the guard is for."""
    one.storage = Hasty(one.storage, one.portal)
    assert any(landed_after_the_proof(one) for _ in range(ROUNDS_MAX))
