# SPDX-License-Identifier: Apache-2.0
"""What an operator asked for: a value in the journal that the segment's owner reads, never a call into an engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# Why an incident ended that an operator closed.
CLOSED_BY_ORDER = "closed by an operator's order"


class OrderKind(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    CLOSE = "close"
    CONFIRM_DOWN = "confirm_down"


@dataclass(frozen=True, slots=True)
class Order:
    """One order. host '': the whole segment. vm, service: the server, or the service of the host, whose own
    incident is meant; both '' for that of the host.

    until: Unix seconds, when a pause ends by itself; 0 for the other kinds.

    by: who asked; why: their words. Both are shown wherever the order holds something back.
    """

    id: str
    kind: OrderKind
    segment: str
    host: str = ""
    until: float = 0.0
    by: str = ""
    why: str = ""
    vm: str = ""
    service: str = ""

    @property
    def subject(self) -> str:
        """Whose incident it is for, as Incident has it."""
        return f"{self.host}/{self.service}" if self.service else self.vm or self.host
