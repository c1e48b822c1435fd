# SPDX-License-Identifier: Apache-2.0
"""A host's disk in a process of its own: writes numbered blocks by iSCSI as fast as it can, so many at a time.

After an error it goes on as a guest does, and after the loss of its session with a new one, which nobody registers.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.ports.tgt import BLOCK, DISK_BYTES, TARGET, WRITE_BYTES, to_be_sent_again, write
from tests.storage.stamps import Stamps
from vmhad.drivers.storage.iscsi_session import Portal, Session
from vmhad.drivers.storage.scsi_lun import Lun
from vmhad.scsi import scsi_bytes as scsi
from vmhad.scsi.nexus import Answer, Broken

PLACES = DISK_BYTES // WRITE_BYTES
LUN = 1
AFTER_AN_ERROR_S = 0.01
ANSWERS_WITHIN_S = 3600.0


class Disk:
    def __init__(self, portal: Portal, stamps: Stamps, first: int) -> None:
        self._portal = portal
        self._stamps = stamps
        self._number = first
        self._under_way: list[Answer] = []
        self.session = self._login()

    def _login(self) -> Session:
        return Session(self._portal, time.monotonic() + ANSWERS_WITHIN_S)

    def write(self, in_flight: int) -> None:
        """Until the session breaks. It rests after an error, but not before all answers came: a rest would make the
        others late."""
        failed = False
        while True:
            while len(self._under_way) < in_flight and not failed:
                self._under_way.append(self._begin())
            self.session.pump(lambda: any(answer.is_there for answer in self._under_way))
            now = time.monotonic()
            there = [answer for answer in self._under_way if answer.is_there]
            self._under_way = [answer for answer in self._under_way if not answer.is_there]
            for answer in there:
                if answer.status == scsi.GOOD:
                    self._stamps.add(now)
            failed |= any(answer.status != scsi.GOOD and not to_be_sent_again(answer) for answer in there)
            if failed and not self._under_way:
                time.sleep(AFTER_AN_ERROR_S)
                failed = False

    def anew(self) -> None:
        self.session.close()
        self._under_way = []
        self.session = self._login()

    def _begin(self) -> Answer:
        """The newest number is at the place that was written longest ago."""
        self._number += 1
        block = self._number % PLACES * (WRITE_BYTES // BLOCK)
        data = self._number.to_bytes(8) + bytes(WRITE_BYTES - 8)
        return self.session.begin(LUN, write(block, data), data)


def main(portal: str, host: str, key: str, stamps: str, first: str, in_flight: str) -> None:
    # An answer that waits for a processor would be stamped later than it came, and count against the driver.
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    disk = Disk(Portal(portal, TARGET, f"iqn.2026-01.example.vmhad:{host}"), Stamps(Path(stamps)), int(first))
    lun = Lun(disk.session, LUN)
    lun.look()
    lun.register(int(key, 16))
    while True:
        try:
            disk.write(int(in_flight))
        except Broken:
            time.sleep(AFTER_AN_ERROR_S)
        try:
            disk.anew()
        except Broken:
            time.sleep(AFTER_AN_ERROR_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
