# SPDX-License-Identifier: Apache-2.0
"""A vmhad-agent on a host of the lab that is a namespace: its configuration, its process inside, what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lab import hostpower
from lab.layout import HERE, SHARED, VENV, write_private
from lab.qemu import network
from vmhad.bus.signature import derive
from vmhad.conf.keys_file import agent_key_text
from vmhad.conf.settings import AgentKey

BINDINGS = SHARED / "bindings"
MARKER = "the-labs-instances"
STORAGE = "instances"
START_LIMIT_S = 30.0
KEY_ID = "lab"


class AgentProcess:
    """One agent with files of its own in lab/run/<lab>/vmhad/agent-<host>/. command: what runs as the agent; it
    must say its beats to stdout, a JSON line each. None: vmhad-agent itself, which says them to the lab's broker, by
    the host's key of the master key."""

    def __init__(
        self, facts: Mapping[str, Any], host: str, command: tuple[str, ...] | None, master: bytes = b"", **options: Any
    ) -> None:
        self.host = host
        self.state_dir = next(Path(row["state_dir"]) for row in facts["hosts"] if row["name"] == host)
        root = self.state_dir.parents[2]
        self.folder = root / "vmhad" / f"agent-{host}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.beats_file, self.log_file = self.folder / "beats.json", self.folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command or ("-m", "vmhad.cmd.agent")
        self._tells = command is not None
        if not self._tells:
            key = derive(KEY_ID, master, host)
            write_private(self.folder / "agent-key.yaml", agent_key_text(AgentKey(key.host, key.id, key.key)))
            broker = facts["transport_url"].replace("127.0.0.1", network.GATEWAY)
            options |= {"transport_urls": broker, "key_file": self.folder / "agent-key.yaml"}
        instances = root / "var" / "instances"
        instances.mkdir(exist_ok=True)
        (instances / ".vmhad-storage").write_text(MARKER)
        names = [row["name"] for row in facts["hosts"]]
        hosts = [{"name": name, "planes": {"management": network.address(name)}} for name in names]
        segments = self.folder / "segments.yaml"
        segments.write_text(yaml.safe_dump({"segments": [{"name": "lab", "hosts": hosts}]}))
        told = {"host": host, "segments_file": segments, "storages": f"{STORAGE} dir:{instances} {MARKER}"} | options
        lines = [f"{name} = {value}" for name, value in told.items()]
        write_private(self.folder / "vmhad.conf", "[DEFAULT]\nuse_stderr = true\n[agent]\n" + "\n".join(lines) + "\n")

    def start(self) -> AgentProcess:
        """Returns with its first beat, if it tells of it. It runs in every namespace of its host, and ends with it."""
        link_bindings()
        leader = hostpower.chassis(self.state_dir)
        assert leader, f"{self.host} has no power"
        self.beats_file.unlink(missing_ok=True)
        inside = ["nsenter", f"--target={leader}", "--mount", "--net", "--uts", "--ipc", "--pid"]
        environ = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{BINDINGS}"}
        argv = [*inside, sys.executable, *self._command, "--config-file", str(self.folder / "vmhad.conf")]
        with self.beats_file.open("wb") as said, self.log_file.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=said, stderr=log, stdin=subprocess.DEVNULL, env=environ)
        if self._tells:
            self.wait("its first beat", lambda beats: bool(beats), START_LIMIT_S)
        return self

    def beats(self) -> list[dict[str, Any]]:
        """All beats since it started."""
        whole = self.beats_file.read_text().rpartition("\n")[0]
        return [json.loads(row) for row in whole.splitlines()]

    def wait(self, what: str, condition: Callable[[list[dict[str, Any]]], Any], limit_s: float) -> Any:
        """The first truthy answer of condition to the beats so far."""
        until = time.monotonic() + limit_s
        while not (answer := condition(self.beats())):
            if time.monotonic() > until:
                log = self.log_file.read_text()[-2000:]
                raise AssertionError(f"{self.host}: not within {limit_s:g} s: {what}\n{self.beats()[-1:]}\n{log}")
            time.sleep(0.05)
        return answer

    def next(self, what: str, right: Callable[[dict[str, Any]], Any], limit_s: float) -> dict[str, Any]:
        """The first beat from now on that is right."""
        known = len(self.beats())
        found: dict[str, Any] = self.wait(
            what, lambda beats: next((beat for beat in beats[known:] if right(beat)), None), limit_s
        )
        return found

    def stop(self) -> None:
        """nsenter waits for the agent and hands no signal on."""
        if self.process is not None and self.process.poll() is None:
            subprocess.run(["pkill", "-TERM", "-P", str(self.process.pid)], check=False)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                subprocess.run(["pkill", "-KILL", "-P", str(self.process.pid)], check=False)
                self.process.wait(10)


def link_bindings() -> None:
    """The Python bindings of libvirt and Ceph alone, from the lab's own Python, of the same version as ours."""
    BINDINGS.mkdir(parents=True, exist_ok=True)
    packages = next((VENV / "lib").glob("python3.*/site-packages"))
    assert packages.parent.name == f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (packages / "libvirt.py", *packages.glob("libvirtmod.*.so"), *packages.glob("rados.*.so")):
        link = BINDINGS / path.name
        if link.resolve() != path.resolve():
            link.unlink(missing_ok=True)
            link.symlink_to(path)
