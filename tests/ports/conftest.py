# SPDX-License-Identifier: Apache-2.0
"""Real servers that more than one suite of the ports runs against."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest
import redfish_sim
from loopback import free_port

from tests.broker import Broker, is_installed


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real etcd."""
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed")
    port, peer = free_port(), free_port()
    where = tmp_path_factory.mktemp("etcd")
    client, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    process = subprocess.Popen(
        ["etcd", "--data-dir", str(where / "data"), "--listen-client-urls", client, "--advertise-client-urls", client,
         "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"],
        stdout=(where / "log").open("ab"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        until = time.monotonic() + 15
        while b"ready to serve client requests" not in (where / "log").read_bytes():
            assert process.poll() is None and time.monotonic() < until, (where / "log").read_text()[-2000:]
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A real RabbitMQ that a test may stop and start."""
    if not is_installed():
        pytest.skip("RabbitMQ is not installed")
    broker = Broker(tmp_path_factory.mktemp("rabbit"))
    broker.start()
    try:
        yield broker
    finally:
        broker.end()


@pytest.fixture(scope="module")
def redfish_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redfish_sim.RedfishSim]:
    """A real Redfish service with two systems, "h" and "other"; who uses it resets it first."""
    if not redfish_sim.present():
        pytest.skip("openssl is not installed, which makes the certificate")
    service = redfish_sim.RedfishSim(tmp_path_factory.mktemp("redfish"), ["h", "other"])
    try:
        service.start()
        yield service
    finally:
        service.stop()
