# SPDX-License-Identifier: Apache-2.0
"""What a disk had queued when its host was cut off is ended before CUT is said, and a cut that left that out would be
found out here.

The disk is a slow one, each write of which is on its medium before it is answered, so that the queue is never empty.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.storage.rounds import play
from tests.storage.rig_scsi_pr import HOST, KEY, lacks, rig
from vmhad.drivers.storage import scsi_lun
from vmhad.drivers.storage.iscsi_session import Portal, Session
from vmhad.drivers.storage.scsi_lun import Lun
from vmhad.drivers.storage.scsi_settings import PREFIX, marks_of
from vmhad.kernel.signal import Access
from vmhad.ports import Storage

pytestmark = pytest.mark.skipif(bool(lacks()), reason=lacks() or "it is here")
SLOW = ("--bsoflags", "sync")
QUEUED = 64
ROUNDS = 6
ROUNDS_MAX = 30
WATCH_S = 0.5


class PreemptAlone(Lun):
    def reset(self) -> None:
        """Left out."""


class Hasty:
    """ports.Storage that takes the key away and no more."""

    def __init__(self, storage: Storage, portal: Portal) -> None:
        self._storage = storage
        self._portal = portal

    def read(self, host: str) -> tuple[Access, str]:
        return self._storage.read(host)

    def cut(self, host: str) -> None:
        with Session(self._portal, time.monotonic() + 4.0) as session:
            scsi_lun.cut(PreemptAlone(session, 1), frozenset({KEY}), marks_of(HOST, PREFIX))

    def restore(self, host: str) -> None:
        self._storage.restore(host)


def test_what_was_queued_is_ended_before_cut_is_said(tmp_path: Path) -> None:
    with rig(tmp_path, SLOW) as one:
        played = [play(one, QUEUED, 0.0, WATCH_S) for _ in range(ROUNDS)]
    assert not [round_ for round_ in played if round_.false_proof]


def test_to_take_the_key_alone_is_found_out(tmp_path: Path) -> None:
    with rig(tmp_path, SLOW) as one:
        one.storage = Hasty(one.storage, one.portal)
        assert any(play(one, QUEUED, 0.0, WATCH_S).false_proof for _ in range(ROUNDS_MAX))
