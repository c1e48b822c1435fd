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
    verdict = hunt(mutant, range(SPARE), stories=STORIES)
    assert verdict.is_killed and verdict.story == mutant.story, f"{mutant.guard} is off and nothing tells"


@pytest.mark.parametrize("story", sorted({one.story for one in MUTANTS} - {""}))
def test_a_story_on_record_breaks_nothing_in_the_core_as_it_is(story: str) -> None:
    assert not tell(STORIES / f"{story}.txt").breaches


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
    only = [word for name in ("no_brake", "unknown_is_dead", "hit_is_forgotten") for word in ("--only", name)]
    assert sim.main(["mutants", *only, "--stories", str(STORIES), "--seeds", "5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["mutants"], told["killed"], told["survivors"]) == (3, 3, [])
    assert told["seeds_per_mutant_max"] >= 1 and set(told["by"]) == {"no_brake", "unknown_is_dead", "hit_is_forgotten"}
    assert told["by"]["hit_is_forgotten"]["story"] == "order_retries_a_bmc_of_another_host"


def test_a_folder_without_the_stories_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sim.main(["mutants", "--only", "hit_is_forgotten", "--stories", str(tmp_path)]) == 2
    assert f"--stories {tmp_path}: there is no order_retries_a_bmc_of_another_host.txt" in capsys.readouterr().err


def test_a_mutant_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert sim.main(["mutants", "--only", "no_sense"]) == 2
    assert "no such mutant" in capsys.readouterr().err
