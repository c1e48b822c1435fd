# SPDX-License-Identifier: Apache-2.0
"""VMs that went off without a word: a notification may be lost, and a host may reboot faster than anybody notices.

So Nova is asked for the servers that stopped lately, every EVERY_S. Where one is new among them its host is asked
whether Nova itself switched it off; nothing is concluded here. What stopped longer than REACHES_BACK_S ago is left to
its user: it may have been off for weeks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from vmhad.kernel.cloud import Server
from vmhad.ports import Compute

EVERY_S = 30.0
# Whoever has just taken over has more urgent things to read.
FIRST_AFTER_S = 10.0
# An engine that was away for longer than this does not find what it missed before.
REACHES_BACK_S = 600.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """The servers that stopped lately, as read at a time."""

    at: float
    servers: tuple[Server, ...]


@dataclass
class StoppedLook:
    """known: those that were there when last asked, and when Nova changed them last: one that was started and fell
    again in between is another."""

    compute: Compute
    known: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    asked_at: float = -inf
    read_at: float = -inf

    def due(self, now: float) -> Callable[[], Stopped] | None:
        """The call to be made elsewhere, if it is time."""
        if self.asked_at == -inf:
            self.asked_at = now - EVERY_S + FIRST_AFTER_S
        if now < self.asked_at + EVERY_S:
            return None
        self.asked_at = now
        # What stopped while Nova did not answer is asked for as well.
        within_s = max(REACHES_BACK_S, now - self.read_at + EVERY_S) if self.read_at > -inf else REACHES_BACK_S
        return lambda: Stopped(now, self.compute.stopped_lately(within_s))

    def take(self, stopped: Stopped) -> frozenset[str]:
        """The hosts of those that were not there before."""
        fresh = [one for one in stopped.servers if (one.id, one.updated_at) not in self.known]
        self.known, self.read_at = frozenset((one.id, one.updated_at) for one in stopped.servers), stopped.at
        return frozenset(one.host for one in fresh if one.host)
