# SPDX-License-Identifier: Apache-2.0
"""The house keeps its walls: every contract of .importlinter holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

CONTRACTS = Path(__file__).parents[2] / ".importlinter"


def test_every_contract_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # import-linter judges the package of the current folder.
    monkeypatch.chdir(CONTRACTS.parent)
    status = lint_imports(config_filename=str(CONTRACTS), cache_dir=str(tmp_path), no_logo=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out
