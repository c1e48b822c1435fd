# SPDX-License-Identifier: Apache-2.0
"""The real small cloud as a test sees it: what to break, what to boot, and where each guest truly runs.

It asks Nova through openstacksdk and the truth through `lab/cloud`, never through vmhad: a test must not believe the
code that it tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openstack
from openstack.connection import Connection

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ROOT / "lab" / "cloud"
MICROVERSION = "2.96"
SWITCHES = ("fail_spawn", "hang_spawn", "spawn_delay", "shared_storage", "no_image_locks", "panic_device")
SETTLED = frozenset({"done", "completed", "error", "failed", "cancelled", "confirmed", "reverted"})


class CloudLab:
    """One lab that is up. facts: its cloud.json (auth, transport_url, etcd, hosts, ...)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.facts: dict[str, Any] = {}

    @classmethod
    def up(cls, name: str, computes: int, *virt: str) -> CloudLab:
        """Brought up with at least that many hosts; one that is up already is used as it is. virt: see `lab/cloud`."""
        lab = cls(name)
        facts = ROOT / "lab" / "run" / name / "cloud.json"
        enough = facts.exists() and len(json.loads(facts.read_text())["hosts"]) >= computes
        lab.command("up", *virt, *([] if enough else ["--computes", str(computes)]), limit_s=600)
        lab.facts = json.loads(facts.read_text())
        lab.nova = openstack.connect(
            auth=lab.auth, region_name=lab.facts["region"], load_yaml_config=False, load_envvars=False
        )
        return lab

    nova: Connection

    @property
    def auth(self) -> dict[str, str]:
        return dict(self.facts["auth"])

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(host["name"] for host in self.facts["hosts"])

    def host(self, name: str) -> dict[str, Any]:
        """The facts of one host: name, bmc, state_dir."""
        return next(host for host in self.facts["hosts"] if host["name"] == name)

    def command(self, verb: str, *words: str, limit_s: float = 180.0) -> str:
        """`lab/cloud VERB ... WORDS`, e.g. command("cut", "host01"); its output. Fails the test with its own words."""
        # The lab's own Python is named by its first line; a cache turned off would make every start compile anew.
        environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(
            [str(COMMAND), verb, "--name", self.name, *words],
            capture_output=True, text=True, timeout=limit_s, env=environ,
        )  # fmt: skip
        assert done.returncode == 0, f"lab/cloud {verb} {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def wait(self, what: str, condition: Callable[[], Any], limit_s: float = 60.0, every_s: float = 0.2) -> Any:
        """The first truthy answer of condition; fails the test with what after limit_s."""
        until = time.monotonic() + limit_s
        while not (answer := condition()):
            assert time.monotonic() < until, f"not within {limit_s:g} s: {what}"
            time.sleep(every_s)
        return answer

    def switch(self, host: str, name: str, text: str | None = "") -> None:
        """Sets a host's way: one of SWITCHES, see the lab's README (spawn_delay, text: seconds). None clears it."""
        assert name in SWITCHES
        path = Path(self.host(host)["state_dir"]) / name
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(text)

    # What the hypervisors say.

    def guests(self) -> list[dict[str, Any]]:
        """Every guest of every host: host, uuid, name, state, can_run (False: its host has no power)."""
        rows: list[dict[str, Any]] = json.loads(self.command("guests", "--json"))
        return rows

    def running_on(self, server_id: str) -> list[str]:
        """The hosts that truly run the server now; more than one is the disaster."""
        return [
            row["host"]
            for row in self.guests()
            if row["uuid"] == server_id and row["can_run"] and row["state"] == "running"
        ]

    # What Nova says.

    def api(self, method: str, path: str, body: object = None, *, microversion: str = MICROVERSION) -> dict[str, Any]:
        """One raw call to Nova; {} for an empty answer. Fails the test on anything but 2xx."""
        response = self.nova.compute.request(path, method, json=body, microversion=microversion)
        assert response.ok, f"{method} {path}: HTTP {response.status_code} {response.text[:500]}"
        return dict(response.json()) if response.content else {}

    def identity(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The same to Keystone."""
        response = self.nova.identity.request(path, method, json=body)
        assert response.ok, f"{method} {path}: HTTP {response.status_code} {response.text[:500]}"
        return dict(response.json()) if response.content else {}

    def placement(self, path: str) -> dict[str, Any]:
        """What Placement says there."""
        response = self.nova.placement.get(path, microversion="1.36")
        assert response.ok, f"GET {path}: HTTP {response.status_code} {response.text[:500]}"
        return dict(response.json())

    def server(self, server_id: str) -> dict[str, Any]:
        return dict(self.api("GET", f"/servers/{server_id}")["server"])

    def servers(self, host: str = "") -> list[dict[str, Any]]:
        narrow = f"&host={host}" if host else ""
        return list(self.api("GET", f"/servers/detail?all_tenants=1{narrow}")["servers"])

    def service(self, host: str) -> dict[str, Any]:
        rows = self.api("GET", f"/os-services?binary=nova-compute&host={host}")["services"]
        assert len(rows) == 1, rows
        return dict(rows[0])

    def evacuations(self, server_id: str) -> list[dict[str, Any]]:
        """The server's evacuation records, newest first."""
        return list(
            self.api("GET", f"/os-migrations?migration_type=evacuation&instance_uuid={server_id}")["migrations"]
        )

    def wait_settled(self, server_id: str, records: int = 1, limit_s: float = 60.0) -> list[dict[str, Any]]:
        """Once the server has that many evacuation records, all ended, and no task: the records."""

        def settled() -> list[dict[str, Any]]:
            rows = self.evacuations(server_id)
            ended = len(rows) >= records and all(row["status"] in SETTLED for row in rows)
            return rows if ended and self.server(server_id)["OS-EXT-STS:task_state"] is None else []

        found: list[dict[str, Any]] = self.wait(f"{records} evacuations of {server_id} ended", settled, limit_s)
        return found

    # What to put there.

    def boot(
        self,
        count: int = 1,
        *,
        host: str = "",
        name: str = "vm",
        group: str = "",
        zone: str = "",
        flavor: str = "",
        image: str = "",
        metadata: Mapping[str, str] | None = None,
        limit_s: float = 180.0,
    ) -> list[str]:
        """The ids of count new servers, once all are ACTIVE. host: there and nowhere else. group, image: an id."""
        guest = self.facts["guest"]
        image_id = image or self.nova.image.find_image(guest["image"], ignore_missing=False).id
        flavor_id = self.nova.compute.find_flavor(flavor or guest["flavor"], ignore_missing=False).id
        server = {"imageRef": image_id, "flavorRef": flavor_id, "networks": "none", "metadata": dict(metadata or {})}
        server |= ({"host": host} if host else {}) | ({"availability_zone": zone} if zone else {})
        hints = {"os:scheduler_hints": {"group": group}} if group else {}

        def create(number: int) -> str:
            body = {"server": {**server, "name": f"{name}-{number:02d}"}, **hints}
            return str(self.api("POST", "/servers", body)["server"]["id"])

        with ThreadPoolExecutor(4) as pool:
            ids = list(pool.map(create, range(1, count + 1)))
        self.wait(f"{count} servers are built", lambda: self._built(set(ids)), limit_s, 0.5)
        return ids

    def _built(self, ids: set[str]) -> bool:
        """Asked by ids: the rows of sixty servers cost Nova half a second, which it needs to build them."""
        failed = ids & self.ids("ERROR")
        assert not failed, [(row["name"], row.get("fault")) for row in self.servers() if row["id"] in failed]
        return ids <= self.ids("ACTIVE")

    def ids(self, status: str) -> set[str]:
        """The servers that read so."""
        return {str(row["id"]) for row in self.api("GET", f"/servers?all_tenants=1&status={status}")["servers"]}

    def group(self, policy: str, name: str = "group", max_per_host: int = 0) -> str:
        """The id of a new server group."""
        rules = {"rules": {"max_server_per_host": max_per_host}} if max_per_host else {}
        body = {"server_group": {"name": name, "policy": policy, **rules}}
        return str(self.api("POST", "/os-server-groups", body)["server_group"]["id"])

    def act(self, server_id: str, action: str, body: object = None) -> None:
        self.api("POST", f"/servers/{server_id}/action", {action: body})

    def power_off(self, server_id: str) -> None:
        """As its user would; returns once the server is SHUTOFF."""
        self.act(server_id, "os-stop")
        self.wait("the server is off", lambda: self.server(server_id)["status"] == "SHUTOFF")

    # How it becomes as it was.

    def wipe(self) -> None:
        """No server and no group is left. Needs every host back: Nova cannot delete on a dead one that counts as up."""
        ids = [row["id"] for row in self.servers()]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda one: self.nova.compute.delete(f"/servers/{one}", microversion=MICROVERSION), ids))
        self.wait("all servers are deleted", lambda: not self.servers(), 120)
        for row in self.api("GET", "/os-server-groups?all_projects=True")["server_groups"]:
            self.nova.compute.delete(f"/os-server-groups/{row['id']}", microversion=MICROVERSION)

    def restore(self, hosts: Iterable[str] = ()) -> None:
        """The hosts (all, unless named) run again, are enabled and not forced down, with all their switches cleared."""
        for host in tuple(hosts) or self.hosts:
            for name in SWITCHES:
                self.switch(host, name, None)
            self.command("restore", host)
            self._clean_up_after_evacuations(host)
            self.command("restore", host, "--enable")

    def _clean_up_after_evacuations(self, host: str) -> None:
        """A starting nova-compute ends one evacuation a server; a server that was sent twice needs a second start."""
        for _ in range(3):
            if not self._waits_for_clean_up(host):
                return
            self.command("stop-compute", host)
            self.command("restore", host)
        self.wait(f"{host} has cleaned up", lambda: not self._waits_for_clean_up(host), 30)

    def _waits_for_clean_up(self, host: str) -> bool:
        rows = self.api("GET", f"/os-migrations?migration_type=evacuation&source_compute={host}")["migrations"]
        return any(row["status"] == "done" for row in rows)

    def reset(self) -> None:
        """As after `up`: every host there, nothing on them."""
        self.restore()
        self.wipe()
