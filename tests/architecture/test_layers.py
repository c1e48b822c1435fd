# SPDX-License-Identifier: Apache-2.0
"""The house keeps its walls: every contract of .importlinter holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_contract_is_kept(tmp_path: Path) -> None:
    # A process of its own: import-linter disables every logger that it finds in the one it runs in.
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
