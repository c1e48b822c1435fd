# SPDX-License-Identifier: Apache-2.0
"""The command as an operator meets it: what cannot work ends with one sentence and exit code 2, and nothing runs on.

The loader's own tests are next door; here the whole start is gone through, up to the parts it would have opened.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

COMMAND = Path(sys.executable).with_name("vmhad-engine")
LIMIT_S = 60.0
SECRETS = ("pw-of-bmc", "pw-of-nova")


class Site:
    """The files of one engine. Its etcd is a port that nobody listens on, unless a test says otherwise."""

    def __init__(self, where: Path) -> None:
        self.where = where
        dead_end = f"http://127.0.0.1:{free_port()}"
        self.options: dict[str, dict[str, Any]] = {
            "engine": {
                "name": "e1",
                "segments_file": where / "segments.yaml",
                "etcd_endpoints": dead_end,
                "call_timeout_s": 1.0,
                "timeline_file": where / "timeline.json",
            },
            "nova": {"auth_url": f"{dead_end}/v3", "password": "pw-of-nova"},
            "power": {"credentials_file": where / "bmc.yaml"},
        }
        self.hosts: list[dict[str, Any]] = [host("h1", 6231), host("h2", 6232)]

    def run(self) -> subprocess.CompletedProcess[str]:
        text = "".join(
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())
            for group, options in self.options.items()
        )
        (self.where / "vmhad.conf").write_text(text)
        told = {"segments": [{"name": "s1", "hosts": self.hosts}]}
        (self.where / "segments.yaml").write_text(yaml.safe_dump(told))
        secret = self.where / "bmc.yaml"
        secret.touch(0o600)
        secret.write_text("default: pw-of-bmc\n")
        return subprocess.run(
            [COMMAND, "--config-file", self.where / "vmhad.conf"],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
        )

    def set(self, group: str, **options: Any) -> None:
        self.options[group].update(options)

    def embedded(self, **more: Any) -> None:
        self.set("engine", journal="sqlite", sqlite_path=self.where / "journal.sqlite", standalone=True, **more)


def host(name: str, port: int) -> dict[str, Any]:
    return {"name": name, "bmc": {"address": "127.0.0.1", "port": port, "user": "admin"}}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def processes_naming(text: str) -> list[str]:
    """The command lines of all living processes that hold the text."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    assert not processes_naming(str(tmp_path)), "something of it runs on"


def unknown_driver(site: Site) -> None:
    site.set("power", driver="abacus")


def duplicate_host(site: Site) -> None:
    site.hosts.append(host("h1", 6239))


def short_lease(site: Site) -> None:
    site.set("engine", lease_s=4.0)


def sqlite_without_standalone(site: Site) -> None:
    site.embedded()
    del site.options["engine"]["standalone"]


def no_segments_file(site: Site) -> None:
    site.set("engine", segments_file=site.where / "absent.yaml")


def timeline_nowhere(site: Site) -> None:
    site.embedded()
    (site.where / "file").touch()
    site.set("engine", timeline_file=site.where / "file" / "timeline.json")


def certificates_nowhere(site: Site) -> None:
    site.embedded(certificate_dir=site.where / "absent")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (no_segments_file, "absent.yaml"),
        (unknown_driver, "[power] driver"),
        (duplicate_host, "h1"),
        (short_lease, "[engine] lease_s"),
        (sqlite_without_standalone, "standalone"),
        (timeline_nowhere, "[engine] timeline_file"),
        (certificates_nowhere, "[engine] certificate_dir"),
        (lambda site: None, "[engine] etcd_endpoints"),
    ],
)
def test_one_sentence_and_exit_code_2(site: Site, spoil: Callable[[Site], None], named: str) -> None:
    """The last case is an etcd that nobody runs; nothing else is wrong with it."""
    spoil(site)
    began = time.monotonic()
    done = site.run()
    assert done.returncode == 2, done.stdout + done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("vmhad-engine: ")]
    assert len(told) == 1 and named in told[0], done.stderr
    assert "Traceback" not in done.stderr
    assert told[0].endswith("."), told[0]
    assert not [word for word in SECRETS if word in done.stdout + done.stderr]
    assert not (site.where / "timeline.json").exists() or (site.where / "timeline.json").read_text() == ""
    assert time.monotonic() - began < LIMIT_S / 2


def test_missing_configuration_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "--config-file", tmp_path / "absent.conf"], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 2, done.stderr
    assert "absent.conf" in done.stderr and "Traceback" not in done.stderr
