# SPDX-License-Identifier: Apache-2.0
"""A LUN by the rules of SPC-4, as a value, and two parties that send commands to it in every order there is.

A party is shipped code that was never written to be stopped between two commands: it is begun anew each time, gets the
answers that it got before, and says what it sends next. So a state is what the LUN is, and the answers so far.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from vmhad.scsi import scsi_bytes as scsi
from vmhad.scsi.nexus import Answer
from vmhad.scsi.scsi_bytes import In, Out

RESET = b"LUN RESET"
ATTENTION = (scsi.CHECK_CONDITION, b"", (scsi.UNIT_ATTENTION, 0x2903))
CONFLICT = (scsi.RESERVATION_CONFLICT, b"", (0, 0))
GOOD = (scsi.GOOD, b"", (0, 0))
Said = tuple[int, bytes, tuple[int, int]]


@dataclass(frozen=True)
class Sent:
    nexus: str
    cdb: bytes
    out: bytes = b""


@dataclass(frozen=True)
class ModelLun:
    """registered: nexus and key of each. holder, kind: of the reservation. attentions: who was not told yet."""

    registered: frozenset[tuple[str, int]] = frozenset()
    holder: str = ""
    kind: int = 0
    attentions: frozenset[str] = frozenset()
    generation: int = 0

    @property
    def keys(self) -> frozenset[int]:
        return frozenset(key for _, key in self.registered)

    def key_of(self, nexus: str) -> int:
        return next((key for one, key in self.registered if one == nexus), 0)

    def takes_writes_of(self, nexus: str) -> bool:
        return not self.kind or bool(self.key_of(nexus))

    def told(self, nexus: str) -> ModelLun:
        """Another command of that nexus took the unit attention."""
        return replace(self, attentions=self.attentions - {nexus})

    def after(self, sent: Sent, nexuses: frozenset[str]) -> tuple[ModelLun, Said]:
        if sent.cdb == RESET:
            return replace(self, attentions=nexuses), GOOD
        if sent.cdb[0] == 0x12:
            return self, (scsi.GOOD, bytes(scsi.INQUIRY_BYTES), (0, 0))
        if sent.nexus in self.attentions:
            return self.told(sent.nexus), ATTENTION
        if sent.cdb[0] == 0x5E:
            return self, (scsi.GOOD, self._said(In(sent.cdb[1])), (0, 0))
        key, action_key, *_ = scsi.PARAMETERS.unpack(sent.out)
        return self._changed(Out(sent.cdb[1]), sent, key, action_key)

    def _said(self, action: In) -> bytes:
        if action is In.READ_KEYS:
            keys = sorted(key for _, key in self.registered)
            return struct.pack(f">II{len(keys)}Q", self.generation, 8 * len(keys), *keys)
        if action is In.READ_RESERVATION:
            if not self.kind:
                return struct.pack(">II", self.generation, 0)
            return struct.pack(">IIQ4xBB2x", self.generation, 16, self.key_of(self.holder), 0, self.kind)
        return b"\0\x08\x01\x01\0\0\0\0"

    def _changed(self, action: Out, sent: Sent, key: int, action_key: int) -> tuple[ModelLun, Said]:
        mine = self.key_of(sent.nexus)
        if action is Out.REGISTER_AND_IGNORE:
            return self._with(sent.nexus, action_key), GOOD
        if key != mine:
            return self, CONFLICT
        if action is Out.REGISTER:
            return self._with(sent.nexus, action_key), GOOD
        if not mine:
            return self, CONFLICT
        if action is Out.RESERVE:
            if self.kind:
                return self, GOOD if self.holder == sent.nexus else CONFLICT
            return replace(self, holder=sent.nexus, kind=sent.cdb[2] & 0x0F), GOOD
        return self._preempted(sent.nexus, action_key)

    def _with(self, nexus: str, key: int) -> ModelLun:
        rest = frozenset(one for one in self.registered if one[0] != nexus)
        generation = self.generation + 1
        if key:
            return replace(self, registered=rest | {(nexus, key)}, generation=generation)
        kept = {} if self.holder != nexus else {"holder": "", "kind": 0}
        return replace(self, registered=rest, generation=generation, **kept)

    def _preempted(self, nexus: str, victim: int) -> tuple[ModelLun, Said]:
        gone = frozenset(one for one in self.registered if one[1] == victim and one[0] != nexus)
        if not gone:
            return self, CONFLICT
        names = frozenset(one for one, _ in gone)
        holder = nexus if self.holder in names else self.holder
        attentions = self.attentions | names
        left = self.registered - gone
        changed = replace(self, registered=left, holder=holder, attentions=attentions, generation=self.generation + 1)
        return changed, GOOD


class Waits(BaseException):
    """The party has sent something that was not answered yet."""

    def __init__(self, sent: Sent) -> None:
        super().__init__()
        self.sent = sent


class Replayed:
    """One way of a party: nexus.Way and the driver's session. answers: in their order, of all ways of the party."""

    def __init__(self, nexus: str, answers: list[Said]) -> None:
        self._nexus = nexus
        self._answers = answers

    def command(self, lun: int, cdb: bytes, out: bytes = b"", wanted: int = 0) -> Answer:
        status, data, sense = self._next(Sent(self._nexus, cdb, out))
        return Answer(status, data, sense)

    def lun_reset(self, lun: int) -> bool:
        self._next(Sent(self._nexus, RESET))
        return True

    def _next(self, sent: Sent) -> Said:
        if not self._answers:
            raise Waits(sent)
        return self._answers.pop(0)


class Direct:
    """nexus.Way to a LUN that changes as it is told, without anybody between."""

    def __init__(self, nexus: str, lun: ModelLun, nexuses: frozenset[str]) -> None:
        self._nexus, self.lun, self._nexuses = nexus, lun, nexuses

    def command(self, lun: int, cdb: bytes, out: bytes = b"", wanted: int = 0) -> Answer:
        self.lun, (status, data, sense) = self.lun.after(Sent(self._nexus, cdb, out), self._nexuses)
        return Answer(status, data, sense)


@dataclass(frozen=True)
class Step:
    """What a party is at: what it sends next, or how it ended. noted: what it has written down by then."""

    sent: Sent | None
    result: Hashable = None
    noted: str = ""


class Party:
    """Where a party may be, by the answers that it got; 0: at its beginning. runs: takes the answers, and what it is to
    write down with."""

    def __init__(self, runs: Callable[[list[Said], Callable[[str], None]], Hashable]) -> None:
        self._runs = runs
        self._answers: list[tuple[Said, ...]] = [()]
        self._after: dict[tuple[int, Said], int] = {}
        self._steps: dict[int, Step] = {}

    def step(self, at: int) -> Step:
        if at not in self._steps:
            noted = [""]
            try:
                result, sent = self._runs(list(self._answers[at]), noted.append), None
            except Waits as waits:
                result, sent = None, waits.sent
            self._steps[at] = Step(sent, result, noted[-1])
        return self._steps[at]

    def after(self, at: int, said: Said) -> int:
        if (at, said) not in self._after:
            self._after[at, said] = len(self._answers)
            self._answers.append((*self._answers[at], said))
        return self._after[at, said]

    def alone(self, lun: ModelLun, nexuses: frozenset[str]) -> tuple[ModelLun, Step]:
        """To its end, while nobody else speaks."""
        at = 0
        while (now := self.step(at)).sent is not None:
            lun, said = lun.after(now.sent, nexuses)
            at = self.after(at, said)
        return lun, now
