# SPDX-License-Identifier: Apache-2.0
"""What a decision saw, kept with its incident: evidence is soft and is gone an hour later, its exhibit is not.

Two decisions are kept: that a host is to be fenced, and that it is proven. Words, never enumerations, stand in them: an
older engine must be able to read what a newer one kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from vmhad.kernel.evidence import Evidence
from vmhad.kernel.policy import Policy
from vmhad.kernel.proof import Proof
from vmhad.kernel.step import Observation
from vmhad.kernel.verdict import Verdict

FENCED, PROVEN = "fenced", "proven"
# The first decisions and the newest are kept: an incident that is tried again for weeks must still fit its journal.
EXHIBITS_FIRST, EXHIBITS_NEWEST = 2, 8
OWNERS_NEWEST = 60
NAMES_MAX = 20
# What of its policy the decision rests on, as far as this release has it.
RESTS_ON = (
    "silent_means", "isolated", "storage_lost", "failed_share_max", "fences_in_flight_max", "readings_apart_s",
    "cut_storage", "storage_only_proof", "self_fence_proof",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sight:
    """What one channel said: an unbroken run of one reading."""

    channel: str
    reading: str
    first_at: float
    at: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Some of the segment's hosts. names: the first of them."""

    count: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Braked:
    """The segment as the brake saw it when it let the fence go. held: why it had waited until then, '' if it had not.
    fences: how many were open in the whole cloud."""

    held: str
    hosts: int
    dead: Crowd
    silent: Crowd
    stopped: Crowd
    back: Crowd
    blind: int
    recovering: int
    fences: int


@dataclass(frozen=True, slots=True)
class Act:
    """A fence level as it stood when the proof was made: a later owner looks at it anew."""

    verb: str
    args: Mapping[str, str]
    attempt: int
    acts: int
    acted_at: float
    observed: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One decision. kind: FENCED or PROVEN. at: by the clock of the engine that had this epoch. row, because: the row
    of the judge's table that said so. life_at: the newest sign of life of the host that counts against the proof, 0.0
    if none was ever seen. acts: the fence levels of its round that were tried, where it was proven."""

    kind: str
    at: float
    epoch: int
    round: int
    judgement: str
    row: int
    because: str
    positive: bool
    life_at: float
    sights: tuple[Sight, ...] = ()
    policy: Mapping[str, str] = field(default_factory=dict)
    brake: Braked | None = None
    proof: Proof | None = None
    acts: tuple[Act, ...] = ()


@dataclass(frozen=True, slots=True)
class Owner:
    """One that committed to the incident. at: when it did so first, by its own clock."""

    epoch: int
    name: str
    at: float


def exhibit(
    kind: str, now: float, epoch: int, round_now: int, verdict: Verdict, evidence: Evidence, policy: Policy
) -> Exhibit:
    """Of either kind, without what only one of them has."""
    return Exhibit(
        kind,
        now,
        epoch,
        round_now,
        verdict.judgement.value,
        verdict.row,
        verdict.because,
        verdict.positive,
        evidence.life_at,
        tuple(
            Sight(channel.value, seen.reading.value, seen.first_at, seen.at, seen.detail)
            for channel, seen in sorted(evidence.seen.items())
        ),
        {name: str(getattr(policy, name)) for name in RESTS_ON if hasattr(policy, name)},
    )


def life_against(proof: Proof | None, evidence: Evidence) -> float:
    """What is cut off from its storages may have power: only what its system says speaks against that."""
    if proof is None or proof.is_whole:
        return evidence.life_at
    return evidence.beat_at


def crowd(names: Collection[str]) -> Crowd:
    return Crowd(len(names), tuple(sorted(names)[:NAMES_MAX]))


def kept(exhibits: tuple[Exhibit, ...], more: tuple[Exhibit, ...], needed: Collection[float]) -> tuple[Exhibit, ...]:
    """needed: when the proofs were held that something which is still to be certified rests on."""
    everything = (*exhibits, *more)
    newest_from = max(EXHIBITS_FIRST, len(everything) - EXHIBITS_NEWEST)
    between = (one for one in everything[EXHIBITS_FIRST:newest_from] if one.proof is not None and one.at in needed)
    return (*everything[:EXHIBITS_FIRST], *between, *everything[newest_from:])


def owned(owners: tuple[Owner, ...], epoch: int, name: str, now: float) -> tuple[Owner, ...]:
    """With the one that commits now."""
    if owners and owners[-1].epoch == epoch:
        return owners
    everything = (*owners, Owner(epoch, name, now))
    return (*everything[:1], *everything[1:][-OWNERS_NEWEST:])
