# SPDX-License-Identifier: Apache-2.0
"""One LUN within one session: what is registered there, and the acts that change it.

The rule kept: a status is no proof. Every act here says only whether it has to be looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmhad.drivers.storage import scsi_bytes as scsi
from vmhad.drivers.storage.iscsi_session import Answer, Broken, Session
from vmhad.drivers.storage.scsi_bytes import In, Keys, Kind, Out, Reservation
from vmhad.drivers.storage.scsi_settings import Marks

# Each of them is said once a session and LUN, and a few may wait.
ATTENTIONS_MAX = 8
LOOKS_MAX = 5


class Declined(Exception):
    """The target understood and will not."""


class Overtaken(Exception):
    """Somebody else changed the registrations meanwhile."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Registrations and reservation of one moment."""

    keys: frozenset[int]
    reservation: Reservation


class Lun:
    """Raises Broken, Declined, Overtaken, Garbled."""

    def __init__(self, session: Session, number: int) -> None:
        self._session = session
        self._number = number

    def look(self) -> Seen:
        """Both answers are of the same moment: the generation did not move between them."""
        self._must_be_there()
        before = self._keys()
        for _ in range(LOOKS_MAX):
            reservation = scsi.reservation_of(self._read(scsi.reserve_in(In.READ_RESERVATION, 24), 24))
            after = self._keys()
            if after == before and reservation.generation == after.generation:
                return Seen(frozenset(after.keys), reservation)
            before = after
        raise Overtaken("its registrations do not keep still")

    def register(self, key: int) -> None:
        """This nexus, whatever it was registered with."""
        self._out(Out.REGISTER_AND_IGNORE, 0, key)

    def reserve(self, key: int, kind: int) -> None:
        self._out(Out.RESERVE, key, 0, kind)

    def preempt(self, key: int, victim: int, kind: int) -> None:
        """No nexus is registered with the victim's key any more; its commands that were begun go on."""
        self._out(Out.PREEMPT, key, victim, kind)

    def preempt_and_abort(self, key: int, victim: int, kind: int) -> bool:
        """False: this target does not do that, and nothing was changed."""
        try:
            self._out(Out.PREEMPT_AND_ABORT, key, victim, kind)
        except Declined:
            return False
        return True

    def reset(self) -> None:
        """Whatever was begun on it ended, landed or not. The registrations stay."""
        if not self._session.lun_reset(self._number):
            raise Declined("LUN RESET was declined")

    def _must_be_there(self) -> None:
        answer = self._command(scsi.inquiry(), wanted=scsi.INQUIRY_BYTES)
        if answer.status != scsi.GOOD or not scsi.is_disk(answer.data):
            raise Declined("there is no such disk")

    def _keys(self) -> Keys:
        return scsi.keys_of(self._read(scsi.reserve_in(In.READ_KEYS, scsi.READ_MAX), scsi.READ_MAX))

    def _read(self, cdb: bytes, wanted: int) -> bytes:
        answer = self._command(cdb, wanted=wanted)
        self._good(answer)
        return answer.data

    def _out(self, action: Out, key: int, action_key: int, kind: int = 0) -> None:
        self._good(self._command(scsi.reserve_out(action, kind), scsi.parameters(key, action_key)))

    def _command(self, cdb: bytes, out: bytes = b"", wanted: int = 0) -> Answer:
        """A unit attention says what happened before, and that the command was not begun."""
        for _ in range(ATTENTIONS_MAX):
            answer = self._session.command(self._number, cdb, out, wanted)
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


def is_cut(seen: Seen, victims: frozenset[int], marks: Marks) -> bool:
    """A mark of another state says that somebody is at it, or died at it."""
    return seen.keys & marks.all == {marks.cut} and not victims & seen.keys and seen.reservation.keeps_out


def cut(lun: Lun, victims: frozenset[int], marks: Marks) -> None:
    """While a write of the victims may yet land, «begun» stands among the keys: whoever takes it away can only be
    another cut, which then has to end the writes itself."""
    seen = lun.look()
    if is_cut(seen, victims, marks):
        return
    lun.register(marks.begun)
    held: int = seen.reservation.kind
    if not seen.reservation.keeps_out:
        held = Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY
        lun.reserve(marks.begun, held)
    for old in sorted(marks.all & seen.keys):
        lun.preempt(marks.begun, old, held)
    there = victims & lun.look().keys
    aborted = bool(there)
    for victim in sorted(there):
        if not lun.preempt_and_abort(marks.begun, victim, held):
            lun.preempt(marks.begun, victim, held)
            aborted = False
    if not aborted:
        lun.reset()
    seen = lun.look()
    if victims & seen.keys or not seen.reservation.keeps_out:
        raise Overtaken("its key is still registered, or was again meanwhile")
    lun.register(marks.cut)


def restore(lun: Lun, marks: Marks) -> None:
    """Leaves a mark that nothing keeps the host from registering again; its old nexuses stay unregistered."""
    seen = lun.look()
    taken_back = seen.keys & {marks.begun, marks.cut}
    if not taken_back:
        return
    lun.register(marks.opened)
    # Where one of these holds the reservation, it goes over to who preempts it.
    for old in sorted(taken_back):
        lun.preempt(marks.opened, old, seen.reservation.kind)
