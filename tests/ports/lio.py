# SPDX-License-Identifier: Apache-2.0
"""Linux's own iSCSI target, which most storages of that kind are made of: in a guest, as it lives in a kernel.

Its disks are files of this machine, so that what it wrote can be read past it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from lab.layout import SHARED, locked
from lab.qemu import guest, install
from tests.ports.tgt import TARGET, Target
from vmhad.drivers.storage.iscsi_session import NoLibrary, library

STARTS_WITHIN_S = 90.0
MEMORY_MB = 256
WANTED = ("virtio_pci", "virtio_blk", "virtio_net", "configfs", "iscsi_target_mod", "target_core_iblock")
PROGRAMS = ("sh", "mount", "insmod", "ip", "mkdir", "echo", "ln", "sleep")
INIT = """#!/bin/busybox sh
export PATH=/bin
for pair in proc:/proc sysfs:/sys devtmpfs:/dev; do mount -t ${pair%%:*} none ${pair#*:}; done
for module in MODULES; do insmod /modules/$module.ko; done
mount -t configfs none /sys/kernel/config
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
# Where what is to outlive a power cut is written.
mkdir -p /var/target/pr
core=/sys/kernel/config/target/core/iblock_0
group=/sys/kernel/config/target/iscsi/TARGET/tpgt_1
mkdir -p $group/np/0.0.0.0:3260
number=1
for disk in vda vdb; do
  [ -b /dev/$disk ] || continue
  mkdir -p $core/$disk
  echo udev_path=/dev/$disk > $core/$disk/control
  echo 1 > $core/$disk/enable
  mkdir -p $group/lun/lun_$number
  ln -s $core/$disk $group/lun/lun_$number/$disk
  number=$((number + 1))
done
echo 0 > $group/attrib/authentication
echo 1 > $group/attrib/generate_node_acls
echo 1 > $group/attrib/cache_dynamic_acls
echo 0 > $group/attrib/demo_mode_write_protect
echo 1 > $group/enable
echo TARGET-IS-UP
while :; do sleep 1000; done
"""


def lacks() -> str:
    if shutil.which("qemu-system-x86_64") is None:
        return "qemu-system-x86_64 is not installed"
    try:
        library()
    except NoLibrary as error:
        return str(error)
    return ""


class Lio(Target):
    """writes_per_s: no more are written to each disk, if not 0."""

    def __init__(self, where: Path, luns: int = 1, writes_per_s: int = 0) -> None:
        super().__init__(where, luns)
        self._writes_per_s = writes_per_s

    def start(self) -> None:
        with locked(SHARED / "install.lock"):
            if not install.GUEST.exists():
                install.fetch_guest()
        ramdisk = self._where / "initrd"
        ramdisk.write_bytes(_ramdisk())
        log = self._where / "console"
        kept = f"format=raw,if=virtio,cache=none,throttling.iops-write={self._writes_per_s}"
        with log.open("wb") as console:
            self._process = subprocess.Popen(
                [
                    "qemu-system-x86_64", "-accel", "tcg", "-m", str(MEMORY_MB), "-nographic", "-no-reboot",
                    "-kernel", str(next((install.GUEST / "boot").glob("vmlinuz-*"))), "-initrd", str(ramdisk),
                    "-append", "console=ttyS0 quiet panic=-1",
                    *(word for lun in self.luns for word in ("-drive", f"file={self.disk(lun)},{kept}")),
                    "-netdev", f"user,id=net,hostfwd=tcp:{self.portal}-:3260",
                    "-device", "virtio-net,netdev=net,romfile=",
                ],
                stdout=console, stderr=console, stdin=subprocess.DEVNULL, env=dict(os.environ),
            )  # fmt: skip
        until = time.monotonic() + STARTS_WITHIN_S
        while b"TARGET-IS-UP" not in log.read_bytes():
            if time.monotonic() > until or self._process.poll() is not None:
                self.stop()
                raise AssertionError(f"the guest does not start: {log.read_text(errors='replace')[-400:]}")
            time.sleep(0.1)


def _ramdisk() -> bytes:
    tree = next((install.GUEST / "lib" / "modules").iterdir())
    found = {path.stem.replace("-", "_"): path for path in tree.rglob("*.ko")}
    modules: list[str] = []
    for name in WANTED:
        with_needs(name, found, modules)
    init = INIT.replace("MODULES", " ".join(modules)).replace("TARGET/", f"{TARGET}/")
    return guest.packed(init, PROGRAMS, {name: found[name].read_bytes() for name in modules})


def with_needs(name: str, found: dict[str, Path], modules: list[str]) -> None:
    """What a module needs goes in before it; what is built in has no file."""
    if name in modules or name not in found:
        return
    needs = re.search(rb"depends=([^\0]*)\0", found[name].read_bytes())
    for need in needs[1].decode().split(",") if needs else ():
        if need:
            with_needs(need.replace("-", "_"), found, modules)
    modules.append(name)
