# SPDX-License-Identifier: Apache-2.0
"""A real NFS-Ganesha of a test's own: in a network of its own, with a bus and a disk of its own, and hosts beside it
that reach it from addresses of their own. Needs root."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = ("ganesha.nfsd", "rpcbind", "rpc.statd", "dbus-daemon", "nsenter", "unshare", "ip", "sshd", "ssh-keygen")
BLOCK = 4096
LEASE_S = 5
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={where}/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/>
<allow own="*"/><allow user="*"/></policy></busconfig>
"""
_CONFIG = """NFS_CORE_PARAM {{ Protocols = 3, 4; {bind} }}
NFSv4 {{ Graceless = {graceless}; Grace_Period = {lease_s}; Lease_Lifetime = {lease_s}; RecoveryBackend = fs; }}
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
# Its own /run, for rpcbind and the status monitor; its own /var/lib/nfs, where it keeps who may reclaim.
_UP = """
mount -t tmpfs none /run && mkdir -p /run/rpcbind /run/ganesha /run/sshd /run/nsm/sm /run/nsm/sm.bak &&
mount --bind {where}/lib /var/lib/nfs && chown -R statd /run/nsm && ip link set lo up &&
rpcbind && rpc.statd --no-notify -P /run/nsm && touch {where}/up && exec sleep infinity
"""
# Root may come in with its key alone, for the one program that stands beside the key.
_SSHD = """ListenAddress {address}
HostKey {where}/ssh/host
AuthorizedKeysFile {where}/ssh/authorized_keys
PermitRootLogin forced-commands-only
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
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

    def __init__(
        self, where: Path, hosts: Sequence[str] = ("h", "other"), graceless: bool = True, listens_at: str = ""
    ) -> None:
        self.where = where
        self.addresses = {host: f"10.213.{number}.2" for number, host in enumerate(hosts, 1)}
        self.addresses6 = {host: f"fd00:213:{number}::2" for number, host in enumerate(hosts, 1)}
        self._ends = ExitStack()
        self._networks: dict[str, int] = {}
        self._daemon: subprocess.Popen[bytes] | None = None
        self.bus_pid = 0
        bind = f"Bind_addr = {listens_at};" if listens_at else ""
        for folder in ("lib/ganesha", "export.d", "data"):
            (where / folder).mkdir(parents=True, exist_ok=True)
        (where / "bus.conf").write_text(_BUS.format(where=where))
        (where / "ganesha.conf").write_text(
            _CONFIG.format(where=where, lease_s=LEASE_S, graceless=str(graceless).lower(), bind=bind)
        )
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
            eventually("rpcbind and rpc.statd", (self.where / "up").exists)
            for host, address in self.addresses.items():
                self._networks[host] = self._network(ends, "exec sleep infinity")
                far = (f"{address}/30", f"{self.addresses6[host]}/64")
                near = tuple(one.replace(".2/", ".1/").replace("::2/", "::1/") for one in far)
                self._cable(server, self._networks[host], near, far)
            self._networks[""] = server
            ends.callback(self.stop)
            self.start()
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def let_in(self) -> dict[str, object]:
        """An sshd on the server, as an engine elsewhere finds it; the settings for it."""
        address = self._cable_to_engine()
        keys = self.where / "ssh"
        keys.mkdir()
        for name in ("host", "engine"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True)
        program = (
            f"{sys.executable} -m vmhad.drivers.storage.ganesha_server --dbus-address {self.bus} --files {self.files}"
        )
        key = (keys / "engine.pub").read_text()
        (keys / "authorized_keys").write_text(f'restrict,command="cd {ROOT} && exec {program}" {key}')
        (keys / "known_hosts").write_text(f"{address} {(keys / 'host.pub').read_text()}")
        (keys / "config").write_text(_SSHD.format(where=self.where, address=address))
        enter = ["nsenter", "-t", str(self._networks[""]), "-n", "-m"]
        self._spawn(self._ends, [*enter, shutil.which("sshd") or "sshd", "-D", "-e", "-f", str(keys / "config")])
        eventually("sshd", lambda: self._listens("0016"))
        return {
            "ssh": f"root@{address}",
            "identity_file": str(keys / "engine"),
            "known_hosts_file": str(keys / "known_hosts"),
        }

    def _cable_to_engine(self) -> str:
        """The server's address there, of a network that the host of the test, where the engine runs, has none in."""
        with open(Path(tempfile.gettempdir()) / "vmhad-tests.addresses", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            taken = subprocess.run(["ip", "-o", "addr"], check=True, capture_output=True, text=True).stdout
            number = next(one for one in range(100, 250) if f" 10.213.{one}." not in taken)
            self._cable(self._networks[""], os.getpid(), [f"10.213.{number}.1/30"], [f"10.213.{number}.2/30"])
        return f"10.213.{number}.1"

    def start(self) -> None:
        enter = ["nsenter", "-t", str(self._networks[""]), "-n", "-m"]
        with open(self.where / "out", "ab") as out:
            self._daemon = subprocess.Popen(
                [*enter, "sh", "-c", _START.format(where=self.where)],
                env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.bus},
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        eventually("NFS-Ganesha's port", lambda: self._listens("0801"))

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

    def on_host(
        self,
        host: str,
        *words: str | Path,
        path: str = "data",
        name: str = "",
        program: str = "nfs_client",
        over6: bool = False,
    ) -> subprocess.Popen[str]:
        """A client there, on a file of an export (path, or NFSv4's name of it), /HOST if it has no name of its own."""
        server = (self.addresses6 if over6 else self.addresses)[host].removesuffix("2") + "1"
        export = path if path.startswith("/") else str(self.where / path)
        client = [sys.executable, "-m", f"tests.ports.{program}", server, export, f"/{name or host}"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        with open(self.where / "out", "a") as out:
            return subprocess.Popen(
                ["nsenter", "-t", str(self._networks[host]), "-n", *client, *map(str, words)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True, cwd=ROOT, env=environment,
            )  # fmt: skip

    def _listens(self, port: str) -> bool:
        assert self._daemon is not None and self._daemon.poll() is None, (self.where / "out").read_text()
        tables = (Path(f"/proc/{self._networks['']}/net/{name}") for name in ("tcp", "tcp6"))
        return any(f":{port} " in table.read_text() for table in tables)

    def _network(self, ends: ExitStack, script: str) -> int:
        """A network, and the process that keeps it."""
        kept = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", script]
        outer = self._spawn(ends, kept)
        children = Path(f"/proc/{outer}/task/{outer}/children")
        eventually("a network", lambda: children.read_text().strip())
        return int(children.read_text().split()[0])

    def _cable(self, one: int, other: int, addresses: Sequence[str], other_addresses: Sequence[str]) -> None:
        """Between two networks, by the processes that keep them."""
        number = next(_numbers)
        ends = ((one, f"vmg{number}a", addresses), (other, f"vmg{number}b", other_addresses))
        near = ["link", "add", ends[0][1], "netns", str(one), "type", "veth"]
        subprocess.run(["ip", *near, "peer", "name", ends[1][1], "netns", str(other)], check=True)
        for pid, name, own in ends:
            inside = ["nsenter", "-t", str(pid), "-n", "ip"]
            for address in own:
                at_once = ["nodad"] if ":" in address else []
                subprocess.run([*inside, "addr", "add", address, "dev", name, *at_once], check=True)
            subprocess.run([*inside, "link", "set", name, "up"], check=True)

    def _spawn(self, ends: ExitStack, command: Sequence[str]) -> int:
        with open(self.where / "out", "ab") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

        def end() -> None:
            process.kill()
            process.wait()

        ends.callback(end)
        return process.pid
