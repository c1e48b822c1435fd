# SPDX-License-Identifier: Apache-2.0
"""On which LUNs this host was registered since it booted: what an agent that starts again must know of the one before.

Rule kept: it is written before a registration is sent. Who cannot remember one does not make it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol


class Kept(Protocol):
    """A text that outlives the agent, but not the boot of its host."""

    def read(self) -> str:
        """'' where there is none."""

    def write(self, text: str) -> None:
        """As a whole or not at all. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Known:
    """Of one LUN. registered: its key was there in this boot, or a cut of the host was. opened: the mark that a cut was
    taken back stood there when it was registered, so it says nothing of what was taken away after that. begun: the
    paths whose registration was begun, and not looked at afterwards; left: an agent that is gone left some so. turn:
    the registrations of an earlier one may be gone."""

    registered: bool = False
    opened: bool = False
    begun: frozenset[str] = field(default_factory=frozenset)
    left: bool = False
    turn: int = 0


class LunMemory:
    """Asked and told from several threads. What changes it raises OSError where it cannot be kept; then it stands."""

    def __init__(self, kept: Kept, boot: str) -> None:
        self._kept = kept
        self._boot = boot
        self._lock = threading.Lock()
        self._known: dict[str, Known] = _read(kept.read(), boot)

    def of(self, lun: str) -> Known:
        return self._known.get(lun, Known())

    def luns(self) -> tuple[str, ...]:
        return tuple(sorted(self._known.copy()))

    def begin(self, lun: str, path: str) -> None:
        with self._lock:
            known = self.of(lun)
            self._put(lun, replace(known, begun=known.begun | {path}))

    def was_not_begun(self, lun: str, path: str) -> None:
        with self._lock:
            known = self.of(lun)
            self._put(lun, replace(known, begun=known.begun - {path}))

    def done(self, lun: str, path: str, opened: bool) -> int:
        """The turn that this registration is of."""
        with self._lock:
            known = self.of(lun)
            self._put(lun, replace(known, registered=True, opened=opened, begun=known.begun - {path}))
            return known.turn

    def gone(self, lun: str, opened: bool, left: bool = False) -> None:
        """Its registrations are not there any more, or will not be."""
        with self._lock:
            known = self.of(lun)
            self._put(lun, replace(known, registered=True, opened=opened, left=left, turn=known.turn + 1))

    def no_cut_stood(self, lun: str) -> None:
        """Since the agent that is gone left it: a cut that begins later finds what it registered."""
        with self._lock:
            if self.of(lun).left:
                self._put(lun, replace(self.of(lun), left=False))

    def forget(self, lun: str) -> None:
        with self._lock:
            self._put(lun, None)

    def _put(self, lun: str, known: Known | None) -> None:
        """A turn is not kept: an agent that starts again knows of no registration of its own."""
        changed = {name: one for name, one in self._known.items() if name != lun}
        if known is not None:
            changed[lun] = known
        lasting = _rows(changed)
        if lasting != _rows(self._known):
            self._kept.write(json.dumps({"boot": self._boot, "luns": lasting}, sort_keys=True))
        self._known = changed


class KeptFile:
    """In a folder of /run, which is empty after a boot."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        try:
            return self._path.read_text()
        except FileNotFoundError:
            return ""

    def write(self, text: str) -> None:
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.write_text(text)
        os.replace(fresh, self._path)


def _rows(known: Mapping[str, Known]) -> dict[str, object]:
    return {
        lun: {"registered": one.registered, "opened": one.opened, "begun": bool(one.begun) or one.left}
        for lun, one in known.items()
    }


def _read(text: str, boot: str) -> dict[str, Known]:
    """A registration that was begun counts as made. Raises ValueError where it is no text of ours."""
    if not text:
        return {}
    said = json.loads(text)
    try:
        rows = said["luns"] if said["boot"] == boot else {}
        return {
            lun: Known(row["registered"] or row["begun"], row["opened"], left=row["begun"]) for lun, row in rows.items()
        }
    except (KeyError, TypeError, AttributeError):
        raise ValueError("it was not written by an agent") from None
