# SPDX-License-Identifier: Apache-2.0
"""A failing script becomes a short story that fails in the same way."""

from __future__ import annotations

import pytest

from vmhad.sim.seeds import play, play_script
from vmhad.sim.shrink import as_run, kinds, shrink, story_of
from vmhad.sim.swarm import Script, Shape

DECLARED = (
    "segment s1 policy",
    *(f"host h{number} rack=r{number % 3}" for number in range(1, 7)),
    *(f"vm v{number} on h{number}" for number in range(1, 7)),
    "engine e1",
)
FAULTS = (
    (5.0, "nova slow 1s 20s"),
    (6.0, "forbid h2 this test says so"),
    (7.0, "nudge h3 service.update"),
    (8.0, "cut h5 h2"),
    (9.0, "user stops v4"),
    (70.0, "hang h6"),
)


def test_what_does_not_matter_is_left_out() -> None:
    played = play_script(Script(DECLARED, FAULTS, 100.0, 100.0))
    assert "power_off sent although" in played.failed[0]
    script = shrink(played)
    assert kinds(play_script(script, to_its_end=False)) & kinds(played)
    assert [line.split()[0] for _, line in script.faults] == ["forbid", "cut"]
    assert not any(line.startswith("vm ") for line in script.declarations)
    assert sum(line.startswith("host ") for line in script.declarations) <= 3
    assert "BREACH" in story_of(script, "why")


def test_a_played_seed_told_again_is_the_same_run() -> None:
    played = play(4, Shape(6, 0.2))
    script = as_run(played.story)
    told = play_script(script, passing_over=False, to_its_end=False)
    assert told.end == played.end


def test_what_did_not_fail_has_no_shortest_story() -> None:
    with pytest.raises(ValueError, match="did not fail"):
        shrink(play_script(Script(DECLARED, (), 10.0, 10.0)))
