# SPDX-License-Identifier: Apache-2.0
"""A real NFS-Ganesha of a test's own: in a network of its own, with a bus and a disk of its own, and hosts beside it
that reach it from addresses of their own. Needs root."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = ("ganesha.nfsd", "rpcbind", "dbus-daemon", "nsenter", "unshare", "ip")
BLOCK = 4096
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={where}/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/>
<allow own="*"/><allow user="*"/></policy></busconfig>
"""
_CONFIG = """NFS_CORE_PARAM {{ Protocols = 3, 4; }}
NFSv4 {{ Graceless = true; Lease_Lifetime = {lease_s}; RecoveryBackend = fs; }}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT_DEFAULTS {{ Access_Type = None; Squash = No_Root_Squash; SecType = sys; Transports = TCP; }}
LOG {{ Default_Log_Level = EVENT; }}
%dir {where}/export.d
"""
EXPORT = """EXPORT {{
  Export_Id = {id}; Path = {path}; Pseudo = /e{id}; Protocols = 3, 4;
  # vmhad: shut out
  # vmhad: end
  {clients}
  FSAL {{ Name = VFS; }}
}}
"""
# Its own /run, for rpcbind's socket; its own /var/lib/nfs, where it keeps who may reclaim.
_UP = """
mount -t tmpfs none /run && mkdir -p /run/rpcbind /run/ganesha && mount --bind {where}/lib /var/lib/nfs &&
ip link set lo up && rpcbind && exec sleep infinity
"""
_START = "exec ganesha.nfsd -F -f {where}/ganesha.conf -L {where}/ganesha.log -p {where}/ganesha.pid"
_numbers = itertools.count(os.getpid() % 8192 * 4)


def lacks() -> str:
    """Why it cannot be started here, or ''."""
    if os.geteuid():
        return "needs root"
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    return f"{', '.join(lacking)} not installed" if lacking else ""


def eventually(what: str, seen: Callable[[], object], limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not seen():
        assert time.monotonic() < end, f"{what}: not within {limit_s} s"
        time.sleep(0.02)


class Ganesha:
    """hosts: those that may write. Each has one address, and a network of its own that ends at the server's."""

    def __init__(self, where: Path, hosts: Sequence[str] = ("h", "other"), lease_s: int = 5) -> None:
        self.where = where
        self.addresses = {host: f"10.213.{number}.2" for number, host in enumerate(hosts, 1)}
        self._ends = ExitStack()
        self._networks: dict[str, int] = {}
        self._daemon: subprocess.Popen[bytes] | None = None
        self.bus_pid = 0
        for folder in ("lib/ganesha", "export.d", "data"):
            (where / folder).mkdir(parents=True, exist_ok=True)
        (where / "bus.conf").write_text(_BUS.format(where=where))
        (where / "ganesha.conf").write_text(_CONFIG.format(where=where, lease_s=lease_s))
        self.export(1)

    def export(self, number: int, clients: str = "", path: str = "data") -> Path:
        """Writes the file of an export, open to all hosts if nothing else is said."""
        (self.where / path).mkdir(exist_ok=True)
        everyone = "CLIENT {{ Clients = {}; Access_Type = RW; }}".format(", ".join(self.addresses.values()))
        text = EXPORT.format(id=number, path=self.where / path, clients=clients or everyone)
        file = self.where / f"export.d/{number}.conf"
        file.write_text(text)
        return file

    @property
    def bus(self) -> str:
        return f"unix:path={self.where}/bus"

    @property
    def files(self) -> str:
        return f"{self.where}/export.d/{{id}}.conf"

    def __enter__(self) -> Ganesha:
        with ExitStack() as ends:
            self.bus_pid = self._spawn(ends, ["dbus-daemon", f"--config-file={self.where}/bus.conf", "--nofork"])
            eventually("a bus", (self.where / "bus").exists)
            server = self._network(ends, _UP.format(where=self.where))
            eventually("rpcbind", lambda: Path(f"/proc/{server}/root/run/rpcbind.sock").exists())
            for host, address in self.addresses.items():
                self._join(host, self._network(ends, "exec sleep infinity"), server, address)
            self._networks[""] = server
            ends.callback(self.stop)
            self.start()
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def start(self) -> None:
        enter = ["nsenter", "-t", str(self._networks[""]), "-n", "-m"]
        with open(self.where / "out", "ab") as out:
            self._daemon = subprocess.Popen(
                [*enter, "sh", "-c", _START.format(where=self.where)],
                env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.bus},
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        eventually("NFS-Ganesha's port", self._listens)

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def hang(self, hung: bool = True) -> None:
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGSTOP if hung else signal.SIGCONT)

    def landed(self, name: str, path: str = "data") -> int:
        """The greatest number that a writer put into its file, as the server's disk has it."""
        file = self.where / path / name.lstrip("/")
        data = file.read_bytes() if file.exists() else b""
        return max((struct.unpack_from("<Q", data, at)[0] for at in range(0, len(data) - 7, BLOCK)), default=0)

    def on_host(self, host: str, *words: str | Path, path: str = "data", name: str = "") -> subprocess.Popen[str]:
        """nfs_client.py, there, on a file of an export, which is /HOST if it has no name of its own."""
        server = self.addresses[host].removesuffix(".2") + ".1"
        client = [sys.executable, "-m", "tests.ports.nfs_client", server, str(self.where / path), f"/{name or host}"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        with open(self.where / "out", "a") as out:
            return subprocess.Popen(
                ["nsenter", "-t", str(self._networks[host]), "-n", *client, *map(str, words)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True, cwd=ROOT, env=environment,
            )  # fmt: skip

    def _listens(self) -> bool:
        assert self._daemon is not None and self._daemon.poll() is None, (self.where / "out").read_text()
        return ":0801 " in Path(f"/proc/{self._networks['']}/net/tcp6").read_text()

    def _network(self, ends: ExitStack, script: str) -> int:
        """A network, and the process that keeps it."""
        kept = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", script]
        outer = self._spawn(ends, kept)
        children = Path(f"/proc/{outer}/task/{outer}/children")
        eventually("a network", lambda: children.read_text().strip())
        return int(children.read_text().split()[0])

    def _join(self, host: str, network: int, server: int, address: str) -> None:
        number = next(_numbers)
        ours, theirs = f"vmg{number}a", f"vmg{number}b"
        near = address.removesuffix(".2") + ".1"
        _ip("link", "add", ours, "netns", str(server), "type", "veth", "peer", "name", theirs, "netns", str(network))
        for where, link, own in ((server, ours, near), (network, theirs, address)):
            inside = ["nsenter", "-t", str(where), "-n", "ip"]
            subprocess.run([*inside, "addr", "add", f"{own}/30", "dev", link], check=True)
            subprocess.run([*inside, "link", "set", link, "up"], check=True)
        self._networks[host] = network

    def _spawn(self, ends: ExitStack, command: Sequence[str]) -> int:
        with open(self.where / "out", "ab") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

        def end() -> None:
            process.kill()
            process.wait()

        ends.callback(end)
        return process.pid


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
