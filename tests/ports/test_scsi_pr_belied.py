# SPDX-License-Identifier: Apache-2.0
"""A target whose GOOD means nothing: what it says when it is read counts, and the host stays uncut."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports.istgt import TARGET, Istgt, present
from tests.ports.tgt import FENCER, lacks
from vmhad.drivers.storage.iscsi_session import Portal, Session
from vmhad.drivers.storage.scsi_lun import Lun
from vmhad.drivers.storage.scsi_pr import ScsiPr
from vmhad.kernel.signal import Access
from vmhad.ports import Unanswered
from vmhad.scsi.scsi_bytes import Kind

HOST, KEY, HOLDER, HOLDER_KEY, LUN = "h", 0xA1, "other", 0xB1, 0

pytestmark = [
    pytest.mark.skipif(not present() or os.geteuid() != 0, reason="istgt is not installed, or this is not root"),
    pytest.mark.skipif(bool(lacks()), reason=lacks() or "it is here"),
]


@pytest.fixture
def istgt(tmp_path: Path) -> Iterator[Istgt]:
    target = Istgt(tmp_path)
    try:
        target.start()
        yield target
    finally:
        target.stop()


def registered(istgt: Istgt, host: str, key: int) -> Lun:
    session = Session(Portal(istgt.portal, TARGET, f"iqn.2026-01.example.vmhad:{host}"), time.monotonic() + 30.0)
    lun = Lun(session, LUN)
    lun.look()
    lun.register(key)
    return lun


def test_good_is_no_proof(istgt: Istgt) -> None:
    registered(istgt, HOST, KEY)
    registered(istgt, HOLDER, HOLDER_KEY).reserve(HOLDER_KEY, Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
    seen = registered(istgt, "third", 0xC1)
    assert seen.preempt_and_abort(0xC1, KEY, Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY), "it says that it did"
    assert KEY in seen.look().keys, "and did not"
    storage = ScsiPr(
        "lun-a",
        {"portals": [istgt.portal], "target": TARGET, "luns": [LUN], "initiator": FENCER},
        {HOST: (hex(KEY),)},
        10.0,
    )
    with pytest.raises(Unanswered, match="still registered"):
        storage.cut(HOST)
    assert storage.read(HOST)[0] is Access.OPEN
