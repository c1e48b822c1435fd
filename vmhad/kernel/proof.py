# SPDX-License-Identifier: Apache-2.0
"""Why we may believe that a host runs nothing. Without a held proof there is no recover step.

A proof is made of observations after the act, is bound to the incident's round and dies at the first sign of life.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmhad.kernel.step import Observation


@dataclass(frozen=True, slots=True)
class Proof:
    """kind: the fence level that proved it. at: the older of the observations that make it.

    by_us: False where the host was off before we sent the first power_off.
    """

    host: str
    kind: str
    at: float
    by_us: bool
    round: int
    observed: tuple[Observation, ...]


def holds(proof: Proof | None, round_now: int, life_at: float) -> bool:
    """True while nothing speaks against it. life_at: the newest sign of life of the host, 0 if none was ever seen."""
    return proof is not None and proof.round == round_now and life_at <= proof.at
