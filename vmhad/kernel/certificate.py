# SPDX-License-Identifier: Apache-2.0
"""Why it was safe to start one VM elsewhere: a record that says it by itself, whoever reads it, wherever it is.

It is built from what was kept at the time, never from what is known now. Its digest is a SHA-256 over its canonical
JSON (RFC 8785) without the digest; «previous» is the digest of the certificate before it, of the same VM and incident.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum

from vmhad.kernel.exhibit import Exhibit
from vmhad.kernel.incident import Incident
from vmhad.kernel.proof import CUT_STORAGE, POWER_OFF
from vmhad.kernel.step import Begun, Certified, Ground, Step, Verb

SCHEMA = 1
# Beyond this many failures of one VM in one incident only their number is kept, until it has arrived: what is refused
# for weeks must still fit its journal.
FAILURES_MAX = 8
# The fence levels, by their verbs. Of earlier rounds the first and the newest are told.
LEVELS = (POWER_OFF, CUT_STORAGE, Verb.CONFIRM_DOWN.value)
ROUNDS_NEWEST = 3


class Result(StrEnum):
    """DONE: it has left its host. FAILED: given up. RETRIED: this attempt is over, another may follow. UNSETTLED: the
    incident ended before anybody knew."""

    DONE = "done"
    FAILED = "failed"
    RETRIED = "retried"
    UNSETTLED = "unsettled"


@dataclass(frozen=True, slots=True)
class Held:
    """A proof that the start rested on, as it was kept."""

    ground: Ground
    exhibit: Exhibit


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a certificate is built from. step: the attempt, with what was observed of it; because, at: how it ended.
    levels: the fence steps of its incident. epoch: of the engine that settles it."""

    incident: Incident
    step: Step
    result: Result
    because: str
    at: float
    epoch: int
    levels: tuple[Step, ...]
    proofs: tuple[Held, ...]


def is_due(before: Certified, result: Result) -> bool:
    return result is Result.DONE or before.failed < FAILURES_MAX


def counted(before: Certified, result: Result, digest: str) -> Certified:
    """What its step keeps of it. digest: '' where it is not written."""
    if not digest:
        return Certified(before.count, before.newest, before.failed, before.unwritten + 1)
    failed = before.failed + (result is not Result.DONE)
    return Certified(before.count + 1, digest, failed, before.unwritten)


def build(facts: Facts, before: Certified, plain: Plain) -> dict[str, object]:
    """The certificate with its digest."""
    incident, step, begun = facts.incident, facts.step, facts.step.begun
    body: dict[str, object] = {
        "schema": SCHEMA,
        "number": before.count + 1,
        "previous": before.newest,
        "failures_unwritten": before.unwritten,
        "incident": {
            "id": incident.id,
            "segment": incident.segment,
            "host": incident.host,
            "opened_at": plain.time(incident.opened_at),
            "turns": plain(incident.turns),
        },
        "server": {
            "id": step.subject,
            "name": step.args.get("name", ""),
            "wanted": step.args.get("state", ""),
            "disks": plain(begun.disks if begun else {}),
        },
        "verdict": plain(_verdict(incident, begun)),
        "levels": [plain.level(one) for one in _levels(facts)],
        "proofs": [plain.proof(one) for one in facts.proofs],
        "plan": {key: value for key, value in sorted(step.args.items()) if value},
        "start": plain.start(step),
        "owners": plain(incident.owners),
        "result": {
            "word": facts.result.value, "because": facts.because, "at": plain.time(facts.at), "epoch": facts.epoch,
        },
    }  # fmt: skip
    return {**body, "digest": digest_of(body)}


def digest_of(body: Mapping[str, object]) -> str:
    return hashlib.sha256(canonical({key: value for key, value in body.items() if key != "digest"})).hexdigest()


def canonical(body: Mapping[str, object]) -> bytes:
    """Equal values, equal bytes."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace")


def round_of(step: Step) -> int:
    """The incident's round that a fence step belongs to: its id says so."""
    word = step.id.removeprefix(f"{step.incident}/").partition("/")[0]
    return int(word) if word.isdecimal() else 0


def _verdict(incident: Incident, begun: Begun | None) -> Exhibit | None:
    """What began the fence of its round; where it was proven anew, the newest before that."""
    fenced = [one for one in incident.exhibits if one.brake is not None]
    mine = [one for one in fenced if begun is None or one.round <= begun.round]
    return mine[-1] if mine else None


def _levels(facts: Facts) -> Sequence[Step]:
    rounds = sorted({round_of(one) for one in facts.levels})
    told = {*rounds[:1], *rounds[-ROUNDS_NEWEST:], *([facts.step.begun.round] if facts.step.begun else [])}
    return sorted((one for one in facts.levels if round_of(one) in told), key=lambda one: (round_of(one), one.id))


@dataclass(frozen=True, slots=True)
class Plain:
    """Kernel values as JSON: a field that is new in one is in the certificate without more ado. utc: seconds to ISO
    8601.

    Made anew for each commit, and the same for all its certificates: what sixty VMs of one host have in common is
    written out once. _known: by identity, with the value itself, so that no other one can come to have that.
    """

    utc: Callable[[float], str]
    _known: dict[int, tuple[object, dict[str, object]]] = field(default_factory=dict)

    def time(self, at: float) -> dict[str, object] | None:
        """None where it never was, or nobody knows by our clock."""
        return {"utc": self.utc(at), "s": _number(at)} if at else None

    def __call__(self, value: object, name: str = "") -> object:
        if isinstance(value, float):
            return self.time(value) if name == "at" or name.endswith("_at") else _number(value)
        if isinstance(value, StrEnum):
            return value.value
        if is_dataclass(value) and not isinstance(value, type):
            if id(value) not in self._known:
                known = {one.name: self(getattr(value, one.name), one.name) for one in fields(value)}
                self._known[id(value)] = value, known
            return self._known[id(value)][1]
        if isinstance(value, Mapping):
            return {str(key): self(one) for key, one in sorted(value.items())}
        if isinstance(value, (tuple, list)):
            return [self(one) for one in value]
        return value

    def level(self, step: Step) -> dict[str, object]:
        if id(step) not in self._known:
            self._known[id(step)] = step, self._level(step)
        return self._known[id(step)][1]

    def _level(self, step: Step) -> dict[str, object]:
        told = ("state", "attempt", "acts", "started_at", "acted_at", "ended_at", "observed", "because", "past")
        return {
            "verb": step.verb.value,
            "round": round_of(step),
            "args": {key: value for key, value in sorted(step.args.items()) if value},
            "epoch": step.begun.epoch if step.begun else 0,
            **{name: self(getattr(step, name), name) for name in told},
        }

    def proof(self, held: Held) -> dict[str, object]:
        kept, proof = self(held.exhibit), self(held.exhibit.proof)
        assert isinstance(kept, dict) and isinstance(proof, dict)
        return {
            **proof,
            "incident": held.ground.incident,
            "proven_at": kept["at"],
            "epoch": kept["epoch"],
            "life_at_start": self.time(held.ground.life_at),
            "acts": kept["acts"],
            "seen": {key: one for key, one in kept.items() if key not in ("proof", "at", "epoch", "acts")},
        }

    def start(self, step: Step) -> dict[str, object] | None:
        if step.begun is None:
            return None
        return {
            "at": self.time(step.begun.at),
            "epoch": step.begun.epoch,
            "round": step.begun.round,
            "attempt": step.attempt,
            "acts": step.acts,
            "acted_at": self.time(step.acted_at),
            "observed": self(step.observed),
            "earlier": self(step.past),
        }


def _number(value: float) -> int | float:
    """Whole ones without a fraction, as RFC 8785 writes them; no clock is better than a microsecond."""
    rounded = round(value, 6)
    return int(rounded) if rounded == int(rounded) else rounded
