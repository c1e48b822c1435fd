# SPDX-License-Identifier: Apache-2.0
"""A real vmhad-engine for a lab: its configuration written from the lab's facts, its process, its timeline."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lab.agent import BINDINGS, KEY_ID, link_bindings
from lab.layout import write_private
from lab.qemu import network
from vmhad.conf.keys_file import master_keys_text
from vmhad.drivers.store.etcd import EtcdStore

# What the lab is: shared storage under every host, and computes that let a hard-affinity group move.
POLICY = {"silent_means": "fence", "shared_ephemeral": True, "affinity_groups_movable": True}
START_LIMIT_S = 30.0
STOP_LIMIT_S = 30.0


class EngineProcess:
    """One engine with files of its own in lab/run/<lab>/vmhad/<name>/. listens: whether it hears Nova's notifications.
    command: what runs instead of vmhad-engine. agents: the master key of the agents that it hears, b"" for none.
    storages: those of the segments file. etcd: the endpoints of its journal, none if that is elsewhere."""

    def __init__(
        self,
        facts: Mapping[str, Any],
        root: Path,
        name: str = "engine",
        *,
        policy: Mapping[str, Any] | None = None,
        engine: Mapping[str, Any] | None = None,
        nova: Mapping[str, Any] | None = None,
        listens: bool = True,
        racks: Mapping[str, str] | None = None,
        journal: str = "etcd",
        command: tuple[str, ...] = (),
        agents: bytes = b"",
        storages: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.folder = root / "vmhad" / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.timeline_file = self.folder / "timeline.json"
        self.log_file = self.folder / "engine.log"
        self.config_file = self.folder / "vmhad.conf"
        self._command = command or (str(Path(sys.executable).with_name("vmhad-engine")),)
        self.process: subprocess.Popen[bytes] | None = None
        self._log_from = 0
        self._has_storages = bool(storages)
        endpoints = str((engine or {}).get("etcd_endpoints", ",".join(facts["etcd"])))
        self.etcd = tuple(endpoints.split(",")) if journal == "etcd" else ()
        bus = {"transport_urls": facts["transport_url"]} if listens else {}
        more = {"engine": dict(engine or {}), "nova": dict(nova or {}), "nova_notifications": bus, "agents": {}}
        if agents:
            write_private(self.folder / "agent-keys.yaml", master_keys_text({KEY_ID: agents}))
            keys_file = self.folder / "agent-keys.yaml"
            more["agents"] = {"enabled": True, "transport_urls": facts["transport_url"], "keys_file": keys_file}
        self._write(facts, name, dict(POLICY) | dict(policy or {}), more, dict(racks or {}), journal, storages)

    def start(self) -> EngineProcess:
        """Returns when it owns what it may own, or at once watches on as a second engine."""
        self.timeline_file.unlink(missing_ok=True)
        self._log_from = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            command = [*self._command, "--config-file", str(self.config_file)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._env())
        self.wait_log("vmhad-engine .* looks after", START_LIMIT_S)
        return self

    def _env(self) -> dict[str, str]:
        """With Ceph's own Python binding, which the lab has installed, where it may need that."""
        if not self._has_storages:
            return dict(os.environ)
        link_bindings()
        path = os.environ.get("PYTHONPATH", "")
        return {**os.environ, "PYTHONPATH": f"{path}:{BINDINGS}" if path else str(BINDINGS)}

    def wait_log(self, pattern: str, limit_s: float) -> None:
        """Until the log of this start has the pattern; raises RuntimeError with the log's end when the process ends."""
        until = time.monotonic() + limit_s
        while not re.search(pattern, self.log_of_this_start()):
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the engine did not say {pattern!r}:\n{self.log_of_this_start()[-2000:]}")
            time.sleep(0.1)

    def log_of_this_start(self) -> str:
        return self.log_file.read_bytes()[self._log_from :].decode(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """The timeline so far: at, subject, word, text, nova_calls."""
        if not self.timeline_file.exists():
            return []
        whole = self.timeline_file.read_text().rpartition("\n")[0]
        return [json.loads(row) for row in whole.splitlines()]

    def verdicts(self, host: str) -> list[dict[str, Any]]:
        """What it judged the host to be since this start, as its log says: at, judgement, because."""
        found = re.finditer(rf"(?m)^(\S+ [\d:]+)(\.\d+) .* host {host} is ([A-Z]+): (.*)$", self.log_of_this_start())
        return [
            {"at": time.mktime(time.strptime(one[1], "%Y-%m-%d %H:%M:%S")) + float(one[2]), "judgement": one[3],
             "because": one[4]} for one in found
        ]  # fmt: skip

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a crash would: nothing is let go."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _write(
        self,
        facts: Mapping[str, Any],
        name: str,
        policy: dict[str, Any],
        more: dict[str, dict[str, Any]],
        racks: dict[str, str],
        journal: str,
        storages: Sequence[Mapping[str, Any]],
    ) -> None:
        hosts, passwords = [], {}
        for host in facts["hosts"]:
            bmc = host["bmc"]
            access = {"address": bmc["host"], "port": bmc["port"], "user": bmc["user"], "guid": bmc["guid"]}
            domains = {"rack": racks.get(host["name"], "rack-of-" + host["name"])}
            planes = {"planes": {"management": network.address(host["name"])}} if more["agents"] else {}
            hosts.append({"name": host["name"], "domains": domains, "bmc": access} | planes)
            passwords[host["name"]] = Path(bmc["password_file"]).read_text().strip()
        segments = {"segments": [{"name": "lab", "policy": policy, "hosts": hosts}]}
        segments |= {"storages": [dict(one) for one in storages]} if storages else {}
        (self.folder / "segments.yaml").write_text(yaml.safe_dump(segments))
        write_private(self.folder / "bmc-credentials.yaml", yaml.safe_dump(passwords))
        write_private(self.folder / "nova-password", facts["auth"]["password"])
        auth = facts["auth"]
        groups = {
            "DEFAULT": {"use_stderr": True},
            "engine": {
                "name": name,
                "segments_file": self.folder / "segments.yaml",
                "journal": journal,
                "etcd_endpoints": ",".join(facts["etcd"]),
                "timeline_file": self.timeline_file,
            }
            | more["engine"],
            "nova": {
                "auth_url": auth["auth_url"],
                "username": auth["username"],
                "password_file": self.folder / "nova-password",
                "project_name": auth["project_name"],
                "region_name": facts["region"],
            }
            | more["nova"],
            "nova_notifications": more["nova_notifications"],
            "agents": more["agents"],
            "power": {"credentials_file": self.folder / "bmc-credentials.yaml"},
        }
        text = "".join(
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())
            for group, options in groups.items()
        )
        write_private(self.config_file, text)
        os.chmod(self.folder, 0o700)


def forget_journal(facts: Mapping[str, Any]) -> None:
    """An empty journal for the next trial; the lab's etcd holds nothing else of vmhad's."""
    store = EtcdStore(facts["etcd"], START_LIMIT_S)
    doomed = list(store.list("/vmhad/"))
    for first in range(0, len(doomed), 100):
        store.commit([], {}, doomed[first : first + 100])
    store.close()
