# SPDX-License-Identifier: Apache-2.0
"""A host with a kernel of its own, in a QEMU guest: its paths to LUNs are the kernel's, and so are their nexuses.

It has Linux's own target in it, too, with a LUN that it reaches by iSCSI as any other; the driver reaches it from
outside. Python lies in it where it lies here, with the modules that registering_guest.py loads and no others.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lab.layout import SHARED, locked
from lab.qemu import guest, install
from tests.guest_python import ROOT, libraries_of, modules_of
from tests.ports.lio import lacks as lio_lacks
from tests.ports.lio import with_needs
from tests.ports.tgt import DISK_BYTES, free_port
from tests.ports.tgt import lacks as tgt_lacks
from tests.storage import registering_guest

PROGRAM = Path(registering_guest.__file__)
INITIATOR = SHARED / "initiator"
PACKAGES = ("open-iscsi", "libopeniscsiusr")
LIO_TARGET = "iqn.2026-01.example.vmhad:inner"
INNER, OUTER = "127.0.0.1", "10.0.2.2"
STARTS_WITHIN_S = 120.0
ANSWERS_WITHIN_S = 60.0
WANTED = ("virtio_pci", "virtio_blk", "virtio_net", "sd_mod", "iscsi_tcp", "configfs", "iscsi_target_mod",
          "target_core_iblock")  # fmt: skip
APPLETS = ("sh", "mount", "insmod", "ip", "mkdir", "echo", "ln")
INIT = """#!/bin/busybox sh
export PATH=/bin
for pair in proc:/proc sysfs:/sys devtmpfs:/dev tmpfs:/run; do mount -t ${pair%%%%:*} none ${pair#*:}; done
for module in %(modules)s; do insmod /modules/$module.ko; done
mount -t configfs none /sys/kernel/config
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
mkdir -p /var/target/pr
core=/sys/kernel/config/target/core/iblock_0/vda
group=/sys/kernel/config/target/iscsi/%(target)s/tpgt_1
mkdir -p $group/np/0.0.0.0:3260 $core
echo udev_path=/dev/vda > $core/control
echo 1 > $core/enable
mkdir -p $group/lun/lun_1
ln -s $core $group/lun/lun_1/vda
for word in authentication:0 generate_node_acls:1 cache_dynamic_acls:1 demo_mode_write_protect:0; do
  echo ${word#*:} > $group/attrib/${word%%%%:*}
done
echo 1 > $group/enable
export PYTHONHOME=%(home)s PYTHONPATH=%(root)s PYTHONDONTWRITEBYTECODE=1 LD_LIBRARY_PATH=%(libraries)s
exec %(python)s %(program)s
"""


def lacks() -> str:
    return tgt_lacks() or lio_lacks()


class Host:
    """Runs from start() to stop()."""

    def __init__(self, where: Path) -> None:
        self._where = where
        self.disk = where / "disk"
        with self.disk.open("wb") as made:
            made.truncate(DISK_BYTES)
        self.target_port, self._order_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Any = None

    def start(self) -> None:
        with locked(SHARED / "install.lock"):
            if not install.GUEST.exists():
                install.fetch_guest()
            if not INITIATOR.exists():
                fetch_initiator()
        ramdisk, log = self._where / "initrd", self._where / "console"
        ramdisk.write_bytes(_ramdisk())
        forwards = f"hostfwd=tcp:127.0.0.1:{self.target_port}-:3260"
        forwards += f",hostfwd=tcp:127.0.0.1:{self._order_port}-:{registering_guest.PORT}"
        with log.open("wb") as console:
            self._process = subprocess.Popen(
                [
                    "qemu-system-x86_64", "-accel", "tcg", "-m", "512", "-nographic", "-no-reboot",
                    "-kernel", str(next((install.GUEST / "boot").glob("vmlinuz-*"))), "-initrd", str(ramdisk),
                    "-append", "console=ttyS0 quiet panic=-1",
                    "-drive", f"file={self.disk},format=raw,if=virtio,cache=none",
                    "-netdev", f"user,id=net,{forwards}", "-device", "virtio-net,netdev=net,romfile=",
                ],
                stdout=console, stderr=console, stdin=subprocess.DEVNULL, env=dict(os.environ),
            )  # fmt: skip
        until = time.monotonic() + STARTS_WITHIN_S
        while b"HOST-IS-UP" not in log.read_bytes():
            if time.monotonic() > until or self._process.poll() is not None:
                self.stop()
                raise AssertionError(f"the guest does not start: {log.read_text(errors='replace')[-1500:]}")
            time.sleep(0.1)
        self._line = socket.create_connection(("127.0.0.1", self._order_port), ANSWERS_WITHIN_S).makefile("rw")

    def ask(self, order: str, **words: object) -> Any:
        self._line.write(json.dumps({"do": order, **words}) + "\n")
        self._line.flush()
        return json.loads(self._line.readline())

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def fetch_initiator() -> None:
    """Out of its packages: installed it would change how this machine boots."""
    with tempfile.TemporaryDirectory(dir=SHARED) as folder:
        install.run(["apt-get", "-q", "update"])
        install.run(["apt-get", "-q", "download", *PACKAGES], cwd=folder)
        for package in sorted(Path(folder).glob("*.deb")):
            install.run(["dpkg-deb", "--extract", package, f"{folder}/tree"])
        shutil.move(f"{folder}/tree", INITIATOR)


def _ramdisk() -> bytes:
    python = Path(sys.executable).resolve()
    sources = modules_of(PROGRAM, ["encodings.idna"])
    own = next(INITIATOR.rglob("libopeniscsiusr.so.*"))
    starter = next(INITIATOR.rglob("iscsistart"))
    native = [python, *(path for path in sources if path.suffix == ".so"), own, starter]
    libraries = sorted({path for one in native for path in libraries_of(one, own.parent)} - {own})
    modules = _kernel_modules()
    files = {str(path)[1:]: path.read_bytes() for path in (python, *libraries, *sources, PROGRAM)}
    init = INIT % {
        "modules": " ".join(modules), "target": LIO_TARGET, "home": sys.base_prefix, "root": ROOT, "python": python,
        "program": PROGRAM, "libraries": ":".join(["/lib", *sorted({str(path.parent) for path in libraries})]),
    }  # fmt: skip
    files |= {"bin/iscsistart": starter.read_bytes(), f"lib/{own.name}": own.read_bytes()}
    contents = {name: path.read_bytes() for name, path in modules.items()}
    return guest.packed(init, APPLETS, contents, files, folders=("run",), level=1)


def _kernel_modules() -> dict[str, Path]:
    tree = next((install.GUEST / "lib" / "modules").iterdir())
    found = {path.stem.replace("-", "_"): path for path in tree.rglob("*.ko")}
    names: list[str] = []
    for name in WANTED:
        with_needs(name, found, names)
    return {name: found[name] for name in names}
