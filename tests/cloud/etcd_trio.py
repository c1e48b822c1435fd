# SPDX-License-Identifier: Apache-2.0
"""Three etcd members of a test's own, for the lab's single one cannot lose a member and live."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

READY_WITHIN_S = 30.0


class EtcdTrio:
    """endpoints: the client URLs of all three, in the order of their numbers."""

    def __init__(self, folder: Path) -> None:
        binary = shutil.which("etcd")
        assert binary, "needs etcd in PATH: apt-get install etcd-server"
        ports = _free_ports(6)
        self.endpoints = [f"http://127.0.0.1:{port}" for port in ports[:3]]
        peers = [f"http://127.0.0.1:{port}" for port in ports[3:]]
        cluster = ",".join(f"m{number}={peer}" for number, peer in enumerate(peers))
        self.processes: list[subprocess.Popen[bytes]] = []
        self._fallen = ""
        for number, (client, peer) in enumerate(zip(self.endpoints, peers, strict=True)):
            options = {
                "name": f"m{number}", "data-dir": folder / f"m{number}", "initial-cluster": cluster,
                "listen-client-urls": client, "advertise-client-urls": client,
                "listen-peer-urls": peer, "initial-advertise-peer-urls": peer,
            }  # fmt: skip
            with (folder / f"m{number}.log").open("wb") as log:
                self.processes.append(
                    subprocess.Popen([binary, *(f"--{k}={v}" for k, v in options.items())], stdout=log, stderr=log)
                )
        until = time.monotonic() + READY_WITHIN_S
        while not all(_status(one) for one in self.endpoints):
            assert time.monotonic() < until, f"etcd is not healthy; its logs are in {folder}"
            time.sleep(0.1)

    def kill_leader(self) -> int:
        """kill -9 of the member that leads; its number."""
        told = [_status(one) for one in self.endpoints]
        leader = next(n for n, one in enumerate(told) if one and one["leader"] == one["header"]["member_id"])
        self._fallen = told[leader]["leader"]
        self.processes[leader].kill()
        self.processes[leader].wait()
        return leader

    def has_new_leader(self) -> bool:
        """After kill_leader(): those that are left follow another one. Until they elect it they name the dead one."""
        leaders = {one["leader"] for endpoint in self.endpoints if (one := _status(endpoint))}
        return len(leaders) == 1 and self._fallen not in leaders

    def stop(self) -> None:
        for one in self.processes:
            one.kill()
            one.wait()


def _status(endpoint: str) -> dict[str, Any]:
    """{} while it does not answer or knows no leader."""
    try:
        request = urllib.request.Request(f"{endpoint}/v3/maintenance/status", data=b"{}")
        with urllib.request.urlopen(request, timeout=1.0) as answer:
            told: dict[str, Any] = json.load(answer)
            return told if told.get("leader") else {}
    except (urllib.error.URLError, OSError, ValueError):
        return {}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
