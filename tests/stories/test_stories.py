# SPDX-License-Identifier: Apache-2.0
"""Every story runs as its text says, and breaks no rule of safety that it does not declare.

After a change: `vmhad-sim story tests/stories/*.txt --rewrite`, and keep a difference only if you know what caused it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from vmhad.sim.story import parse, tell

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    assert all(block.expected is not None for block in parse(path.read_text())), f"{path.name} misses an expectation"
    told = tell(path)
    assert not told.breaches, "\n".join(told.breaches)
    assert told.before == told.after, told.diff()


def test_there_are_stories() -> None:
    assert len(STORIES) >= 20
