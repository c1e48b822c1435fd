# SPDX-License-Identifier: Apache-2.0
"""vmhad-agent as an operator starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vmhad.agent.bootclock import boot_id
from vmhad.agent.directory import MARKER, RECORDS

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0


def configured(where: Path, more: str = "libvirt_uri =\n") -> Path:
    """Two hosts, a storage, and no libvirt."""
    (where / MARKER).write_text("m1")
    hosts = [
        {"name": name, "planes": {"management": address}}
        for name, address in (("h1", "127.0.0.1"), ("h2", "127.0.0.2"))
    ]
    (where / "segments.yaml").write_text(yaml.safe_dump({"segments": [{"name": "s", "hosts": hosts}]}))
    text = f"[agent]\nhost = h1\nsegments_file = {where}/segments.yaml\nstorages = st dir:{where} m1\n{more}"
    (where / "vmhad.conf").write_text(text)
    return where / "vmhad.conf"


def started(config: Path, *words: str, path: str = "") -> subprocess.Popen[str]:
    environ = os.environ | {"PYTHONPATH": f"{path}:{ROOT}"}
    argv = [sys.executable, "-m", "vmhad.cmd.agent", "--config-file", str(config), *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


def test_show_prints_beats_and_writes_nothing(disk: Path) -> None:
    shown = started(configured(disk), "--show", "4")
    out, err = shown.communicate(timeout=LIMIT_S)
    beats = [json.loads(line) for line in out.splitlines()]
    assert shown.returncode == 0, err
    assert [beat["count"] for beat in beats] == [1, 2, 3, 4]
    last = beats[-1]
    assert (last["host"], last["boot"], last["leaving"]) == ("h1", boot_id(), False)
    assert last["storages"] == {"st": "up"} and last["domains"] is None
    assert last["peers"] == {"h2": {"planes": {"management": "up"}, "storage": {}, "dump": None}}
    assert not (disk / RECORDS).exists()
    assert "vmhad-agent beats for h1 of segment s" in err


def test_it_ends_when_it_is_told_to(disk: Path) -> None:
    shown = started(configured(disk), "--show", "1000")
    assert shown.stdout is not None and json.loads(shown.stdout.readline())["count"] == 1
    shown.send_signal(signal.SIGTERM)
    rest = [json.loads(line) for line in shown.communicate(timeout=LIMIT_S)[0].splitlines()]
    assert shown.returncode == 0 and rest[-1]["leaving"]


def test_a_storage_that_hangs_holds_nobody_back_from_the_end(disk: Path) -> None:
    config = configured(disk)
    (disk / MARKER).unlink()
    os.mkfifo(disk / MARKER)
    shown = started(config, "--show", "2")
    out, _ = shown.communicate(timeout=LIMIT_S)
    assert shown.returncode == 0 and len(out.splitlines()) == 2


@pytest.mark.parametrize(
    ("more", "words", "sentence"),
    [
        ("libvirt_uri =\n", (), "vmhad-agent: [agent] transport_urls is not set."),
        ("probe_port = x\n", ("--show", "1"), "vmhad-agent: [agent] probe_port: "),
        ("", ("--show", "1"), "vmhad-agent: [agent] libvirt_uri needs libvirt's Python binding: pip install "),
    ],
)  # fmt: skip
def test_one_sentence(
    disk: Path, tmp_path_factory: pytest.TempPathFactory, more: str, words: tuple[str, ...], sentence: str
) -> None:
    without = tmp_path_factory.mktemp("without")
    (without / "libvirt.py").write_text("raise ImportError('this machine has none')")
    shown = started(configured(disk, more), *words, path=str(without))
    out, err = shown.communicate(timeout=LIMIT_S)
    assert shown.returncode == 2 and out == ""
    assert err.startswith(sentence) and err.count("\n") == 1, err
