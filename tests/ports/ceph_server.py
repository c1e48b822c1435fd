# SPDX-License-Identifier: Apache-2.0
"""The smallest real Ceph that a host can be cut off: one monitor and two OSDs in memory, in a directory of its own.

Every OSD is the first one of some placement groups, so a cut has to reach both. The hosts are clients with addresses
of their own; the servers and whoever fences have this machine's. With a host beside them that has daemons, too, there
are three monitors and three OSDs, one of each on that host.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ports.loopback import free_port

POOL, SECOND_POOL = "vms", "volumes"
PG_NUM = {POOL: 16, SECOND_POOL: 8}
OSDS = ("0", "1")
OSD_BESIDE, MON_BESIDE, HOST_BESIDE, MON_PORT = "2", "c", "beside.example", 3300
READY_WITHIN_S = 60.0
# What an operator gives vmhad, as the documents say; and what Nova has.
VMHAD, VMHAD_CAPS = "vmhad", (
    "mon", 'allow r, allow command "osd blocklist", allow command "sessions"',
    "osd", ", ".join(f"allow rwx pool={pool} namespace=vmhad" for pool in PG_NUM),
)  # fmt: skip
NOVA, NOVA_CAPS = "nova", ("mon", "profile rbd", "osd", ", ".join(f"profile rbd pool={pool}" for pool in PG_NUM))
SETTINGS = """[global]
fsid = {fsid}
mon_host = v2:{address}:{port}
public_addr = {address}
osd_pool_default_size = 2
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
memstore_device_bytes = 1073741824
mon_data_avail_warn = 1
mon_data_avail_crit = 1
run_dir = {where}
admin_socket = {where}/$name.asok
pid_file =
keyring = {where}/$name.keyring
mon_data = {where}/mon-$id
osd_data = {where}/osd-$id
log_file = {where}/$type-$id.log
[client]
admin_socket =
log_file =
"""
# A monitor that goes missing is missed sooner than after half a minute, and who takes over from an OSD reads sooner.
IMPATIENT = """[global]
mon_lease = 2
mon_election_timeout = 2
mon_client_ping_interval = 1
mon_client_ping_timeout = 4
osd_pool_default_read_lease_ratio = 0.2
"""


def lacks() -> str:
    """Why it cannot run here, or ''."""
    for name in ("ceph-mon", "ceph-osd", "ceph-authtool", "monmaptool"):
        if shutil.which(name) is None:
            return f"{name} is not installed"
    try:
        import rados  # noqa: F401
    except ImportError:
        return "Ceph's Python binding cannot be imported"
    return ""


@dataclass(frozen=True)
class Beside:
    """A host that has an OSD and a monitor of the cluster. on: makes a command one that runs on that host."""

    on: Callable[..., list[str]]
    osd_address: str
    monitor_address: str


class CephServer:
    def __init__(self, where: Path, address: str, beside: Beside | None = None) -> None:
        self._where = where
        self.address = address
        self.conf_file = where / "ceph.conf"
        self._beside = beside
        self._port = free_port()
        self._argv: dict[str, list[str]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._hung = False
        self._admin: Any = None

    def start(self) -> None:
        self._where.mkdir(parents=True, exist_ok=True)
        fsid = str(uuid.uuid4())
        text = SETTINGS.format(fsid=fsid, address=self.address, port=self._port, where=self._where)
        self.conf_file.write_text(text + (IMPATIENT if self._beside is not None else ""))
        self._make_monitors(fsid)
        self._admin = self._client()
        for osd in OSDS:
            self._add_osd(osd)
        if self._beside is not None:
            self._add_osd(OSD_BESIDE, "--public-addr", self._beside.osd_address)
        self.wait_for_osds()
        for pool, groups in PG_NUM.items():
            self.ask("osd pool create", pool=pool, pg_num=groups, pool_type="replicated")
            self.ask("osd pool application enable", pool=pool, app="rbd")
        for user, caps in ((VMHAD, VMHAD_CAPS), (NOVA, NOVA_CAPS)):
            self.add_user(user, caps)

    def _make_monitors(self, fsid: str) -> None:
        at = {"a": f"v2:{self.address}:{self._port}"}
        if self._beside is not None:
            # Two others are a quorum when this one is cut off.
            at |= {"b": f"v2:{self.address}:{free_port()}", MON_BESIDE: f"v2:{self._beside.monitor_address}:{MON_PORT}"}
        monmap, keys = str(self._where / "monmap"), self._where / "mon.keyring"
        listed = [word for name, address in at.items() for word in ("--addv", name, f"[{address}]")]
        _run("monmaptool", "--clobber", "--create", *listed, "--fsid", fsid, monmap)
        _run("ceph-authtool", "--create-keyring", str(keys), "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        self.keyring("admin").touch()
        _run("ceph-authtool", str(self.keyring("admin")), "--gen-key", "-n", "client.admin",
             "--cap", "mon", "allow *", "--cap", "osd", "allow *")  # fmt: skip
        _run("ceph-authtool", str(keys), "--import-keyring", str(self.keyring("admin")))
        for name, address in at.items():
            (self._where / f"mon.{name}.keyring").write_text(keys.read_text())
            made = ("--mkfs", "-i", name, "--monmap", monmap, "--keyring", str(keys))
            _run("ceph-mon", "-c", str(self.conf_file), *made)
            self._serve(f"mon-{name}", "ceph-mon", "-f", "-i", name, "--public-addr", address)

    def add_user(self, user: str, caps: tuple[str, ...]) -> None:
        self._write_key(self.keyring(user), f"client.{user}", caps)

    def keyring(self, user: str) -> Path:
        return self._where / f"client.{user}.keyring"

    def _add_osd(self, osd: str, *where: str) -> None:
        identity = str(uuid.uuid4())
        (self._where / f"osd-{osd}").mkdir()
        self.ask("osd new", uuid=identity)
        caps = ("mon", "allow profile osd", "osd", "allow *")
        self._write_key(self._where / f"osd.{osd}.keyring", f"osd.{osd}", caps)
        _run("ceph-osd", "-c", str(self.conf_file), "-i", osd, "--mkfs", "--osd-uuid", identity)
        self._serve(f"osd-{osd}", "ceph-osd", "-f", "-i", osd, *where)

    def _write_key(self, path: Path, entity: str, caps: tuple[str, ...]) -> None:
        made = self.ask("auth get-or-create", entity=entity, caps=list(caps))
        path.write_text(f"[{entity}]\n\tkey = {made[0]['key']}\n")

    def end(self) -> None:
        if self._admin is not None:
            self._admin.shutdown()
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait(10)

    def hang(self, *names: str) -> None:
        """All of it, or only these: mon-a, osd-0, osd-1."""
        self._hung = True
        for name in names or sorted(self._processes):
            self._processes[name].send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        if self._hung:
            self._hung = False
            for process in self._processes.values():
                process.send_signal(signal.SIGCONT)
            self.wait_for_osds()

    def ask(self, prefix: str, **arguments: object) -> Any:
        """What the monitor answers to its administrator."""
        code, said, words = self._admin.mon_command(
            json.dumps({"prefix": prefix, "format": "json", **arguments}), b"", timeout=int(READY_WITHIN_S))
        if code:
            raise AssertionError(f"{prefix}: {code} {words}")
        return json.loads(said) if said.strip() else None

    def objects(self, pool: str) -> Any:
        """Of the pool, as its administrator sees them."""
        return self._admin.open_ioctx(pool)

    def _client(self) -> Any:
        import rados

        limit = str(int(READY_WITHIN_S))
        limits = {"client_mount_timeout": limit, "rados_mon_op_timeout": limit, "rados_osd_op_timeout": limit}
        cluster = rados.Rados(conffile=str(self.conf_file), rados_id="admin", conf=limits)
        cluster.connect()
        return cluster

    def restart(self, name: str) -> None:
        """One of the daemons is killed, and started again."""
        self._processes[name].kill()
        self._processes[name].wait(10)
        self._start(name)

    def _serve(self, name: str, *argv: str) -> None:
        is_beside = self._beside is not None and name in (f"osd-{OSD_BESIDE}", f"mon-{MON_BESIDE}")
        self._argv[name] = [*argv, "-c", str(self.conf_file)]
        if self._beside is not None and is_beside:
            # Daemons tell the name of their host.
            named = ("unshare", "--uts", "sh", "-c", f'hostname {HOST_BESIDE}; exec "$@"', "sh")
            self._argv[name] = self._beside.on(*named, *self._argv[name])
        self._start(name)

    def _start(self, name: str) -> None:
        with (self._where / f"{name}.out").open("ab") as log:
            self._processes[name] = subprocess.Popen(self._argv[name], stdout=log, stderr=log)

    def wait_for_osds(self) -> None:
        until = time.monotonic() + READY_WITHIN_S
        while self.ask("osd stat")["num_up_osds"] < len([name for name in self._processes if name.startswith("osd-")]):
            dead = [name for name, process in self._processes.items() if process.poll() is not None]
            if dead or time.monotonic() > until:
                raise AssertionError(f"not all OSDs are up; ended: {dead}; see {self._where}")
            time.sleep(0.1)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=READY_WITHIN_S)
    if done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.stderr.strip()[-500:]}")
