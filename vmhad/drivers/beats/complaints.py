# SPDX-License-Identifier: Apache-2.0
"""What was dropped, told once a minute for each host that it claims to come from, and never what it holds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

LOG = logging.getLogger(__name__)
EVERY_S = 60.0


class Complaints:
    """hosts: those that there are. A claimed name that is not one of them may be anything, and is not repeated."""

    def __init__(self, hosts: Collection[str]) -> None:
        self._hosts = frozenset(hosts)
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}
        self._details: dict[tuple[str, str], str] = {}
        self._told_at: dict[tuple[str, str], float] = {}

    def add(self, claims: str, why: str, detail: str = "") -> None:
        """why: one of a few sentences, so that the memory is bounded. detail: the newest one is told."""
        host = f"host {claims}" if claims in self._hosts else "a host of no segment here"
        with self._lock:
            self._counts[host, why] = self._counts.get((host, why), 0) + 1
            self._details[host, why] = detail

    def tell(self, now: float) -> None:
        """The first of a kind at once, the rest by the minute."""
        with self._lock:
            due = sorted(kind for kind in self._counts if now - self._told_at.get(kind, -EVERY_S) >= EVERY_S)
            told = [(kind, self._counts.pop(kind), self._details.pop(kind)) for kind in due]
            self._told_at.update(dict.fromkeys(due, now))
        for (host, why), count, detail in told:
            LOG.warning("%d beats in the name of %s were dropped: %s", count, host, f"{why} {detail}".strip())
