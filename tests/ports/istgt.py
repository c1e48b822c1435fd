# SPDX-License-Identifier: Apache-2.0
"""A real iSCSI target that answers GOOD to PREEMPT AND ABORT and takes the wrong registration away: istgt of Debian."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.ports.tgt import DISK_BYTES, free_port

NODE = "iqn.2026-01.example.vmhad"
TARGET = f"{NODE}:disks"
STARTS_WITHIN_S = 10.0
CONF = """[Global]
  Comment "cut"
  NodeBase "{node}"
  PidFile {where}/istgt.pid
  AuthFile {where}/auth.conf
  MediaDirectory {where}
  LogFacility "local7"
  Timeout 30
  NopInInterval 20
  DiscoveryAuthMethod None
  MaxSessions 64
  MaxConnections 4
  FirstBurstLength 262144
  MaxBurstLength 1048576
  MaxRecvDataSegmentLength 262144
  InitialR2T Yes
  ImmediateData Yes
  DataPDUInOrder Yes
  DataSequenceInOrder Yes
  ErrorRecoveryLevel 0
[UnitControl]
  Comment "none"
  AuthMethod None
  Portal UC1 127.0.0.1:{control}
  Netmask 127.0.0.1
[PortalGroup1]
  Comment "portal"
  Portal DA1 127.0.0.1:{port}
[InitiatorGroup1]
  Comment "all"
  InitiatorName "ALL"
  Netmask 127.0.0.0/8
[LogicalUnit1]
  Comment "disk"
  TargetName disks
  TargetAlias "disk"
  Mapping PortalGroup1 InitiatorGroup1
  AuthMethod None
  UseDigest Auto
  UnitType Disk
  QueueDepth 32
  LUN0 Storage {where}/disk Auto
"""


def present() -> bool:
    return _program() is not None


def _program() -> str | None:
    return shutil.which("istgt", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Istgt:
    """One target with LUN 0."""

    def __init__(self, where: Path) -> None:
        where.mkdir(parents=True, exist_ok=True)
        self._where = where
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def portal(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self._where / "disk").open("wb") as made:
            made.truncate(DISK_BYTES)
        secrets = self._where / "auth.conf"
        secrets.touch(mode=0o600)
        conf = self._where / "istgt.conf"
        conf.write_text(CONF.format(node=NODE, where=self._where, port=self.port, control=free_port()))
        with (self._where / "istgt.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(_program()), "-c", str(conf), "-D"], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        until = time.monotonic() + STARTS_WITHIN_S
        while not self._answers():
            if time.monotonic() > until or self._process.poll() is not None:
                self.stop()
                raise AssertionError(f"istgt does not start: {(self._where / 'istgt.log').read_text()[-400:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
