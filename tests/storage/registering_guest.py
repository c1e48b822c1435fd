# SPDX-License-Identifier: Apache-2.0
"""What runs in a guest that stands for a host: the agent's eye on the paths to LUNs, in a process of its own, and who
starts, stops and asks it, and writes to those paths as a guest's disk does, by orders that come by TCP.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import socketserver
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from vmhad.agent import registrations
from vmhad.agent.bootclock import boot_id, boot_s
from vmhad.agent.lun_memory import KeptFile, LunMemory
from vmhad.agent.lun_paths import paths
from vmhad.agent.registrations import Registrations, Reserved
from vmhad.agent.scsi_device import Device
from vmhad.scsi.marks import PREFIX, marks_of
from vmhad.scsi.nexus import Answer
from vmhad.scsi.scsi_bytes import Out

PORT = 7000
HOST, KEY = "h", 0xA1
WRITE_BYTES = 4096
MEMORY, WORDS, HOLD = Path("/run/registrations.json"), Path("/run/words"), Path("/run/hold")
TELLS_S = 0.1
# More often than on a host, so that nobody waits for it.
LOOKS_S = 0.3


class Held(Device):
    """Stops its own process, where that was asked for, between the look and the registration."""

    def command(self, lun: int, cdb: bytes, out: bytes = b"", wanted: int = 0) -> Answer:
        if cdb[:2] == bytes((0x5F, Out.REGISTER)) and HOLD.exists():
            HOLD.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().command(lun, cdb, out, wanted)


def agent(target: str) -> None:
    registrations.Device = Held  # type: ignore[misc]
    registrations.LOOKS_S = registrations.LISTS_S = LOOKS_S
    marks = marks_of(HOST, PREFIX)
    reserved = Reserved("lun-a", KEY, marks, frozenset({(target, 1)}), frozenset())
    eye = Registrations([reserved], LunMemory(KeptFile(MEMORY), boot_id()))
    eye.start()
    while True:
        words = [list(eye.tell(boot_s()).hardware), [one.word for one in eye._watched.values()]]
        fresh = WORDS.with_suffix(".new")
        fresh.write_text(json.dumps(words))
        fresh.replace(WORDS)
        time.sleep(TELLS_S)


class Orders(socketserver.StreamRequestHandler):
    """One a line."""

    # The process of the agent; 0: there is none.
    running = 0

    def handle(self) -> None:
        for line in self.rfile:
            order = json.loads(line)
            said = getattr(self, order.pop("do"))(**order)
            self.wfile.write(json.dumps(said).encode() + b"\n")

    def login(self, address: str, port: int, target: str) -> str:
        """The kernel's own initiator. Its answers may be late on a busy machine; nobody gives it up for that."""
        asked = subprocess.run(
            [
                "/bin/iscsistart", "-i", f"iqn.2026-01.example.vmhad:{HOST}", "-t", target, "-g", "1",
                "-a", address, "-p", str(port), "-P", "node.conn[0].timeo.noop_out_interval=0",
                "-P", "node.session.timeo.replacement_timeout=120",
            ],
            capture_output=True, text=True,
        )  # fmt: skip
        return f"{asked.returncode} {asked.stdout} {asked.stderr}"

    def paths(self, target: str) -> list[list[Any]]:
        return [[one.name, one.target, one.number, one.wwid] for one in paths(Path("/")) if one.target == target]

    def start(self, target: str) -> None:
        """Anew, by the memory that is kept for this boot. Python itself would take seconds to start here."""
        self.kill()
        WORDS.unlink(missing_ok=True)
        Orders.running = os.fork()
        if Orders.running == 0:
            try:
                agent(target)
            finally:
                os._exit(1)

    def kill(self) -> None:
        if Orders.running:
            os.kill(Orders.running, signal.SIGKILL)
            os.waitpid(Orders.running, 0)
            Orders.running = 0

    def hold(self) -> None:
        HOLD.touch()

    def is_stopped(self) -> bool:
        return Path(f"/proc/{Orders.running}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def go_on(self) -> None:
        os.kill(Orders.running, signal.SIGCONT)

    def words(self) -> Any:
        return json.loads(WORDS.read_text()) if WORDS.exists() else None

    def boot(self) -> None:
        """As far as the agent can tell."""
        MEMORY.unlink(missing_ok=True)

    def vanish(self, name: str) -> None:
        Path(f"/sys/block/{name}/device/delete").write_text("1")

    def appear(self) -> None:
        for host in sorted(Path("/sys/class/scsi_host").iterdir()):
            (host / "scan").write_text("- - -")

    def write(self, name: str, number: int) -> str:
        """'' or the error that a guest's disk would get."""
        room = mmap.mmap(-1, WRITE_BYTES)
        room.write(number.to_bytes(8) + bytes(WRITE_BYTES - 8))
        try:
            file = os.open(f"/dev/{name}", os.O_WRONLY | os.O_DIRECT | os.O_SYNC)
            try:
                os.pwrite(file, room, 0)
            finally:
                os.close(file)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return ""


def main() -> None:
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("0.0.0.0", PORT), Orders) as server, suppress(KeyboardInterrupt):  # noqa: S104
        print("HOST-IS-UP", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
