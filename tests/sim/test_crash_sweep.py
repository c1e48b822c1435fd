# SPDX-License-Identifier: Apache-2.0
"""An engine may die at any port call: every story ends the same way. Thinned; `vmhad-sim sweep` runs it whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vmhad.cmd import sim
from vmhad.sim.sweep import DIFFERS, OPEN, sweep

STORIES = sorted((Path(__file__).parents[1] / "stories").glob("*.txt"))
# How many calls of each story are died at: of those that write, before and after each, and of those that read.
CALLS = 2


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_a_death_at_any_call_is_harmless(path: Path) -> None:
    swept = sweep(path, calls_max=CALLS)
    assert not swept.falls, "\n".join(f"killed {f.death.when} call {f.death.call}: {f.why}" for f in swept.falls)


def test_few_stories_may_end_otherwise() -> None:
    excused = [path.stem for path in STORIES if DIFFERS in path.read_text()]
    assert len(excused) <= 12, excused


def test_what_is_open_is_one_story() -> None:
    named = [path.stem for path in STORIES if OPEN in path.read_text()]
    assert named == ["hosts_that_fall_in_one_moment_prove_nothing"]


def test_a_death_that_does_harm_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody may fence h1 after 5 s here, which only one who takes over does."""
    story = tmp_path / "forbidden.txt"
    story.write_text(
        "# It is fenced in time.\nsegment east\nhost h1 h2 h3\nvm a on h1\nrun 5s\ncut h1\nrun 3.5s silently\n"
        "forbid h1 that is too late\nrun 60s silently\nshow vms\n"
    )
    assert sim.main(["sweep", str(story), "--every", "11", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["stories"] == 1 and told["crash_points"] > 4
    assert 0 < told["failures"] == len(told["failed"]) and "too late" in told["failed"][0]["why"]
