# SPDX-License-Identifier: Apache-2.0
"""One LUN within one session: what is registered there, and the acts that change it.

The rule kept: a status is no proof. Every act here says only whether it has to be looked at again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from vmhad.scsi import scsi_bytes as scsi
from vmhad.scsi.marks import Marks
from vmhad.scsi.nexus import Declined, Nexus, Overtaken, Way
from vmhad.scsi.scsi_bytes import In, Kind, Out, Reservation

LOOKS_MAX = 5


class Session(Way, Protocol):
    def lun_reset(self, lun: int) -> bool:
        """Ends all commands of all initiators that this LUN has begun. False: the target declined."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Registrations and reservation of one moment. doubled: the keys that more than one nexus is registered with."""

    keys: frozenset[int]
    reservation: Reservation
    doubled: frozenset[int] = frozenset()


class Lun(Nexus):
    """Raises Broken, Declined, Overtaken, Garbled."""

    def __init__(self, session: Session, number: int) -> None:
        super().__init__(session, number)
        self._session = session
        self._persists: bool | None = None

    def look(self) -> Seen:
        """Both answers are of the same moment: the generation did not move between them."""
        self._must_be_there()
        before = self.keys()
        for _ in range(LOOKS_MAX):
            reservation = scsi.reservation_of(self._read(scsi.reserve_in(In.READ_RESERVATION, 24), 24))
            after = self.keys()
            if after == before and reservation.generation == after.generation:
                doubled = frozenset(key for key, count in Counter(after.keys).items() if count > 1)
                return Seen(frozenset(after.keys), reservation, doubled)
            before = after
        raise Overtaken("its registrations do not keep still")

    def register(self, key: int) -> None:
        """This nexus, whatever it was registered with."""
        if self._persists is None:
            self._persists = self.can_persist()
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

    def _out(self, action: Out, key: int, action_key: int, kind: int = 0) -> None:
        self._good(self._command(scsi.reserve_out(action, kind), scsi.parameters(key, action_key)))


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
