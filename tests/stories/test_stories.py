# SPDX-License-Identifier: Apache-2.0
"""Every story runs as its text says, and breaks no rule of safety that it does not declare.

After a change: `vmhad-sim story tests/stories/*.txt --rewrite`, and keep a difference only if you know what caused it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stories.witness import STORIES, record_of, shared_folder
from vmhad.sim.story import parse

LONGEST_LINES = 120


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert all(block.expected is not None for block in parse(path.read_text())), f"{path.name} misses an expectation"
    told = record_of(path, shared_folder(tmp_path_factory.getbasetemp()))
    assert not told.breaches, "\n".join(told.breaches)
    assert told.before == told.after, told.diff


def test_there_are_stories() -> None:
    assert len(STORIES) >= 120


def test_stories_can_be_read_as_reports() -> None:
    """Nobody reads pages of output: what a story is not about it runs silently."""
    long = {path.name: len(path.read_text().splitlines()) for path in STORIES}
    assert [name for name, lines in long.items() if lines > LONGEST_LINES] == []
