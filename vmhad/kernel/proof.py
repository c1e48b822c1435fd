# SPDX-License-Identifier: Apache-2.0
"""Why we may believe that a host runs nothing, or that its guests can write nothing. Without a held proof there is no
recover step.

A proof is made of observations after the act, is bound to the incident's round and dies at the first sign of life.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmhad.kernel.step import Observation

# The fence levels that may prove a host; the failures of a VM or a service have kinds of their own.
POWER_OFF, CUT_STORAGE, SELF_FENCED, WORD = "power_off", "cut_storage", "self_fenced", "word"
# Those that hold for whatever a host may run. A kind that is new here holds for nothing until somebody says so.
WHOLE = (POWER_OFF, SELF_FENCED, WORD)


@dataclass(frozen=True, slots=True)
class Proof:
    """kind: the fence level that proved it. at: the oldest of the observations that make it.

    by_us: False where the host was off before we sent the first power_off. backends: the shared storages that it is
    proven to be cut off from, where that is all that is proven: then it holds for the VMs that have all their disks
    there, and for no others.
    """

    host: str
    kind: str
    at: float
    by_us: bool
    round: int
    observed: tuple[Observation, ...]
    backends: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """It holds for whatever the host may run."""
        return self.kind in WHOLE


def holds(proof: Proof | None, round_now: int, life_at: float) -> bool:
    """True while nothing speaks against it. life_at: the newest sign of life of the host, 0 if none was ever seen."""
    return proof is not None and proof.round == round_now and life_at <= proof.at
