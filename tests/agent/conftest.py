# SPDX-License-Identifier: Apache-2.0
"""Places that storage beats are tried on: real file systems, one of them small and one's own to freeze and to fill."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmhad.agent.directory import MEMORY, filesystem


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that has a disk below it, wherever this machine keeps its temporary files."""
    if filesystem(tmp_path) not in MEMORY:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def small_disk(disk: Path) -> Iterator[Path]:
    """An ext4 of 4 MiB of its own."""
    image, place = disk / "image", disk / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(place)], capture_output=True, text=True)
    if os.geteuid() != 0 or mounted.returncode != 0:
        pytest.skip(f"only root may mount a file system, and not everywhere: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(place)], capture_output=True)
        until = time.monotonic() + 10.0
        # An eye that was asked to end may still be in the middle of its last look.
        while subprocess.run(["umount", str(place)], capture_output=True).returncode:
            assert time.monotonic() < until, f"{place} stays mounted"
            time.sleep(0.05)
