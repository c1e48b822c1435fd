# SPDX-License-Identifier: Apache-2.0
"""What the evidence means, with the row of the table that said so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Judgement(StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    SUSPECT = "suspect"
    FAILED = "failed"
    BLIND = "blind"


class Ailment(StrEnum):
    """What is wrong with a host that lives and could have its VMs moved away."""

    TENANT_PLANE = "tenant_plane"
    HARDWARE = "hardware"


@dataclass(frozen=True, slots=True)
class Verdict:
    """row: the table's row, by its number from 1. positive: death was seen, not inferred from silence: its power was
    read OFF (is_off), or its storage beat stopped. unfit: it lives, and no VM may be sent to it. ailment: why
    it might be emptied. lives: its agent is heard, and so it does, whatever else is wrong."""

    judgement: Judgement
    because: str
    row: int
    positive: bool = False
    is_off: bool = False
    unfit: bool = False
    ailment: Ailment | None = None
    lives: bool = False

    @property
    def serves(self) -> bool:
        """It lives and its guests run, whatever is wrong beside that."""
        return self.judgement in (Judgement.HEALTHY, Judgement.DEGRADED)
