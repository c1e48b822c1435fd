# SPDX-License-Identifier: Apache-2.0
"""Complaints of the hardware, as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

from vmhad.agent.hardware import COMPLAINTS_MAX, Hardware


def controllers(place: Path, *counts: int) -> Path:
    """As EDAC lays it out; a machine whose memory can be made to fail is not to be had."""
    for number, count in enumerate(counts):
        (place / f"mc{number}").mkdir()
        (place / f"mc{number}" / "ue_count").write_text(f"{count}\n")
    return place


def complaints(links: list[str], place: Path) -> tuple[str, ...]:
    eye = Hardware(links, place)
    eye._look()
    return eye.tell(0.0).hardware


def test_memory(tmp_path: Path) -> None:
    assert complaints([], controllers(tmp_path, 0, 3)) == (
        "memory controller mc1: 3 uncorrectable errors since the host booted",
    )


def test_links(tmp_path: Path) -> None:
    assert complaints(["lo", "no-such-link"], tmp_path) == ("link no-such-link: there is none of that name",)


def test_a_host_without_sensors_complains_of_nothing(tmp_path: Path) -> None:
    assert complaints([], tmp_path / "none") == ()


def test_a_beat_stays_small(tmp_path: Path) -> None:
    assert len(complaints([], controllers(tmp_path, *range(1, 100)))) == COMPLAINTS_MAX
