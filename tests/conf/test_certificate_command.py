# SPDX-License-Identifier: Apache-2.0
"""Certificates as an operator meets them: listed, shown, exported, and verified without a journal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.certificates import chains, played, sealed
from vmhad.cmd import manage
from vmhad.conf.settings import ConfigError
from vmhad.journal.journal import Journal

STORY = "request_lost_is_sent_again"
SETTINGS: Any = SimpleNamespace()


def run(*words: str) -> int:
    told = manage._arguments(["certificate", *words])
    return int(told.run(Journal(played(STORY).store), SETTINGS, told))


def verified(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """As a whole command: it asks for no configuration."""
    monkeypatch.setattr(sys, "argv", ["vmhad-manage", "certificate", "verify", str(path)])
    return manage.main()


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    assert run("export", "--to", str(tmp_path)) == 0
    return tmp_path


@pytest.mark.parametrize(
    ("words", "count"),
    [((), 2), (("--server", "web-1"), 2), (("--server", "web-9"), 0), (("--host", "h1"), 2), (("--host", "h2"), 0)],
)
def test_they_are_listed_a_line_each(words: tuple[str, ...], count: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == count
    assert all("web-1" in line and "h1 -> " in line for line in lines)


def test_those_of_one_incident_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    ((incident, _),) = chains(STORY)
    assert run("list", "--incident", incident) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert run("list", "--incident", "h1.9") == 0
    assert capsys.readouterr().out == ""


def test_one_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "web-1") == 0
    assert '"word": "done"' in capsys.readouterr().out
    assert run("show", "web-9") == 1
    assert "web-9 has no certificate" in capsys.readouterr().err


def test_what_is_exported_holds(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(exported.iterdir())
    assert [file.name.rpartition("@")[2] for file in files] == ["0001.json", "0002.json"]
    (mine,) = chains(STORY).values()
    assert [json.loads(file.read_text()) for file in files] == mine
    capsys.readouterr()
    assert verified(exported, monkeypatch) == 0
    assert capsys.readouterr().out == "2 certificates hold\n"
    assert verified(files[1], monkeypatch) == 0


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--to .*/nowhere cannot be written"):
        run("export", "--to", str(tmp_path / "nowhere"))


def test_one_that_was_tampered_with_is_refused_by_the_rule(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted(exported.iterdir())
    one = json.loads(second.read_text())
    one["proofs"][0]["observed"].pop()
    second.write_text(json.dumps(one))
    capsys.readouterr()
    assert verified(exported, monkeypatch) == 1
    said = capsys.readouterr().out
    assert f"{second.name}: its digest is not that of its content" in said
    assert f"{second.name}: h1 was not read OFF twice" in said and first.name not in said
    second.write_text(json.dumps(sealed(one)))
    assert verified(second, monkeypatch) == 1
    assert "digest" not in capsys.readouterr().out


def test_a_chain_with_a_gap_is_refused(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    min(exported.iterdir()).unlink()
    capsys.readouterr()
    assert verified(exported, monkeypatch) == 1
    assert "certificate 1 of the chain is missing" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"incident": 3}', "\ud800"])
def test_what_is_no_certificate_is_called_so(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    assert verified(tmp_path, monkeypatch) == 1
    assert capsys.readouterr().out == "x.json: it is no certificate\n"


def test_nothing_is_not_taken_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verified(tmp_path, monkeypatch) == 1
    assert "there is no certificate in" in capsys.readouterr().out
    assert verified(tmp_path / "gone.json", monkeypatch) == 1
    assert "it cannot be read" in capsys.readouterr().out
