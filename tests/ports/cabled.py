# SPDX-License-Identifier: Apache-2.0
"""Pretended hosts that a real server tells apart by their addresses: each is a network namespace with a cable to this
machine's own. Needs root. All of it vanishes with the process that made it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def lacks() -> str:
    """Why it cannot be had here, or ''."""
    trial = ["unshare", "--net", "true"]
    if os.geteuid() or subprocess.run(trial, capture_output=True, check=False).returncode:
        return "only root can make hosts with addresses of their own"
    return ""


class Cabled:
    """server: the address under which every host reaches this machine, and under which this machine is seen.
    addresses: of the hosts. They are of the range that is set aside for benchmarks, other ones in each process."""

    def __init__(self, hosts: list[str]) -> None:
        net = f"198.18.{os.getpid() % 250}"
        self.server = f"{net}.1"
        self.addresses = {host: f"{net}.{11 + number}" for number, host in enumerate(hosts)}
        self._namespaces: dict[str, subprocess.Popen[bytes]] = {}

    def lay(self) -> None:
        for number, host in enumerate(sorted(self.addresses)):
            self._lay(host, f"vm{os.getpid()}-{number}")

    def _lay(self, host: str, cable: str) -> None:
        address = self.addresses[host]
        # Its parent's death is its own, and the cable's with it.
        holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", "echo up; exec sleep infinity"],
            stdout=subprocess.PIPE,
        )
        self._namespaces[host] = holder
        assert holder.stdout is not None and holder.stdout.readline() == b"up\n"
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        _ip("addr", "add", self.server, "peer", address, "dev", cable)
        _ip("link", "set", cable, "up")
        for words in (
            ["link", "set", "lo", "up"],
            ["addr", "add", address, "peer", self.server, "dev", "eth0"],
            ["link", "set", "eth0", "up"],
        ):
            subprocess.run(self.on(host, "ip", *words), check=True)

    def on(self, host: str, *argv: str | Path) -> list[str]:
        """argv, to be run on that host."""
        return ["nsenter", f"--net=/proc/{self._namespaces[host].pid}/ns/net", *map(str, argv)]

    def end(self) -> None:
        for holder in self._namespaces.values():
            holder.kill()
            holder.wait(10)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
