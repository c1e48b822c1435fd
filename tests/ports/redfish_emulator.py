# SPDX-License-Identifier: Apache-2.0
"""The process behind redfish_sim.py: sushy-tools' emulator over chassis in software, run in a directory of its own.

What a system's file says is its power, "on" or "off"; its mood is how the service behaves towards it. Beside what
sushy-tools knows there are sessions, whose number is written down, a user who may only look, and for each system the
outlet that feeds it, as DMTF's schema has it.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import bcrypt
from sushy_tools import error
from sushy_tools.emulator import main as emulator
from sushy_tools.emulator.resources.systems.base import AbstractSystemsDriver
from werkzeug.serving import WSGIRequestHandler, make_server

LONG_S = 60.0
OUTLETS = "/redfish/v1/PowerEquipment/RackPDUs/1/Outlets"
SESSIONS = "/redfish/v1/SessionService/Sessions"
ALREADY = {"error": {"code": "Base.1.0.GeneralError", "message": "it is in that state already"}}
MAY_NOT = {"error": {"code": "Base.1.0.InsufficientPrivilege", "message": "may not"}}
BROKEN = {"error": {"code": "Base.1.0.InternalError", "message": "broken"}}
Environ = dict[str, Any]
Start = Callable[..., Any]


class Chassis(AbstractSystemsDriver):
    """Systems by name. "boots N": a power command is done N seconds after it was accepted; "stuck": never."""

    told: dict[str, Any] = {}

    @classmethod
    def initialize(cls, config: Any, logger: Any, *args: Any, **kwargs: Any) -> Any:
        cls._config, cls._logger = config, logger
        return cls

    @property
    def driver(self) -> str:
        return "<chassis>"

    @property
    def systems(self) -> list[str]:
        return sorted(self.told["systems"])

    def uuid(self, identity: str) -> str:
        if identity not in self.told["systems"]:
            raise error.NotFound()
        return str(self.told["systems"][identity])

    def name(self, identity: str) -> str:
        return identity

    def get_power_state(self, identity: str) -> str:
        return {"on": "On", "off": "Off"}.get(Path(f"power.{identity}").read_text().strip(), "PoweringOff")

    def set_power_state(self, identity: str, state: str) -> None:
        with Path(f"power.{identity}.commands").open("a") as log:
            log.write(f"{state}\n")
        if mood_of(identity)[0] != "stuck":
            Path(f"power.{identity}").write_text("off\n" if state == "ForceOff" else "on\n")

    def get_boot_device(self, identity: str) -> str:
        return "Hdd"

    def set_boot_device(self, identity: str, boot_source: str) -> None:
        raise error.NotSupportedError("no boot device can be set")

    def get_nics(self, identity: str) -> list[Any]:
        return []


def mood_of(system: str) -> list[str]:
    path = Path(f"mood.{system}")
    return (path.read_text() if path.exists() else "well").split()


class Service:
    """Before the emulator's own application: sessions, rights, moods."""

    def __init__(self, app: Callable[[Environ, Start], Iterable[bytes]], told: dict[str, Any]) -> None:
        self.app, self.told = app, told
        self.sessions: dict[str, str] = {}

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        path, verb = environ["PATH_INFO"].rstrip("/"), environ["REQUEST_METHOD"]
        self._note("requests", f"{verb} {path}\n", "a")
        if path.startswith(SESSIONS):
            return self._session(path, verb, environ, start)
        if environ.get("HTTP_X_AUTH_TOKEN") in self.sessions:
            environ["HTTP_AUTHORIZATION"] = self.sessions[environ["HTTP_X_AUTH_TOKEN"]]
        system = path.split("/")[4] if path.startswith("/redfish/v1/Systems/") else ""
        mood, *rest = mood_of(system)
        if mood == "silent":
            time.sleep(LONG_S)
        if mood == "slow":
            time.sleep(float(rest[0]))
        if verb == "POST" and system:
            return self._post(system, mood, environ, start)
        if path.startswith(OUTLETS):
            return self._outlet(path, environ, start)
        if mood == "trickles":
            return self._trickle(self.app(environ, start))
        return self.app(environ, start)

    def _post(self, system: str, mood: str, environ: Environ, start: Start) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = Body(body)
        wanted = {"ForceOff": "off"}.get(json.loads(body).get("ResetType"), "on")
        if mood == "refuses" or self._user(environ) == self.told["viewer"]:
            return answer(start, "403 FORBIDDEN", MAY_NOT)
        if mood == "broken":
            return answer(start, "500 INTERNAL SERVER ERROR", BROKEN)
        if mood == "strict" and Path(f"power.{system}").read_text().strip() == wanted:
            return answer(start, "409 CONFLICT", ALREADY)
        if mood == "loses":
            list(self.app(environ, lambda *_: None))
            time.sleep(LONG_S)
        return self.app(environ, start)

    def _outlet(self, path: str, environ: Environ, start: Start) -> Iterable[bytes]:
        """Whoever names the user and the password is let in."""
        said = base64.b64decode(environ.get("HTTP_AUTHORIZATION", "").partition(" ")[2]).decode().partition(":")
        if said[2] != self.told["password"]:
            return answer(start, "401 UNAUTHORIZED", MAY_NOT)
        outlet, _, action = path.removeprefix(f"{OUTLETS}/").partition("/")
        power = Path(f"power.outlet.{outlet}")
        if action:
            wanted = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))["PowerState"]
            power.write_text(f"{wanted.lower()}\n")
            return answer(start, "204 NO CONTENT", None)
        state = power.read_text().strip().title() if power.exists() else "On"
        control = {"#Outlet.PowerControl": {"target": f"{OUTLETS}/{outlet}/Outlet.PowerControl"}}
        return answer(start, "200 OK", {"Id": outlet, "Name": outlet, "PowerState": state, "Actions": control})

    def _session(self, path: str, verb: str, environ: Environ, start: Start) -> Iterable[bytes]:
        if verb == "DELETE":
            self.sessions.pop(path.rpartition("/")[2], None)
        else:
            asked = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            if asked["Password"] != self.told["password"]:
                return answer(start, "401 UNAUTHORIZED", MAY_NOT)
            name = f"s{len(self.sessions)}"
            pair = base64.b64encode(f"{asked['UserName']}:{asked['Password']}".encode()).decode()
            self.sessions[name] = f"Basic {pair}"
        self._note("sessions", str(len(self.sessions)), "w")
        if verb == "DELETE":
            return answer(start, "204 NO CONTENT", None)
        return answer(start, "201 CREATED", {"Id": name}, ("X-Auth-Token", name), ("Location", f"{SESSIONS}/{name}"))

    @staticmethod
    def _user(environ: Environ) -> str:
        return base64.b64decode(environ.get("HTTP_AUTHORIZATION", "").partition(" ")[2]).decode().partition(":")[0]

    @staticmethod
    def _trickle(parts: Iterable[bytes]) -> Iterable[bytes]:
        for byte in b"".join(parts):
            time.sleep(0.1)
            yield bytes([byte])

    @staticmethod
    def _note(name: str, text: str, how: str) -> None:
        with Path(name).open(how) as file:
            file.write(text)


class Body:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, size: int = -1) -> bytes:
        part, self._body = (self._body, b"") if size < 0 else (self._body[:size], self._body[size:])
        return part

    def readline(self, size: int = -1) -> bytes:
        return self.read(size)


def answer(start: Start, status: str, body: Any, *headers: tuple[str, str]) -> list[bytes]:
    text = b"" if body is None else json.dumps(body).encode()
    start(status, [("Content-Type", "application/json"), ("Content-Length", str(len(text))), *headers])
    return [text]


def main() -> None:
    """Reads told.json, and writes its port once it listens."""
    told = json.loads(Path("told.json").read_text())
    Chassis.told = told
    secret = bcrypt.hashpw(told["password"].encode(), bcrypt.gensalt(4)).decode()
    Path("users").write_text("".join(f"{user}:{secret}\n" for user in (told["user"], told["viewer"])))
    emulator.fakedriver.FakeDriver = Chassis
    emulator.app.configure(extra_config={
        "SUSHY_EMULATOR_FAKE_DRIVER": True,
        "SUSHY_EMULATOR_AUTH_FILE": str(Path("users").absolute()),
        "SUSHY_EMULATOR_STATE_DIR": str(Path.cwd()),
    })  # fmt: skip
    emulator.app.wsgi_app = Service(emulator.app.wsgi_app, told)
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(told["certificate"], told["key"])
    server = make_server("127.0.0.1", told["port"], emulator.app, threaded=True, ssl_context=context)
    Path("port").write_text(str(server.server_port))
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
