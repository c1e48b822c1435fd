# SPDX-License-Identifier: Apache-2.0
"""One nexus with one LUN, whichever way its commands go: reads the keys, and registers and unregisters itself alone.

The rule kept: a status is no proof. And what is not begun because of a unit attention is told apart from what is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vmhad.scsi import scsi_bytes as scsi
from vmhad.scsi.scsi_bytes import In, Keys, Out

# Each of them is said once a nexus and LUN, and a few may wait.
ATTENTIONS_MAX = 8


class Broken(Exception):
    """The way does not answer (any more); says nothing about what was sent last."""


class Declined(Exception):
    """The target understood and will not."""


class Overtaken(Exception):
    """Somebody else changed the registrations meanwhile."""


class Stirred(Exception):
    """A unit attention was in the way: something happened on the LUN, and the command was not begun."""


@dataclass(slots=True)
class Answer:
    """status: as SCSI has it; -1 while it is not there. sense: key and additional code, 0 if none."""

    status: int = -1
    data: bytes = b""
    sense: tuple[int, int] = (0, 0)

    @property
    def is_there(self) -> bool:
        return self.status >= 0


class Way(Protocol):
    """By which commands reach the LUNs of one target from one port."""

    def command(self, lun: int, cdb: bytes, out: bytes = b"", wanted: int = 0) -> Answer:
        """wanted: as many bytes as the answer may have. Raises Broken where there is no answer."""


class Nexus:
    """Raises Broken, Declined, Overtaken, Garbled."""

    def __init__(self, way: Way, number: int) -> None:
        self._way = way
        self._number = number

    def keys(self) -> Keys:
        return scsi.keys_of(self._read(scsi.reserve_in(In.READ_KEYS, scsi.READ_MAX), scsi.READ_MAX))

    def can_persist(self) -> bool:
        """Through a power cut of the target. Not every target answers that."""
        try:
            return scsi.can_persist(self._read(scsi.reserve_in(In.REPORT_CAPABILITIES, 8), 8))
        except Declined:
            return False

    def register_new(self, key: int, persists: bool) -> bool:
        """Where this nexus has no registration. False: it has one, and nothing was changed. Raises Stirred."""
        return self._exchange(0, key, persists)

    def confirm(self, key: int, persists: bool) -> bool:
        """False: this nexus is not registered with that key, and nothing was changed. Raises Stirred."""
        return self._exchange(key, key, persists)

    def unregister(self, key: int, persists: bool) -> bool:
        """False: this nexus is not registered with that key (any more). What it was told before is no hindrance."""
        for _ in range(ATTENTIONS_MAX):
            try:
                return self._exchange(key, 0, persists)
            except Stirred:
                continue
        raise Broken("it does not get ready for a command")

    def _exchange(self, old: int, new: int, persists: bool) -> bool:
        """REGISTER compares and changes at once: where this nexus has another key than the old one it changes
        nothing."""
        parameters = scsi.parameters(old, new, persists)
        answer = self._way.command(self._number, scsi.reserve_out(Out.REGISTER), parameters)
        if answer.sense[0] == scsi.UNIT_ATTENTION:
            raise Stirred("something happened on it since it was looked at")
        if answer.status == scsi.RESERVATION_CONFLICT:
            return False
        self._good(answer)
        return True

    def _read(self, cdb: bytes, wanted: int) -> bytes:
        answer = self._command(cdb, wanted=wanted)
        self._good(answer)
        return answer.data

    def _command(self, cdb: bytes, out: bytes = b"", wanted: int = 0) -> Answer:
        """A unit attention says what happened before, and that the command was not begun."""
        for _ in range(ATTENTIONS_MAX):
            answer = self._way.command(self._number, cdb, out, wanted)
            if answer.status not in (scsi.BUSY, scsi.TASK_SET_FULL) and answer.sense[0] != scsi.UNIT_ATTENTION:
                return answer
        raise Broken("it does not get ready for a command")

    @staticmethod
    def _good(answer: Answer) -> None:
        if answer.status == scsi.RESERVATION_CONFLICT:
            raise Overtaken("a reservation or a registration is in the way")
        if answer.sense[0] == scsi.ILLEGAL_REQUEST:
            raise Declined("the target does not do that")
        if answer.status != scsi.GOOD:
            raise Broken(f"status 0x{answer.status:02x}, sense 0x{answer.sense[0]:x}")
