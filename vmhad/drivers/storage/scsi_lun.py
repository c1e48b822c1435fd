# SPDX-License-Identifier: Apache-2.0
"""One LUN within one session: what is registered there, and the acts that change it.

The rule kept: a status is no proof. Every act here says only whether it has to be looked at again.
"""

from __future__ import annotations

from collections import Counter
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
    """Registrations and reservation of one moment. doubled: the keys that more than one nexus is registered with."""

    keys: frozenset[int]
    reservation: Reservation
    doubled: frozenset[int] = frozenset()


class Lun:
    """Raises Broken, Declined, Overtaken, Garbled."""

    def __init__(self, session: Session, number: int) -> None:
        self._session = session
        self._number = number
        self._persists: bool | None = None

    def look(self) -> Seen:
        """Both answers are of the same moment: the generation did not move between them."""
        self._must_be_there()
        before = self._keys()
        for _ in range(LOOKS_MAX):
            reservation = scsi.reservation_of(self._read(scsi.reserve_in(In.READ_RESERVATION, 24), 24))
            after = self._keys()
            if after == before and reservation.generation == after.generation:
                doubled = frozenset(key for key, count in Counter(after.keys).items() if count > 1)
                return Seen(frozenset(after.keys), reservation, doubled)
            before = after
        raise Overtaken("its registrations do not keep still")

    def register(self, key: int) -> None:
        """This nexus, whatever it was registered with."""
        if self._persists is None:
            self._persists = self._can_persist()
        cdb = scsi.reserve_out(Out.REGISTER_AND_IGNORE)
        self._good(self._command(cdb, scsi.parameters(0, key, self._persists)))

    def reserve(self, key: int, kind: int) -> None:
        self._out(Out.RESERVE, key, 0, kind)

    def preempt(self, key: int, victim: int, kind: int) -> None:
        """No nexus is registered with the victim's key any more; its commands that were begun go on. kind 0: there is
        no reservation, and no type of one is right, but some targets want one."""
        self._out(Out.PREEMPT, key, victim, kind or Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)

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

    def _can_persist(self) -> bool:
        """Not every target answers that."""
        try:
            return scsi.can_persist(self._read(scsi.reserve_in(In.REPORT_CAPABILITIES, 8), 8))
        except Declined:
            return False

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


def cut(actor: Lun, holder: Lun, victims: frozenset[int], marks: Marks) -> None:
    """actor: the nexus that acts, for all hosts, so that it alone may come to hold the reservation: LIO takes any other
    nexus of the name that holds it for one that is not registered. holder: the nexus that holds the mark.

    While a write of the victims may yet land the mark says «begun», and afterwards, at last, «cut»."""
    seen = actor.look()
    if is_cut(seen, victims, marks):
        return
    held: int = seen.reservation.kind
    _ready(actor, marks.actor, held)
    holder.register(marks.begun)
    if not seen.reservation.keeps_out:
        held = Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY
        actor.reserve(marks.actor, held)
    seen = actor.look()
    for old in sorted(marks.all & seen.keys - {marks.begun} | marks.all & seen.doubled):
        actor.preempt(marks.actor, old, held)
    if marks.begun in seen.doubled:
        holder.register(marks.begun)
    for victim in sorted(victims & actor.look().keys):
        if not actor.preempt_and_abort(marks.actor, victim, held):
            actor.preempt(marks.actor, victim, held)
    # Also where it says that it aborted: LIO does so only for who holds the reservation, and the others' writes land.
    actor.reset()
    seen = actor.look()
    if victims & seen.keys or not seen.reservation.keeps_out:
        raise Overtaken("its key is still registered, or was again meanwhile")
    holder.register(marks.cut)


def restore(actor: Lun, holder: Lun, marks: Marks) -> None:
    """Leaves a mark that nothing keeps the host from registering again; its old nexuses stay unregistered."""
    seen = actor.look()
    if not seen.keys & {marks.begun, marks.cut}:
        return
    _ready(actor, marks.actor, seen.reservation.kind)
    holder.register(marks.opened)
    for old in sorted(actor.look().keys & {marks.begun, marks.cut}):
        actor.preempt(marks.actor, old, seen.reservation.kind)


def _ready(actor: Lun, key: int, kind: int) -> None:
    """Where a new session is a new nexus, as tgt has it, the one before is still registered and may hold the
    reservation, which goes over to who preempts it."""
    actor.register(key)
    if key in actor.look().doubled:
        actor.preempt(key, key, kind)
