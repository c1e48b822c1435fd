# SPDX-License-Identifier: Apache-2.0
"""What one eye of the agent knows, and the thread that it looks with.

Rule kept: whoever makes the beat only takes what an eye has ready. An eye that hangs is one whose word grows old, and
each eye says itself what an old word means.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from vmhad.agent.bootclock import boot_s
from vmhad.kernel.beat import Domain, Dump, Plane, StorageBeat, Unit
from vmhad.kernel.signal import Reading

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """The part of a beat that one eye sees; what it does not look at stays empty. planes: peer -> plane -> reading.
    records: peer -> storage -> its record there. dumps: peer -> what its crash kernel says. The other
    fields are those of a Beat."""

    services: Mapping[str, Reading] = field(default_factory=dict)
    storages: Mapping[str, Reading] = field(default_factory=dict)
    planes: Mapping[str, Mapping[Plane, Reading]] = field(default_factory=dict)
    records: Mapping[str, Mapping[str, StorageBeat]] = field(default_factory=dict)
    dumps: Mapping[str, Dump] = field(default_factory=dict)
    domains: Mapping[str, Domain] | None = None
    hardware: tuple[str, ...] = ()
    units: Mapping[str, Unit] = field(default_factory=dict)


class Eye(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None:
        """Asks its threads to end and waits for none: one may hang."""

    def tell(self, now: float) -> Told:
        """now: boot_s(). Never blocks, never raises."""


class Rounds:
    """A thread that looks again and again. What a look raises is logged when it is new, and the next round comes."""

    def __init__(self, name: str, look: Callable[[], None], interval_s: float, apart_s: float = 0.0) -> None:
        """apart_s: two looks never begin closer than this, however often it is nudged."""
        self._look = look
        self._interval_s = interval_s
        self._apart_s = apart_s
        self._ending = threading.Event()
        self._bell = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._bell.set()

    def join(self, limit_s: float) -> bool:
        """True if the thread has ended."""
        self._thread.join(limit_s)
        return not self._thread.is_alive()

    def nudge(self) -> None:
        """The next look begins as soon as it may."""
        self._bell.set()

    def _run(self) -> None:
        said = ""
        while not self._ending.is_set():
            began = boot_s()
            self._bell.clear()
            try:
                self._look()
                said = ""
            except Exception as error:
                if said != (said := f"{type(error).__name__}: {error}"):
                    LOG.exception("a look of the agent failed (%s); it is tried again", self._thread.name)
            if self._ending.wait(max(0.0, began + self._apart_s - boot_s())):
                return
            self._bell.wait(max(0.0, began + self._interval_s - boot_s()))
