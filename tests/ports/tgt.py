# SPDX-License-Identifier: Apache-2.0
"""A real iSCSI target in user space: tgtd with sockets and disks of its own, and the hosts that use it, as their agents
should have them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from vmhad.drivers.storage.iscsi_session import NoLibrary, Portal, Session, library
from vmhad.drivers.storage.scsi_lun import Lun
from vmhad.scsi import scsi_bytes as scsi
from vmhad.scsi.marks import PREFIX, marks_of
from vmhad.scsi.nexus import Answer
from vmhad.scsi.scsi_bytes import Out

TARGET = "iqn.2026-01.example.vmhad:disks"
FENCER = "iqn.2026-01.example.vmhad:fencer"
OPERATOR = "iqn.2026-01.example.vmhad:operator"
BLOCK = 512
WRITE_BYTES = 4096
DISK_BYTES = 1024 * 1024
STARTS_WITHIN_S = 10.0
TRIES = 8


def lacks() -> str:
    for program in ("tgtd", "tgtadm"):
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            return f"{program} is not installed"
    if os.geteuid() != 0:
        return "tgtd is only for root"
    try:
        library()
    except NoLibrary as error:
        return str(error)
    return ""


def free_port() -> int:
    """Below the range the kernel gives to clients."""
    while True:
        port = random.randrange(15000, 30000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Target:
    """An iSCSI target in a process of its own, with some LUNs, numbered from 1, each kept in a file."""

    def __init__(self, where: Path, luns: int = 1) -> None:
        where.mkdir(parents=True, exist_ok=True)
        self._where = where
        self.port = free_port()
        self.luns = tuple(range(1, luns + 1))
        self._process: subprocess.Popen[bytes] | None = None
        for lun in self.luns:
            with self.disk(lun).open("wb") as made:
                made.truncate(DISK_BYTES)

    @property
    def portal(self) -> str:
        return f"127.0.0.1:{self.port}"

    def disk(self, lun: int = 1) -> Path:
        return self._where / f"disk-{lun}"

    def start(self) -> None:
        raise NotImplementedError

    def numbers(self, lun: int = 1) -> list[int]:
        """What each block of the disk begins with, read past all initiators."""
        data = self.disk(lun).read_bytes()
        return [int.from_bytes(data[at : at + 8]) for at in range(0, len(data), WRITE_BYTES)]

    def hang(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a power cut of the target: what it kept in memory is gone."""
        assert self._process is not None
        self._signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


class Tgt(Target):
    """tgtd. The socket of its control lies in a directory of a short name. flags: words more for tgtadm, of how disks
    are opened."""

    def __init__(self, where: Path, luns: int = 1, flags: Sequence[str] = ()) -> None:
        super().__init__(where, luns)
        self._flags = tuple(flags)
        self._control = Path(tempfile.mkdtemp(prefix="tgt-"))

    def start(self) -> None:
        with (self._where / "tgtd.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["tgtd", "-f", "-C", "1", "--iscsi", f"portal={self.portal}"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environment(),
            )  # fmt: skip
        until = time.monotonic() + STARTS_WITHIN_S
        while self._adm("--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET, check=False):
            if time.monotonic() > until or self._process.poll() is not None:
                self.stop()
                raise AssertionError(f"tgtd does not start: {(self._where / 'tgtd.log').read_text()[-400:]}")
            time.sleep(0.05)
        for lun in self.luns:
            self.add(lun)
        self._adm("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")

    def add(self, lun: int) -> None:
        kept_in = ("-b", str(self.disk(lun)), *self._flags)
        self._adm("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", str(lun), *kept_in)

    def remove(self, lun: int) -> None:
        self._adm("--op", "delete", "--mode", "logicalunit", "--tid", "1", "--lun", str(lun))

    def require(self, user: str, password: str) -> None:
        """Who logs in from now on has to know these. tgtadm has no other way to be told than by its arguments."""
        self._adm("--op", "new", "--mode", "account", "--user", user, "--password", password)
        self._adm("--op", "bind", "--mode", "account", "--tid", "1", "--user", user)

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self._control, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        return dict(os.environ, TGT_IPC_SOCKET=str(self._control / "s"), PATH=path)

    def _adm(self, *words: str, check: bool = True) -> int:
        asked = subprocess.run(
            ["tgtadm", "-C", "1", "--lld", "iscsi", *words], capture_output=True, text=True, env=self._environment()
        )
        if check and asked.returncode:
            raise AssertionError(f"tgtadm {' '.join(words[:4])}: {asked.stderr}")
        return asked.returncode


class Client:
    """A nexus of a host, and what its agent does for it: registers it once, only where no cut of the host stands."""

    def __init__(self, tgt: Target, host: str, key: int, allowed_s: float = 10.0, luns: Sequence[int] = ()) -> None:
        self._allowed_s = allowed_s
        self.luns = tuple(luns or tgt.luns)
        name = f"iqn.2026-01.example.vmhad:{host}"
        self.session = Session(Portal(tgt.portal, TARGET, name), time.monotonic() + allowed_s)
        marks = marks_of(host, PREFIX)
        for number in self.luns:
            lun = Lun(self.session, number)
            if not lun.look().keys & {marks.begun, marks.cut}:
                lun.register(key)

    def register(self, key: int) -> None:
        """Whatever stands there."""
        self.session.deadline = time.monotonic() + self._allowed_s
        for number in self.luns:
            Lun(self.session, number).register(key)

    def writes(self, lun: int = 1, number: int = 0) -> bool:
        """As a guest's disk does it: what was ended by somebody else's reset is sent again."""
        self.session.deadline = time.monotonic() + self._allowed_s
        data = number.to_bytes(8) + bytes(WRITE_BYTES - 8)
        for _ in range(TRIES):
            answer = self.session.command(lun, write(0, data), data)
            if not to_be_sent_again(answer):
                return answer.status == scsi.GOOD
        return False

    def close(self) -> None:
        self.session.close()


def write(block: int, data: bytes) -> bytes:
    """WRITE (10)."""
    return struct.pack(">BxIxHx", 0x2A, block, len(data) // BLOCK)


def to_be_sent_again(answer: Answer) -> bool:
    task_aborted = 0x40
    return answer.status in (scsi.BUSY, scsi.TASK_SET_FULL, task_aborted) or answer.sense[0] == scsi.UNIT_ATTENTION


def stand_guard(tgt: Target, key: int, kind: int) -> None:
    """What an operator does once for each LUN: a reservation that stands."""
    with Session(Portal(tgt.portal, TARGET, OPERATOR), time.monotonic() + 5.0) as session:
        for number in tgt.luns:
            Lun(session, number).look()
            for action, parameters in (
                (Out.REGISTER_AND_IGNORE, scsi.parameters(0, key)),
                (Out.RESERVE, scsi.parameters(key, 0)),
            ):
                answer = session.command(number, scsi.reserve_out(action, kind), parameters)
                assert answer.status == scsi.GOOD, answer
