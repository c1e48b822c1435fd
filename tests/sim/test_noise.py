# SPDX-License-Identifier: Apache-2.0
"""Noise that kills nobody: nobody is called dead, one seed is one noise, and a judge without patience is found out."""

from __future__ import annotations

import json

import pytest

from vmhad.cmd import sim
from vmhad.sim import noise
from vmhad.sim.noise import NOISE, listen


def test_nobody_is_called_dead_and_one_seed_is_one_noise() -> None:
    heard, _ = listen(120)
    assert heard.episodes == 120
    assert heard.false_failed == 0 and heard.failed == [] and heard.failures == []
    assert heard.drawn.keys() == {*NOISE, "two at once"}
    again, _ = listen(120)
    assert again == heard


def test_a_judge_without_patience_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure can be another than zero: dead after three seconds of silence."""
    monkeypatch.setattr(noise, "POLICIES", ("agent_suspect_s=2s agent_failed_s=3s storage_still_s=2s",))
    heard, _ = listen(60)
    assert heard.false_failed > 0 and len(heard.failed) > 0
    assert heard.episodes == 60


def test_the_command_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert sim.main(["noise", "--episodes", "20", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["episodes"], told["false_failed"]) == (20, 0)
    assert told["false_suspect"] >= 0 and told["seconds"] > 0 and told["failed"] == []
