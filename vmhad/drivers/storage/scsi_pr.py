# SPDX-License-Identifier: Apache-2.0
"""Cuts hosts off LUNs by SCSI-3 persistent reservations, over iSCSI sessions of its own.

A LUN whose reservation is of a «registrants only» or «all registrants» type takes writes of registered nexuses alone.
Each nexus of a host is registered with the host's key, by the host. To cut it off is to preempt that key, and to end
what its nexuses had begun: by PREEMPT AND ABORT where the target knows it, and always by a LUN RESET, which costs other
users of the same LUN the commands they have under way (they are told, and send them again).

Rules kept. CUT is read from the LUN: no key of the host, a reservation that keeps out who is not registered, and our
mark that the cut was complete, which is a registration too and outlives the engine. A host that has neither a key nor
a mark on a LUN was never seen there: its nexuses may be known by another key, so that it is UNKNOWN. A host that
registers itself again reads OPEN: no target can refuse a registration, so that its agent has to look for the mark.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from vmhad.drivers.storage import scsi_lun
from vmhad.drivers.storage.iscsi_session import NoLibrary, Session
from vmhad.drivers.storage.scsi_lun import Lun, Seen
from vmhad.drivers.storage.scsi_settings import Target, clients_of, settings_of
from vmhad.kernel.signal import Access
from vmhad.ports import Refused, Unanswered
from vmhad.scsi.marks import ACTOR_PORT, Marks, marks_of
from vmhad.scsi.nexus import Broken, Declined, Overtaken
from vmhad.scsi.scsi_bytes import Garbled

# What a look before the cut may take of its time, so that a target that hangs leaves enough for the others.
LOOK_SHARE = 0.4
CLOSING_S = 0.5
# With as many LUNs, each of a session of its own to the same LUN, as there are ports.
Act = Callable[..., Seen | None]


@dataclass(frozen=True, slots=True)
class Told:
    """What one LUN said, or why it said nothing."""

    where: str
    target: Target
    seen: Seen | None = None
    trouble: str = ""


class ScsiPr:
    """ports.Storage. Every call has sessions of its own. Reads may run side by side; what changes something waits."""

    def __init__(
        self, name: str, settings: Mapping[str, object], clients: Mapping[str, tuple[str, ...]], timeout_s: float
    ) -> None:
        """clients: host -> the keys that its nexuses are registered with. Raises ValueError."""
        self._name = name
        self._settings = settings_of(settings)
        self._clients = clients_of(clients, self._settings.prefix)
        self._timeout_s = timeout_s
        self._acting = threading.Lock()

    def read(self, host: str) -> tuple[Access, str]:
        keys = self._clients.get(host)
        if not keys:
            return Access.UNKNOWN, f"{self._name}: no reservation key of {host} is configured"
        told = self._all(self._settings.targets, (None,), _look, self._until(1.0))
        return self._judged(host, keys, told)

    def cut(self, host: str) -> None:
        keys = self._known(host)
        until = self._until(1.0)
        marks = self._marks(host)
        told = self._all(self._settings.targets, (None,), _look, self._until(LOOK_SHARE))
        refusals = [words for one in told if (words := self._refusal(host, keys, one))]
        if refusals:
            raise Refused(f"{self._name}: {refusals[0]}")
        answering = {one.target for one in told if one.seen is not None}
        targets = [target for target in self._settings.targets if target in answering]
        done = self._act(targets, marks, lambda actor, holder: scsi_lun.cut(actor, holder, keys, marks), until)
        self._complain([*(one for one in told if one.target not in answering), *done])

    def restore(self, host: str) -> None:
        self._known(host)
        marks = self._marks(host)
        act: Act = lambda actor, holder: scsi_lun.restore(actor, holder, marks)  # noqa: E731
        self._complain(self._act(self._settings.targets, marks, act, self._until(1.0)))

    def _act(self, targets: Sequence[Target], marks: Marks, act: Act, until: float) -> list[Told]:
        """One at a time: two sessions of the acting port would end each other."""
        if not self._acting.acquire(timeout=max(0.0, until - time.monotonic())):
            raise Unanswered(f"{self._name}: what is done for other hosts takes too long")
        try:
            return self._all(targets, (ACTOR_PORT, marks.port), act, until)
        finally:
            self._acting.release()

    def _known(self, host: str) -> frozenset[int]:
        keys = self._clients.get(host)
        if not keys:
            raise Refused(f"{self._name}: no reservation key of {host} is configured")
        return keys

    def _marks(self, host: str) -> Marks:
        return marks_of(host, self._settings.prefix)

    def _until(self, share: float) -> float:
        return time.monotonic() + max(share * self._timeout_s - CLOSING_S, share * self._timeout_s / 2)

    def _judged(self, host: str, keys: frozenset[int], told: Sequence[Told]) -> tuple[Access, str]:
        """One LUN that is open makes the host open; each has to be cut."""
        views = [(*self._view(host, keys, one), one.where) for one in told]
        for access in (Access.OPEN, Access.UNKNOWN):
            for seen, words, where in views:
                if seen is access:
                    return access, f"{self._name}: {where}: {words}"
        return Access.CUT, (
            f"{self._name}: {len(views)} LUNs let only registered nexuses write, and none of {host} is registered"
        )

    def _view(self, host: str, keys: frozenset[int], one: Told) -> tuple[Access, str]:
        marks = self._marks(host)
        if one.seen is None:
            return Access.UNKNOWN, one.trouble
        if not one.seen.reservation.keeps_out:
            kind = one.seen.reservation.kind
            if kind:
                return Access.UNKNOWN, f"its reservation is of type {kind}, which is not ours to judge"
            return Access.OPEN, "no reservation stands, so that whoever logs in may write"
        if keys & one.seen.keys:
            return Access.OPEN, f"{host} is registered"
        if scsi_lun.is_cut(one.seen, keys, marks):
            return Access.CUT, f"{host} is not registered"
        there = one.seen.keys & marks.all
        if there == {marks.opened}:
            return Access.OPEN, f"the cut of {host} was taken back, and it may register"
        if there:
            return Access.UNKNOWN, f"a cut of {host} is not complete"
        return Access.UNKNOWN, f"the nexuses of {host} are not registered: nothing was cut"

    def _refusal(self, host: str, keys: frozenset[int], one: Told) -> str:
        """Why nothing may be changed there, or ''. Of a LUN that did not answer nothing is known."""
        if one.seen is None:
            return ""
        reservation = one.seen.reservation
        if reservation.kind and not reservation.keeps_out:
            return f"{one.where}: its reservation is of type {reservation.kind}, which does not let registrants write"
        if not one.seen.keys & (keys | self._marks(host).all):
            return f"{one.where}: the nexuses of {host} are not registered: nothing to cut"
        if reservation.keeps_out:
            return ""
        if not self._settings.reserves:
            return f"{one.where}: no reservation stands, and none is to be taken (reserve = never)"
        outside = [
            other
            for other, theirs in self._clients.items()
            if other != host and not one.seen.keys & (theirs | self._marks(other).all)
        ]
        if outside:
            return f"{one.where}: a reservation would cut off {outside[0]} too, which is not registered"
        return ""

    def _complain(self, told: Sequence[Told]) -> None:
        for one in told:
            if one.trouble:
                raise Unanswered(f"{self._name}: {one.where}: {one.trouble}")

    @staticmethod
    def _all(targets: Sequence[Target], ports: Sequence[int | None], act: Act, until: float) -> list[Told]:
        """Side by side, a thread for each target: all end when the time is up."""
        if not targets:
            return []
        with ThreadPoolExecutor(len(targets), "scsi-pr") as threads:
            answers = threads.map(lambda target: _at(target, ports, act, until), targets)
            return [one for answer in answers for one in answer]


def _look(lun: Lun) -> Seen:
    return lun.look()


def _at(target: Target, ports: Sequence[int | None], act: Act, until: float) -> list[Told]:
    """Of every LUN something is told. A portal that does not answer leaves time for the next one."""
    trouble = ""
    for number, portal in enumerate(target.portals):
        now = time.monotonic()
        with ExitStack() as opened:
            try:
                before = now + (until - now) / (len(target.portals) - number)
                sessions = [opened.enter_context(Session(portal, before, port)) for port in ports]
            except (Broken, NoLibrary) as error:
                trouble = f"{portal.address}: {error}"
                continue
            for session in sessions:
                session.deadline = until
            return [_told(target, lun, sessions, act) for lun in target.luns]
    return [Told(_where(target, lun), target, trouble=trouble) for lun in target.luns]


def _told(target: Target, number: int, sessions: Sequence[Session], act: Act) -> Told:
    where = _where(target, number)
    try:
        return Told(where, target, act(*(Lun(session, number) for session in sessions)))
    except (Broken, Declined, Overtaken, Garbled) as error:
        return Told(where, target, trouble=str(error))


def _where(target: Target, lun: int) -> str:
    return f"LUN {lun} of {target.name}"
