# SPDX-License-Identifier: Apache-2.0
"""Each guard of the core that is switched off is found by a seed, by a rule that the core as it is does not break."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vmhad.cmd import sim
from vmhad.sim.cuts import Cut
from vmhad.sim.mutant import Mutant
from vmhad.sim.mutants import hunt, mutated
from vmhad.sim.mutants_list import MUTANTS
from vmhad.sim.story import tell

STORIES = Path(__file__).parents[1] / "stories"
# How many seeds are tried beside the one on record, should that have become another disaster.
SPARE = 30


def found(cut: Cut) -> object:
    return cut.owner[cut.name] if isinstance(cut.owner, dict) else vars(cut.owner)[cut.name]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_a_guard_that_is_off_is_found(mutant: Mutant) -> None:
    if mutant.story:
        with mutated(mutant):
            told = tell(STORIES / f"{mutant.story}.txt")
        assert told.breaches, f"{mutant.guard} is off and its story does not tell"
        return
    verdict = hunt(mutant, range(SPARE))
    assert verdict.seed is not None, f"{mutant.guard} is off and nothing tells"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_a_guard_is_put_back(mutant: Mutant) -> None:
    before = [found(cut) for cut in mutant.cuts]
    with mutated(mutant):
        assert all(found(cut) is not was for cut, was in zip(mutant.cuts, before, strict=True))
    assert [found(cut) for cut in mutant.cuts] == before


def test_each_has_a_name_of_its_own() -> None:
    names = [one.name for one in MUTANTS]
    assert len(names) == len(set(names)) >= 25


def test_the_command_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert sim.main(["mutants", "--only", "no_brake", "--only", "unknown_is_dead", "--seeds", "5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["mutants"], told["killed"], told["survivors"]) == (2, 2, [])
    assert told["seeds_per_mutant_max"] >= 1 and set(told["by"]) == {"no_brake", "unknown_is_dead"}


def test_a_mutant_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert sim.main(["mutants", "--only", "no_sense"]) == 2
    assert "no such mutant" in capsys.readouterr().err
