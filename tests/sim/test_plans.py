# SPDX-License-Identifier: Apache-2.0
"""Plans held against Nova's scheduler alone: what is counted on both sides, and that no hard rule is broken."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from vmhad.cmd import sim
from vmhad.sim.plans import HARD, SOFT, Compared, Outcome, by_nova, compare, draw

NONE = dict.fromkeys((*HARD, *SOFT), 0)
SAME = Outcome(5, 4, 1, NONE)


def test_the_same_seed_is_the_same_cloud_and_the_same_outcome() -> None:
    assert draw(3) == draw(3) != draw(4)
    assert replace(compare(3), cpu_s=0.0) == replace(compare(3), cpu_s=0.0)


def test_the_command_prints_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    assert sim.main(["plans", "--clouds", "6", "--start", "8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["clouds"], told["worse"], told["worse_clouds"]) == (6, 0, [])
    assert told["vms"] >= told["vmhad"]["recovered"] > told["nova"]["recovered"]
    assert not any(told["vmhad"]["broken"][rule] for rule in HARD)
    assert sim.main(["plans", "--clouds", "1", "--start", "8"]) == 0
    assert "Nova alone" in capsys.readouterr().out


def test_nova_alone_gives_fresh_disks_which_count_as_lost() -> None:
    told = [compare(seed) for seed in range(12)]
    assert sum(one.nova.broken["disk"] for one in told) > 0 == sum(one.vmhad.broken["disk"] for one in told)
    assert all(one.nova.recovered + one.nova.broken["disk"] <= one.nova.vms for one in told)


def test_nobody_is_moved_who_was_not_lost() -> None:
    cloud = draw(5)
    world = by_nova(cloud)
    kept = {name: host for name, host in cloud.vms.items() if host not in cloud.lost}
    assert {name: world.nova.servers[name].host for name in kept} == kept


@pytest.mark.parametrize(
    ("ours", "better", "worse"),
    [
        (SAME, False, False),
        (replace(SAME, recovered=5), True, False),
        (replace(SAME, recovered=3), False, True),
        (replace(SAME, broken=NONE | {"rack": 1}), False, True),
        (replace(SAME, recovered=5, broken=NONE | {"rack": 1}), True, False),
        (replace(SAME, recovered=5, broken=NONE | {"zone": 1}), False, True),
    ],
)
def test_what_counts_as_worse(ours: Outcome, better: bool, worse: bool) -> None:
    told = Compared(1, SAME, ours, 0.0)
    assert (told.is_better, told.is_worse) == (better, worse)
