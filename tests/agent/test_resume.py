# SPDX-License-Identifier: Apache-2.0
"""An order to resume, on a real guest that QEMU paused because its disk was full."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("guest_out_of_room.py")
LIMIT_S = 400.0
NEEDED = ("unshare", "qemu-system-x86_64", "mkfs.ext4")

# The binding is an extra of vmhad, and is built against the libvirt of its machine.
pytest.importorskip("libvirt", reason="libvirt's Python binding is not installed")


def test_only_what_an_io_error_paused_is_resumed(tmp_path: Path) -> None:
    missing = [one for one in NEEDED if shutil.which(one) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"only root may mount a file system, and not everywhere; missing: {missing}")
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, str(CHILD)]
    where = Path("/var/tmp") / f"vmhad-{tmp_path.name}-{os.getpid()}"
    where.mkdir()
    try:
        ran = subprocess.run([*words, str(where)], capture_output=True, text=True, timeout=LIMIT_S)
    finally:
        shutil.rmtree(where, ignore_errors=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["full"] == told["still full"] == [3, 5]
    assert told["room"][0] == 1 and told["said"].endswith("was resumed")
    assert told["while it runs"].endswith("not paused by an I/O error")
    assert told["of its user"].endswith("is paused (user), not paused by an I/O error") and told["after that"] == 3
    assert told["of no guest"].endswith("is not there")
