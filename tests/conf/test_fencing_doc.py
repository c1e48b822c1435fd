# SPDX-License-Identifier: Apache-2.0
"""The table of fence levels tells operators numbers and choices: they are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from vmhad.conf import policy as policy_options
from vmhad.kernel.policy import CutStorage, Policy

TEXT = (Path(__file__).parents[2] / "doc" / "source" / "admin" / "fencing.rst").read_text()
OF_LEVELS = {
    "readings_apart_s", "power_off_deadline_s", "fence_attempts_max", "fence_retry_s", "cut_storage_deadline_s",
    "storage_only_proof", "self_fence_proof",
}  # fmt: skip


def test_its_numbers_are_the_defaults() -> None:
    told = re.findall(r"``(\w+) = ([\w.]+)``", TEXT)
    assert {name for name, _ in told} == OF_LEVELS
    options = {option.name: option for option in policy_options.OPTS}
    for name, value in told:
        assert options[name].type(value) == getattr(Policy(), name), name


def test_its_choices_of_when_storages_are_cut_are_all() -> None:
    """The first that it names is the default."""
    row = TEXT[TEXT.index("   * - storages") : TEXT.index("   * - watchdog")]
    told = [CutStorage(word) for word in re.findall(r"``(\w+)``", row) if word in set(CutStorage)]
    assert told == list(CutStorage) and told[0] is Policy().cut_storage
    assert {one.value for one in CutStorage} - {"beside_power"} == set(re.findall(r"``cut_storage: (\w+)``", TEXT))
