# SPDX-License-Identifier: Apache-2.0
"""The rules of the simulator find out an engine that cuts a dump short, and one that believes forged messages."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from vmhad.guards.hosts import columns
from vmhad.kernel.case import Case
from vmhad.kernel.evidence import Evidence
from vmhad.kernel.policy import Policy
from vmhad.kernel.signal import Channel
from vmhad.sim.story import tell

STORIES = Path(__file__).parents[1] / "stories"


def test_a_fence_that_does_not_wait_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(case: Case, now: float) -> float:
        return 0.0

    monkeypatch.setattr(import_module("vmhad.guards.hosts.fence"), "_dump_until", never)
    told = tell(STORIES / "agent_dump_is_waited_for.txt")
    assert any("it has written its dump for" in breach for breach in told.breaches)


def test_a_judge_that_believes_every_message_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def whoever_lives(evidence: Evidence, policy: Policy, now: float) -> bool:
        return Channel.DUMP in evidence.seen

    monkeypatch.setattr(columns, "has_panicked", whoever_lives)
    told = tell(STORIES / "agent_dump_of_a_living_host_is_forged.txt")
    assert any("a fence was begun although h" in breach for breach in told.breaches), told.breaches
