# SPDX-License-Identifier: Apache-2.0
"""How fast a storage cuts a writing host off, and whether a proof was ever said too early; on a real server.

A round: a client of the host writes as fast as it can, the order is given, the storage is read until it says CUT, and
what is accepted or lands after that is counted. A write counts as late by the time when its answer came, which is a
little later than the write itself: the count errs against the driver.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vmhad.kernel.signal import Access
from vmhad.ports import Storage

REPORT = Path(__file__).parents[2] / "lab" / "run" / "storage.json"
ROUNDS = int(os.environ.get("VMHAD_STORAGE_ROUNDS", "10"))
WATCH_S = 2.0
PROOF_WITHIN_S = 30.0
WRITING_WITHIN_S = 20.0
# The writes on their way at a time, by turns.
IN_FLIGHT = (1, 1, 16)


class Rig(Protocol):
    """A real server, a host that is its client, and a writer in a process of its own."""

    @property
    def name(self) -> str:
        """The driver."""

    @property
    def storage(self) -> Storage: ...

    @property
    def host(self) -> str: ...

    def fresh(self) -> None:
        """The writer is ended, the host is not cut off."""

    def start_writer(self, in_flight: int) -> None:
        """A new client of the host writes, this many writes at a time where it can, and stamps each that is accepted.
        It goes on trying after an error as a guest does."""

    def last_accepted(self) -> float:
        """By time.monotonic(); 0 before the first one."""

    def accepted_since(self, at: float) -> int: ...

    def held(self) -> int:
        """The number of the newest write that the storage holds, read past the host's client. Writes are numbered in
        the order in which they are begun; one whose answer was lost counts here only."""


@dataclass(frozen=True, slots=True)
class Round:
    order_to_last_write_s: float
    order_to_proof_s: float
    writes_after_proof: int

    @property
    def false_proof(self) -> bool:
        return self.writes_after_proof > 0


def play(rig: Rig, in_flight: int, longest_lag_s: float, watch_s: float = WATCH_S) -> Round:
    rig.fresh()
    rig.start_writer(in_flight)
    _writing(rig)
    order = time.monotonic()
    rig.storage.cut(rig.host)
    proof = _proof(rig, order)
    held = rig.held()
    lag_s = max(0.0, rig.last_accepted() - order)
    _watch(rig, proof + max(watch_s, 3 * max(lag_s, longest_lag_s)))
    late = max(rig.accepted_since(proof), rig.held() - held)
    return Round(max(0.0, rig.last_accepted() - order), proof - order, late)


def _writing(rig: Rig) -> None:
    """A writer that stopped by itself would be cut off in no time."""
    until = time.monotonic() + WRITING_WITHIN_S
    while rig.accepted_since(time.monotonic() - 0.5) < 20:
        if time.monotonic() > until:
            raise AssertionError(f"{rig.name}: the writer does not write")
        time.sleep(0.02)


def _proof(rig: Rig, order: float) -> float:
    said: list[str] = []
    while time.monotonic() < order + PROOF_WITHIN_S:
        access, words = rig.storage.read(rig.host)
        if access is Access.CUT:
            return time.monotonic()
        said.append(words)
    raise AssertionError(f"{rig.name}: no proof after {PROOF_WITHIN_S:.0f} s: {said[-1]}")


def _watch(rig: Rig, until: float) -> None:
    """A proof that was said has to stand, too."""
    while time.monotonic() < until:
        access, words = rig.storage.read(rig.host)
        assert access is not Access.OPEN, f"{rig.name}: open again by itself: {words}"
        time.sleep(0.1)


def measure(rig: Rig, rounds: int = ROUNDS) -> list[Round]:
    played: list[Round] = []
    for number in range(rounds):
        longest = max((one.order_to_last_write_s for one in played), default=0.0)
        played.append(play(rig, IN_FLIGHT[number % len(IN_FLIGHT)], longest))
    return played


def summary(name: str, played: list[Round]) -> dict[str, object]:
    return {
        "driver": name,
        "rounds": len(played),
        "order_to_last_write_ms": _median_and_max([one.order_to_last_write_s for one in played]),
        "order_to_proof_ms": _median_and_max([one.order_to_proof_s for one in played]),
        "writes_after_proof": sum(one.writes_after_proof for one in played),
        "false_proofs": sum(one.false_proof for one in played),
    }


def _median_and_max(seconds: list[float]) -> dict[str, float]:
    return {"median": round(1000 * statistics.median(seconds), 1), "max": round(1000 * max(seconds), 1)}


def report(entry: dict[str, object], path: Path = REPORT) -> None:
    """In place of what stood there of this driver."""
    kept = json.loads(path.read_text()) if path.exists() else []
    kept = [one for one in kept if one["driver"] != entry["driver"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sorted([*kept, entry], key=lambda one: str(one["driver"])), indent=1) + "\n")
