# SPDX-License-Identifier: Apache-2.0
"""Two hosts with LUNs, the driver that cuts them off, and somebody else who meddles with their registrations."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.ports.tgt import FENCER, TARGET, Target
from vmhad.drivers.storage.iscsi_session import Portal, Session
from vmhad.drivers.storage.scsi_lun import Lun, Seen
from vmhad.drivers.storage.scsi_pr import ScsiPr
from vmhad.kernel.signal import Access
from vmhad.scsi import scsi_bytes as scsi
from vmhad.scsi.scsi_bytes import Kind, Out

OPEN, CUT, UNKNOWN = Access.OPEN, Access.CUT, Access.UNKNOWN
HOST, OTHER, KEY, OTHER_KEY, OPERATOR_KEY = "h", "other", 0xA1, 0xB1, 0x0E
KEYS = {HOST: (hex(KEY),), OTHER: (hex(OTHER_KEY),)}
# A target in an emulated guest is slow on a busy machine; nothing is measured by this.
LIMIT_S = 10.0
RESERVED = Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY
RELEASE, CLEAR = 0x02, 0x03
COUNT = itertools.count()


def driver(target: Target, /, **changes: object) -> ScsiPr:
    said = {"portals": [target.portal], "target": TARGET, "luns": list(target.luns), "initiator": FENCER}
    return ScsiPr("lun-a", {key: value for key, value in (said | changes).items() if value}, KEYS, LIMIT_S)


@contextmanager
def somebody(target: Target) -> Iterator[Session]:
    """Who has nothing to do with the driver. Each has a name of its own."""
    name = f"iqn.2026-01.example.vmhad:somebody-{next(COUNT)}"
    with Session(Portal(target.portal, TARGET, name), time.monotonic() + LIMIT_S) as session:
        yield session


def looked(target: Target, lun: int = 1) -> Seen:
    with somebody(target) as session:
        return Lun(session, lun).look()


def acts(target: Target, action: int, key: int, action_key: int = 0, kind: int = 0, lun: int = 1) -> None:
    with somebody(target) as session:
        Lun(session, lun).look()
        for cdb, said in (
            (scsi.reserve_out(Out.REGISTER_AND_IGNORE), scsi.parameters(0, key)),
            (bytes((0x5F, action)) + scsi.reserve_out(Out.RESERVE, kind)[2:], scsi.parameters(key, action_key)),
        ):
            assert session.command(lun, cdb, said).status == scsi.GOOD
