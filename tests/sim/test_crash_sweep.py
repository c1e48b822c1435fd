# SPDX-License-Identifier: Apache-2.0
"""An engine may die at any port call: the story ends the same way. A thinned sweep; `vmhad-sim sweep` runs it whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmhad.sim.sweep import sweep

STORIES = Path(__file__).parents[1] / "stories"
SWEPT = {
    "anti_affinity_serialised": 23,
    "cut_moves_four_vms": 13,
    "error_vm_that_was_stopped_stays_stopped": 31,
    "hang_fenced_first": 31,
    "hard_affinity_moved_as_one": 23,
    "lost_answer_is_not_sent_twice": 17,
    "return_lifts_the_fence_last": 29,
    "target_hangs_while_receiving": 37,
}


@pytest.mark.parametrize(("story", "every"), sorted(SWEPT.items()))
def test_a_death_at_any_call_is_harmless(story: str, every: int) -> None:
    falls = list(sweep(STORIES / f"{story}.txt", every))
    assert not falls, "\n".join(f"killed at call {fall.call}: {fall.why}" for fall in falls)
