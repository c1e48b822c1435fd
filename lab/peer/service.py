# SPDX-License-Identifier: Apache-2.0
"""masakari's API and engine beside a lab: in a virtualenv of its own, with a fresh database at every start."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from lab import processes, rest, schemas
from lab.layout import REGION, SHARED, Lab, LabError, locked, write_private
from lab.peer.profiles import Profile

RELEASE = "22.0.0"
VENV = SHARED / f"masakari-{RELEASE}"
PARTS = ("api", "engine")
READY_WITHIN_S = 60.0


def install() -> None:
    """Raises LabError if the packages cannot be had."""
    with locked(SHARED / "install.lock"):
        if (VENV / "complete").exists():
            return
        shutil.rmtree(VENV, ignore_errors=True)
        uv = SHARED / "uv" / "bin" / "uv"
        env = dict(os.environ, UV_CACHE_DIR=str(SHARED / "uv-cache"), UV_LINK_MODE="hardlink")
        wanted = (f"masakari=={RELEASE}", "pymysql", "python-memcached")
        log = SHARED / "masakari-install.log"
        with open(log, "ab") as out:
            for argv in (
                [uv, "venv", "-q", "--python", sys.executable, VENV],
                [uv, "pip", "install", "-q", "--compile-bytecode", "--python", VENV / "bin" / "python", *wanted],
            ):
                if subprocess.run([str(word) for word in argv], env=env, stdout=out, stderr=out).returncode:
                    raise LabError(f"masakari could not be installed; see {log}.")
        (VENV / "complete").touch()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def sections(lab: Lab, profile: Profile, port: int) -> dict[str, dict[str, object]]:
    state = lab.var / "masakari"
    keystone = lab.url("keystone", "/v3")
    account = {"username": "svc", "password": lab.password("svc"), "project_name": "service",
               "user_domain_id": "default", "project_domain_id": "default"}  # fmt: skip
    database = {"connection": lab.database_url("masakari")}
    return {
        "DEFAULT": {
            "transport_url": lab.transport_url,
            "state_path": state,
            "masakari_api_listen": "127.0.0.1",
            "masakari_api_listen_port": port,
            "masakari_api_workers": 1,
            "auth_strategy": "keystone",
            "os_privileged_user_name": "svc",
            "os_privileged_user_password": lab.password("svc"),
            "os_privileged_user_tenant": "service",
            "os_privileged_user_auth_url": keystone,
            "os_user_domain_name": "Default",
            "os_project_domain_name": "Default",
            "os_region_name": REGION,
            # The middle word has to be the name that the catalog gives to Nova.
            "nova_catalog_admin_info": "compute:lab-compute:publicURL",
            **profile.options,
        },
        "wsgi": {"api_paste_config": VENV / "etc" / "masakari" / "api-paste.ini"},
        "database": database,
        "taskflow": database,
        "oslo_concurrency": {"lock_path": state},
        "keystone_authtoken": {
            "www_authenticate_uri": keystone,
            "memcached_servers": f"127.0.0.1:{lab.port('memcached')}",
            "auth_type": "password",
            "auth_url": keystone,
            **account,
        },
    }


def configure(lab: Lab, profile: Profile, port: int) -> Path:
    lines = []
    for section, options in sections(lab, profile, port).items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in options.items())]
    path: Path = lab.etc / "masakari" / "masakari.conf"
    write_private(path, "\n".join(lines) + "\n")
    return path


def pid_files(lab: Lab) -> list[Path]:
    return [lab.pid / f"masakari-{part}.pid" for part in PARTS]


def down(lab: Lab) -> None:
    processes.end(pid_files(lab))


def up(lab: Lab, profile: Profile) -> str:
    """Starts both parts with an empty memory; returns the API's address. Raises LabError if they do not come up."""
    down(lab)
    port = free_port()
    conf = configure(lab, profile, port)
    (lab.var / "masakari").mkdir(parents=True, exist_ok=True)
    schemas.sql(lab, "DROP DATABASE IF EXISTS masakari; CREATE DATABASE masakari CHARACTER SET utf8mb3;")
    env = processes.service_environment(lab)
    log = lab.log / "masakari-manage.out"
    with open(log, "ab") as out:
        sync = [str(VENV / "bin" / "masakari-manage"), "--config-file", str(conf), "db", "sync"]
        if subprocess.run(sync, env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out).returncode:
            raise LabError(f"masakari's schema could not be made; see {log}.")
    engine_log = lab.log / "masakari-engine.log"
    engine_log.unlink(missing_ok=True)
    for part, pid_file in zip(PARTS, pid_files(lab), strict=True):
        program, log = VENV / "bin" / f"masakari-{part}", lab.log / f"masakari-{part}.log"
        argv = [program, "--config-file", conf, "--log-file", log]
        processes.spawn(argv, env, lab.log / f"masakari-{part}.out", pid_file)
    url = f"http://127.0.0.1:{port}"
    wait_ready(lab, url, engine_log)
    return url


def wait_ready(lab: Lab, url: str, engine_log: Path) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while not (answers(url) and consumes(engine_log)):
        if not all(processes.living(path) for path in pid_files(lab)):
            raise LabError(f"masakari ended at its start; see {lab.log}/masakari-*.")
        if time.monotonic() > until:
            raise LabError(f"masakari is not ready after {READY_WITHIN_S:.0f} s; see {lab.log}/masakari-*.")
        time.sleep(0.1)


def answers(url: str) -> bool:
    try:
        rest.request("GET", url + "/", timeout=10)
    except rest.RestError as error:
        return bool(error.status)
    return True


def consumes(engine_log: Path) -> bool:
    """The engine says that it starts just before it listens to its queue; what is sent in between waits there."""
    return engine_log.exists() and "Starting ha_engine" in engine_log.read_text(errors="replace")
