# SPDX-License-Identifier: Apache-2.0
"""A real Redfish service in software: sushy-tools' emulator with TLS on a free loopback port, its systems files that
hold "on" or "off"."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vmhad.drivers.power.redfish_bmc import RedfishBmc

OUTLETS = "/redfish/v1/PowerEquipment/RackPDUs/1/Outlets"
USER = "admin"
VIEWER = "viewer"
PASSWORD = "s3cret-of-redfish-longer-than-ipmi-allows"  # noqa: S105 - of the emulator
START_LIMIT_S = 30.0


def present() -> bool:
    return shutil.which("openssl") is not None


def certificate(where: Path, address: str = "127.0.0.1") -> tuple[str, str]:
    """One that signed itself, good for this address: (certificate, key)."""
    cert, key = where / "cert.pem", where / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bmc",
            "-addext", f"subjectAltName=IP:{address}", "-keyout", str(key), "-out", str(cert)]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True)
    return str(cert), str(key)


class RedfishSim:
    """One process. where: a directory of its own. systems: their names."""

    def __init__(self, where: Path, systems: Sequence[str] = ("h",), address: str = "127.0.0.1") -> None:
        where.mkdir(parents=True, exist_ok=True)
        self.where = where
        self.ca_file, key = certificate(where, address)
        self.uuids = {system: str(uuid.uuid5(uuid.NAMESPACE_DNS, system)) for system in systems}
        self.port = 0
        self._told = {
            "user": USER, "viewer": VIEWER, "password": PASSWORD, "systems": self.uuids,
            "certificate": self.ca_file, "key": key,
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.reset()

    def reset(self) -> None:
        """Every system on, in a good mood, and nothing remembered."""
        self.resume()
        for system in self.uuids:
            self.set_power(True, system)
            self.mood("well", system)
            (self.where / f"power.{system}.commands").unlink(missing_ok=True)
            (self.where / f"power.outlet.{system}").unlink(missing_ok=True)
        (self.where / "requests").unlink(missing_ok=True)

    def bmc(self, system: str = "h", **changes: str) -> RedfishBmc:
        fields = {
            "user": USER,
            "password": PASSWORD,
            "system": f"/redfish/v1/Systems/{system}" if system else "",
            "ca_file": self.ca_file,
            **changes,
        }
        return RedfishBmc("127.0.0.1", self.port, **fields)

    def outlet(self, system: str = "h", **changes: str) -> RedfishBmc:
        """That feeds the system; what it does to the system's power is left to the test."""
        return replace(self.bmc(system, **changes), system=f"{OUTLETS}/{system}")

    def has_power(self, system: str = "h") -> bool:
        return self._lines(f"power.outlet.{system}") != ["off"]

    def start(self) -> None:
        """Returns once it listens; on the port that it had, if it had one."""
        (self.where / "port").unlink(missing_ok=True)
        (self.where / "told.json").write_text(json.dumps({**self._told, "port": self.port}))
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("redfish_emulator.py"))],
            cwd=self.where,
            stdin=subprocess.DEVNULL,
            stdout=(self.where / "log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_LIMIT_S
        while not (self.where / "port").exists() or not (self.where / "port").read_text():
            assert self._process.poll() is None and time.monotonic() < deadline, (self.where / "log").read_text()
            time.sleep(0.02)
        self.port = int((self.where / "port").read_text())

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

    def mood(self, words: str, system: str = "h") -> None:
        """well, silent, slow N, refuses, strict, broken, stuck, loses, trickles: of redfish_emulator.py."""
        (self.where / f"mood.{system}").write_text(words)

    def is_on(self, system: str = "h") -> bool:
        return (self.where / f"power.{system}").read_text().strip() == "on"

    def set_power(self, on: bool, system: str = "h") -> None:
        """As by a hand on the button: past the service."""
        (self.where / f"power.{system}").write_text("on\n" if on else "off\n")

    def commands(self, system: str = "h") -> list[str]:
        """The power commands that reached the chassis."""
        return self._lines(f"power.{system}.commands")

    def requests(self) -> list[str]:
        return self._lines("requests")

    def sessions(self) -> int:
        """How many are open."""
        return int((self._lines("sessions") or ["0"])[0])

    def _lines(self, name: str) -> list[str]:
        path = self.where / name
        return path.read_text().splitlines() if path.exists() else []

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)
