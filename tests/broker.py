# SPDX-License-Identifier: Apache-2.0
"""A real RabbitMQ of one's own on the loopback: for the contract of the agents' beats, and their benchmark."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
USER, PASSWORD = "tests", "of-the-tests"
START_WITHIN_S = 120.0
BY_TLS = """listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {certificate}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
ssl_options.verify = verify_none
"""
CONFIGURATION = """listeners.tcp.1 = 127.0.0.1:{port}
default_user = {user}
default_pass = {password}
default_permissions.configure = .*
default_permissions.read = .*
default_permissions.write = .*
disk_free_limit.absolute = 50MB
"""


def is_installed() -> bool:
    return SERVER.exists()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """One node with a port mapper of its own, in a directory of its own; nothing of it outlives end()."""

    def __init__(self, where: Path) -> None:
        self._where = where
        self.port = free_port()
        self._mapper_port, self._peer_port = free_port(), free_port()
        self._mapper: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self.url = f"rabbit://{USER}:{PASSWORD}@127.0.0.1:{self.port}/"
        self._tls_port = free_port()
        self.tls_url = f"rabbit://{USER}:{PASSWORD}@127.0.0.1:{self._tls_port}/"
        self.certificate = where / "certificate.pem"

    def start(self) -> None:
        """Raises RuntimeError with the end of the log when it does not get ready."""
        self._where.mkdir(parents=True, exist_ok=True)
        text = CONFIGURATION.format(port=self.port, user=USER, password=PASSWORD)
        if shutil.which("openssl"):
            text += BY_TLS.format(port=self._tls_port, certificate=self.certificate, key=self._key())
        (self._where / "rabbitmq.conf").write_text(text)
        (self._where / "enabled_plugins").write_text("[].\n")
        log = (self._where / "output").open("ab")
        if self._mapper is None:
            argv = [_port_mapper(), "-address", "127.0.0.1", "-port", str(self._mapper_port)]
            self._mapper = subprocess.Popen(argv, stdout=log, stderr=log)
        self._server = subprocess.Popen(
            [str(SERVER)], env=self._environment(), stdout=log, stderr=log, start_new_session=True
        )
        until = time.monotonic() + START_WITHIN_S
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > until:
                self.end()
                raise RuntimeError((self._where / "output").read_text()[-2000:])
            time.sleep(0.1)

    def stop(self) -> None:
        """The node goes, its connections with it; start() brings it back on the same port."""
        if self._server is not None:
            # Its whole session: what was started is a shell, and its child the node.
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait(10)
            self._server = None

    def pause(self) -> None:
        """It hangs: connections stay, and nothing comes."""
        assert self._server is not None
        os.killpg(self._server.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._server is not None
        os.killpg(self._server.pid, signal.SIGCONT)

    def control(self, *words: str) -> None:
        """What rabbitmqctl does."""
        subprocess.run(
            [str(SERVER.with_name("rabbitmqctl")), *words],
            env=self._environment(), check=True, capture_output=True, timeout=START_WITHIN_S,
        )  # fmt: skip

    def end(self) -> None:
        self.stop()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait(10)
            self._mapper = None

    def cpu_s(self) -> float:
        """The CPU seconds that the node took so far."""
        assert self._server is not None
        ticks = 0.0
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                except (OSError, ValueError):
                    continue
                if int(fields[3]) == self._server.pid:
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _key(self) -> Path:
        """Of a certificate for 127.0.0.1 that signed itself."""
        key = self._where / "key.pem"
        if not key.exists():
            subject = ["-subj", "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1"]
            files = ["-keyout", str(key), "-out", str(self.certificate)]
            made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files]
            subprocess.run(made, check=True, capture_output=True)
        return key

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as one:
                one.settimeout(2.0)
                one.sendall(b"AMQP\x00\x00\x09\x01")
                return bool(one.recv(8))
        except OSError:
            return False

    def _environment(self) -> dict[str, str]:
        where = str(self._where)
        return {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": where,
            "RABBITMQ_NODENAME": f"tests{self.port}@localhost",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "RABBITMQ_CONFIG_FILE": f"{where}/rabbitmq",
            "RABBITMQ_MNESIA_BASE": f"{where}/mnesia",
            "RABBITMQ_LOG_BASE": f"{where}/log",
            "RABBITMQ_DIST_PORT": str(self._peer_port),
            "RABBITMQ_PID_FILE": f"{where}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{where}/enabled_plugins",
            "RABBITMQ_SERVER_START_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }


def _port_mapper() -> str:
    found = [shutil.which("epmd") or "", *glob.glob("/usr/lib/erlang/erts-*/bin/epmd")]
    return next(path for path in found if path)
