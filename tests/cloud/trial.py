# SPDX-License-Identifier: Apache-2.0
"""One trial of vmhad on the real small cloud: its engines, a watcher of the hypervisors, and what is asked of both.

Whether a VM was saved is asked of Nova and of the hypervisors. vmhad's own timeline only says when to look.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from kept_secrets import assert_kept, journal_of

from lab import hostpower
from lab.cloud_lab import CloudLab
from lab.engine import EngineProcess
from lab.layout import Lab
from lab.report import watcher_of
from lab.watcher import lives

# Shorter pauses than an operator would choose: they are waited for here.
QUICK = {"retry_backoff_s": 2.0, "power_off_deadline_s": 8.0}
# By then each BMC was read once by an engine that just started, as it would have been in life.
FIRST_LOOKS_S = 5.0
MANAGE_LIMIT_S = 60.0
SUCCEEDED = ("done", "completed")


class Trial:
    """The lab with a watcher that runs and no engine yet. promised: no guest may have run on two hosts at the end."""

    def __init__(self, lab: CloudLab) -> None:
        self.lab = lab
        self.root = Path(lab.facts["hosts"][0]["state_dir"]).parents[2]
        self.watcher = watcher_of(Lab(lab.name)).start()
        self.engines: list[EngineProcess] = []
        self.promised = True
        self._seen_at = 0.0

    # Engines.

    def make(self, name: str = "engine", *, policy: Mapping[str, Any] | None = None, **more: Any) -> EngineProcess:
        """An engine with its files written, not started; more: see EngineProcess."""
        made = EngineProcess(self.lab.facts, self.root, name, policy={**QUICK, **(policy or {})}, **more)
        self.engines.append(made)
        return made

    def engine(self, name: str = "engine", **more: Any) -> EngineProcess:
        """A started engine; ask ready() before anything dies."""
        started = self.make(name, **more).start()
        self._seen_at = time.monotonic() + FIRST_LOOKS_S
        return started

    def ready(self) -> None:
        """Returns once the engine that started last has read every host's power."""
        time.sleep(max(0.0, self._seen_at - time.monotonic()))

    def end(self) -> None:
        """Ends engines and watcher, and holds the watcher's findings against what was promised. None of them may have
        written a password anywhere."""
        for one in self.engines:
            if one.process is not None and one.process.poll() is None:
                one.signal(signal.SIGCONT)
            one.stop()
            print(f"--- {one.config_file.parent.name}\n{self.story(one)}")
        report = self.watcher.stop()
        self._power_all_on()
        assert report["samples"] > 10
        if self.promised:
            assert not report["doubles"], f"guests ran twice: {report['doubles']}"
        self._assert_secrets_kept()

    def _assert_secrets_kept(self) -> None:
        """In every etcd that an engine of this trial had. What stands in a timeline was written there first, so what
        looks empty then was not read."""
        for endpoints in sorted({one.etcd for one in self.engines if one.etcd} | {tuple(self.lab.facts["etcd"])}):
            journal = journal_of(endpoints)
            print(assert_kept(self.root, journal))
            ran = [one for one in self.engines if one.process and one.etcd == endpoints]
            told = [one.folder.name for one in ran if one.lines()]
            assert not told or any(key.startswith("/vmhad/") for key in journal), f"nothing of {told} in {endpoints}"

    def _power_all_on(self) -> None:
        """All at once; the lab's own restore goes through the hosts one after another and then finds them starting."""
        dark = [self.state_dir(host) for host in self.lab.hosts if not self.has_power(host)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(hostpower.on, dark))

    @staticmethod
    def story(engine: EngineProcess) -> str:
        rows = engine.lines()
        return "\n".join(
            f"{row['at'] - rows[0]['at']:7.2f} {row['subject']} {row['word']} {row['text']}" for row in rows
        )

    def wait_line(
        self, engine: EngineProcess, subject: str, word: str, limit_s: float, text: str = "", count: int = 1
    ) -> dict[str, Any]:
        """The timeline's count-th line of that word; subject and text: '' or what they hold."""
        until = time.monotonic() + limit_s
        while len(found := self.lines(engine, subject, word, text)) < count:
            sought = f"{subject} {word} {text}"
            assert time.monotonic() < until, f"not within {limit_s:g} s: {sought}\n{self.story(engine)}"
            time.sleep(0.1)
        return found[count - 1]

    @staticmethod
    def lines(engine: EngineProcess, subject: str, word: str, text: str = "") -> list[dict[str, Any]]:
        rows = engine.lines()
        return [row for row in rows if subject in row["subject"] and row["word"] == word and text in row["text"]]

    def recovered(self, engine: EngineProcess, host: str, limit_s: float = 90.0) -> dict[str, Any]:
        return self.wait_line(engine, f"host {host}", "RECOVERED", limit_s)

    # What is done to the cloud.

    def hurt(self, fault: str, host: str) -> float:
        """The fault of lab/cloud; returns when it was ordered, in Unix seconds."""
        at = time.time()
        self.lab.command(fault, host)
        return at

    def cut_together(self, hosts: Iterable[str]) -> float:
        """All of them lose their power in the same tenth of a second, as behind one fuse."""
        at = time.time()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(hostpower.off, [self.state_dir(host) for host in hosts]))
        return at

    def slow_spawns(self, seconds: float) -> None:
        """Every host but the first takes so long to start a guest, until the lab is mended."""
        for host in self.lab.hosts[1:]:
            self.lab.switch(host, "spawn_delay", str(seconds))

    def order(self, count: int, host: str, name: str = "early") -> list[str]:
        """The ids of servers that are asked for on a host and not waited for."""
        like = self.lab.servers()[0]
        flavor = next(row["id"] for row in self.lab.api("GET", "/flavors")["flavors"] if row["name"] == "m1.nano")
        body = {"imageRef": like["image"]["id"], "flavorRef": flavor, "networks": "none", "host": host}
        posted = [self.lab.api("POST", "/servers", {"server": {**body, "name": f"{name}-{n}"}}) for n in range(count)]
        return [one["server"]["id"] for one in posted]

    # What is true.

    def state_dir(self, host: str) -> Path:
        return Path(self.lab.host(host)["state_dir"])

    def has_power(self, host: str) -> bool:
        return bool(lives(self.state_dir(host)))

    def running(self, ids: Iterable[str]) -> dict[str, list[str]]:
        """Server id -> the hosts that truly run it now; those that run nowhere are left out.

        Only these: a guest that Nova lost sight of in an earlier trial may run on, until Nova reaps it.
        """
        sought = set(ids)
        where: dict[str, list[str]] = {}
        for row in self.lab.guests():
            if row["uuid"] in sought and row["can_run"] and row["state"] == "running":
                where.setdefault(row["uuid"], []).append(row["host"])
        return where

    def servers(self) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in self.lab.servers()}

    def hosts_of(self, ids: Iterable[str]) -> list[str]:
        """Where Nova has them, in the order asked."""
        rows = self.servers()
        return [rows[one]["OS-EXT-SRV-ATTR:host"] for one in ids]

    def assert_moved(self, ids: Iterable[str], dead: Iterable[str] = ("host01",), once: bool = True) -> None:
        """Each is ACTIVE in Nova and runs there and only there, elsewhere, by exactly one evacuation that succeeded.

        once: Nova holds no other attempt either.
        """
        ids, dead = list(ids), set(dead)
        servers, running = self.servers(), self.running(ids)
        for one in ids:
            server = servers[one]
            host = server["OS-EXT-SRV-ATTR:host"]
            state = (server["status"], server["OS-EXT-STS:task_state"])
            assert state == ("ACTIVE", None) and host not in dead, f"{server['name']}: {state} on {host}"
            assert running.get(one) == [host], f"{server['name']} is on {host}, runs on {running.get(one)}"
        self.assert_records(ids, once)

    def assert_records(self, ids: Iterable[str], once: bool = True) -> None:
        for one in ids:
            statuses = Counter(row["status"] for row in self.lab.evacuations(one))
            assert sum(statuses[word] for word in SUCCEEDED) == 1, f"evacuations of {one}: {statuses}"
            assert not once or statuses.total() == 1, f"evacuations of {one}: {statuses}"

    def assert_untouched(self, ids: Iterable[str], host: str = "host01") -> None:
        """Nova still has them there, was never asked to evacuate them, and was not told that the host is down."""
        ids = list(ids)
        assert not {one: rows for one in ids if (rows := self.lab.evacuations(one))}
        assert set(self.hosts_of(ids)) == {host}
        service = self.lab.service(host)
        assert not service["forced_down"] and service["status"] == "enabled"

    def stays(self, what: str, condition: Callable[[], bool], for_s: float) -> None:
        """The condition holds at every look for that long."""
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            assert condition(), what
            time.sleep(0.5)


def rewrite_bmc_password(engine: EngineProcess, host: str, password: str) -> None:
    """Before the engine starts. The file is YAML, of which JSON is a part."""
    path = engine.folder / "bmc-credentials.yaml"
    known = yaml.safe_load(path.read_text())
    assert host in known
    path.write_text(json.dumps({**known, host: password}))


def manage(engine: EngineProcess, *words: str) -> str:
    """What vmhad-manage says, by the engine's configuration."""
    command = [str(Path(sys.executable).with_name("vmhad-manage")), "--config-file", str(engine.config_file), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MANAGE_LIMIT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout
