# SPDX-License-Identifier: Apache-2.0
"""A real BMC in software: OpenIPMI's ipmi_sim on a free loopback port, its chassis a file that holds "on" or "off"."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from vmhad.drivers.power.ipmi import Bmc

USER = "admin"
PASSWORD = "s3cret-of-bmc"  # noqa: S105 - of the simulator
GUID = "a123456789abcdefa123456789abcdef"

# The hook is called as: <host> get power | get boot | set power 0|1 | set reset 1 | set shutdown 1
HOOK = """#!/bin/sh
STATE='{state}'
case "$2 $3" in
    "get power") if [ "$(cat "$STATE")" = on ]; then echo power:1; else echo power:0; fi ;;
    "get boot") echo boot:default ;;
    "set power")
        echo "$4" >> "$STATE.commands"
        if [ "$4" = 0 ]; then echo off > "$STATE"; else echo on > "$STATE"; fi ;;
esac
exit 0
"""
LAN = """name "{name}"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid {guid}
  endlan
  chassis_control "{hook} {name}"
  user 1 true "" "test" user 10 none md2 md5 straight
  user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""
EMU = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""


def present() -> bool:
    return shutil.which("ipmi_sim") is not None


def free_udp_port() -> int:
    """Below the range the kernel gives to clients: else the socket of some session may take it before its BMC is up."""
    while True:
        port = random.randrange(15000, 30000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class IpmiSim:
    """One BMC process. where: a directory of its own."""

    def __init__(self, where: Path, name: str = "bmc", port: int = 0) -> None:
        where.mkdir(parents=True, exist_ok=True)
        self.where = where
        self.port = port or free_udp_port()
        self.state = where / "power"
        self.state.write_text("on\n")
        hook = where / "chassis.sh"
        hook.write_text(HOOK.format(state=self.state))
        hook.chmod(0o755)
        (where / "lan.conf").write_text(
            LAN.format(name=name, port=self.port, guid=GUID, hook=hook, user=USER, password=PASSWORD)
        )
        (where / "bmc.emu").write_text(EMU)
        (where / "state").mkdir(exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    def bmc(self, **changes: str) -> Bmc:
        fields = {"user": USER, "password": PASSWORD, **changes}
        return Bmc("127.0.0.1", self.port, **fields)

    def start(self) -> None:
        """Returns once the BMC answers on its port."""
        self._process = subprocess.Popen(
            ["ipmi_sim", "-c", "lan.conf", "-f", "bmc.emu", "-s", "state", "-n", "-p"],
            cwd=self.where,
            stdin=subprocess.DEVNULL,
            stdout=(self.where / "log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            assert self._process.poll() is None, (self.where / "log").read_text()
            assert time.monotonic() < deadline, "ipmi_sim does not answer (an error in bmc.emu is silent)"

    def stop(self) -> None:
        if self._process is not None:
            self.resume()
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def hang(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    @property
    def is_on(self) -> bool:
        return self.state.read_text().strip() == "on"

    def set_power(self, on: bool) -> None:
        """As by a hand on the button: past the BMC."""
        self.state.write_text("on\n" if on else "off\n")

    def commands(self) -> list[str]:
        """The power commands that reached the chassis: '0' off, '1' on."""
        log = Path(f"{self.state}.commands")
        return log.read_text().split() if log.exists() else []

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)

    def _answers(self) -> bool:
        """An RMCP presence ping, answered within 0.1 s."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.1)
            try:
                probe.connect(("127.0.0.1", self.port))
                probe.send(bytes.fromhex("0600ff06000011be80000000"))
                return bool(probe.recv(64))
            except OSError:
                return False
