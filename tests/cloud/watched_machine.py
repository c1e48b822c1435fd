# SPDX-License-Identifier: Apache-2.0
"""A QEMU guest that stands for a host: a hardware watchdog (i6300esb), a disk on a storage that can hang, and Python.

Its storage is a file that qemu-nbd serves: a qemu-nbd that is stopped is a storage that hangs. Its initramfs holds this
very Python, with the modules that feeding_guest.py loads and no others.
"""

from __future__ import annotations

import json
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from feeding_guest import HOST, MARKER, STORAGE

from lab.qemu import guest, install
from tests.guest_python import ROOT, libraries_of, modules_of
from vmhad.agent.directory import MARKER as MARKER_FILE
from vmhad.agent.directory import RECORDS
from vmhad.agent.record import Record, Torn, from_block

PROGRAM = Path(__file__).with_name("feeding_guest.py")
DISK_BYTES = 32 << 20
LIMIT_S = 60.0
APPLETS = ("sh", "mount", "insmod", "mkdir", "echo")

INIT = """#!/bin/busybox sh
export PATH=/bin
for pair in proc:/proc sysfs:/sys devtmpfs:/dev; do mount -t ${pair%%:*} none ${pair#*:}; done
for module in %(modules)s; do insmod /modules/$module.ko; done
mkdir -p %(storage)s
mount -t ext4 /dev/vda %(storage)s
export PYTHONHOME=%(home)s PYTHONPATH=%(root)s PYTHONDONTWRITEBYTECODE=1 LD_LIBRARY_PATH=%(libraries)s
exec %(python)s %(program)s
"""


def initramfs() -> bytes:
    python = Path(sys.executable).resolve()
    sources = modules_of(PROGRAM)
    native = [python, *(path for path in sources if path.suffix == ".so")]
    libraries = sorted({path for one in native for path in libraries_of(one)})
    files = {str(path)[1:]: path.read_bytes() for path in (*native, *libraries, *sources, PROGRAM)}
    init = INIT % {
        "modules": " ".join(install.WATCHDOG_MODULES), "home": sys.base_prefix, "root": ROOT, "python": python,
        "program": PROGRAM, "storage": STORAGE, "libraries":
        ":".join(sorted({str(path.parent) for path in libraries})),
    }  # fmt: skip
    modules = {name: (install.WATCHDOG_GUEST / f"{name}.ko").read_bytes() for name in install.WATCHDOG_MODULES}
    return guest.packed(init, APPLETS, modules, files, level=1)


class WatchedMachine:
    """Runs from start() to stop(). Its events come with the time at which QEMU says that they happened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk, self.console = folder / "disk", folder / "console.log"
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        content = self.folder / "content"
        content.mkdir()
        (content / MARKER_FILE).write_text(MARKER)
        with self.disk.open("wb") as file:
            file.truncate(DISK_BYTES)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", content, self.disk], check=True)
        (self.folder / "initramfs").write_bytes(initramfs())
        door = self.folder / "nbd"
        self._processes.append(subprocess.Popen(["qemu-nbd", "--persistent", "-f", "raw", "-k", door, self.disk]))
        self._await(door)
        self._processes.append(subprocess.Popen(self._machine(door), stdin=subprocess.DEVNULL))
        self._await(self.folder / "qmp")
        threading.Thread(target=self._listen, daemon=True).start()

    def _machine(self, door: Path) -> list[str]:
        return [
            "qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "256", "-nodefaults", "-display", "none",
            "-kernel", f"{install.WATCHDOG_GUEST}/vmlinuz", "-initrd", f"{self.folder}/initramfs",
            "-append", "console=ttyS0 panic=1 quiet", "-serial", f"file:{self.console}",
            "-drive", f"file=nbd+unix:///?socket={door},format=raw,if=virtio,cache=none,werror=report",
            "-device", "i6300esb", "-action", "watchdog=reset",
            "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off",
        ]  # fmt: skip

    @staticmethod
    def _await(path: Path) -> None:
        until = time.monotonic() + LIMIT_S
        while not path.exists():
            assert time.monotonic() < until, f"not within {LIMIT_S:g} s: {path}"
            time.sleep(0.05)

    def _listen(self) -> None:
        with socket.socket(socket.AF_UNIX) as talk:
            talk.connect(str(self.folder / "qmp"))
            talk.sendall(b'{"execute": "qmp_capabilities"}\n')
            for line in talk.makefile():
                if "event" in (said := json.loads(line)):
                    self.events.put(said)

    def hang_storage(self) -> None:
        self._processes[0].send_signal(signal.SIGSTOP)

    def record(self) -> Record | None:
        """As a peer reads it on the storage; None where there is none, or a torn one."""
        asked = ["debugfs", "-R", f"cat /{RECORDS}/{HOST}", self.disk]
        block = subprocess.run(asked, capture_output=True, check=True).stdout
        try:
            return from_block(block, HOST) if block else None
        except Torn:
            return None

    def said(self, text: str) -> bool:
        return self.console.exists() and text in self.console.read_text(errors="replace")

    def stop(self) -> None:
        for one in reversed(self._processes):
            one.kill()
            one.wait()
