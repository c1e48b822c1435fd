# SPDX-License-Identifier: Apache-2.0
"""Real stores for the journal's tests: etcd processes of our own on loopback, SQLite files, the simulator's dict."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from etcd_starts import START_LIMIT_S, eventually, free_ports

from vmhad.drivers.store.etcd import EtcdStore
from vmhad.drivers.store.sqlite import SqliteStore
from vmhad.ports import Store
from vmhad.sim.store import MemoryStore


class EtcdMember:
    """One etcd process. Its ports are chosen when it is made, so that a cluster is known before it starts."""

    def __init__(self, binary: str, name: str, folder: Path) -> None:
        self.binary, self.name, self.folder = binary, name, folder
        self.client, self.peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, cluster: str) -> None:
        arguments = {
            "name": self.name,
            "data-dir": str(self.folder / self.name),
            "listen-client-urls": self.client,
            "advertise-client-urls": self.client,
            "listen-peer-urls": self.peer,
            "initial-advertise-peer-urls": self.peer,
            "initial-cluster": cluster,
            "initial-cluster-state": "new",
            "initial-cluster-token": self.folder.name,
        }
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}
        with (self.folder / f"{self.name}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [self.binary, *(f"--{key}={value}" for key, value in arguments.items())],
                stdout=log,
                stderr=log,
                env=environment,
            )

    def send(self, number: signal.Signals) -> None:
        """Returns, after a SIGSTOP, once every thread has stopped: until then a request may still be answered."""
        assert self.process is not None
        self.process.send_signal(number)
        if number is signal.SIGSTOP:
            tasks = Path(f"/proc/{self.process.pid}/task")
            eventually(lambda: all(_is_stopped(task) for task in tasks.iterdir()), 10.0, "every thread stops")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def healthy(self) -> bool:
        try:
            return bool(requests.get(f"{self.client}/health", timeout=1.0).json().get("health") == "true")
        except (requests.RequestException, ValueError):
            return False


def _is_stopped(task: Path) -> bool:
    return (task / "stat").read_text().rpartition(")")[2].split()[0] in "Tt"


@pytest.fixture(scope="session")
def etcd_binary() -> str:
    binary = shutil.which("etcd")
    if binary is None:
        pytest.fail("these tests need a real etcd in PATH: apt-get install etcd-server (or your system's package)")
    return binary


def run_cluster(binary: str, folder: Path, size: int) -> Iterator[list[EtcdMember]]:
    members = [EtcdMember(binary, f"m{number}", folder) for number in range(size)]
    cluster = ",".join(f"{member.name}={member.peer}" for member in members)
    try:
        for member in members:
            member.start(cluster)
        eventually(lambda: all(m.healthy() for m in members), START_LIMIT_S, f"etcd is healthy (logs in {folder})")
        yield members
    finally:
        for member in members:
            member.stop()


@pytest.fixture(scope="session")
def etcd(etcd_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdMember]:
    """One member for the whole run; a test gets it wiped through the store fixtures."""
    for members in run_cluster(etcd_binary, tmp_path_factory.mktemp("etcd"), 1):
        yield members[0]


@pytest.fixture
def etcd_cluster(etcd_binary: str, tmp_path: Path) -> Iterator[list[EtcdMember]]:
    """Three members of its own for a test that breaks them."""
    yield from run_cluster(etcd_binary, tmp_path, 3)


@pytest.fixture
def etcd_store(etcd: EtcdMember) -> Iterator[EtcdStore]:
    everything = {"key": "AA==", "range_end": "AA=="}
    requests.post(f"{etcd.client}/v3/kv/deleterange", json=everything, timeout=10.0).raise_for_status()
    store = EtcdStore([etcd.client], 5.0)
    yield store
    store.close()


@pytest.fixture(params=["memory", "sqlite", "etcd"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """The same contract for all three."""
    if request.param == "memory":
        yield MemoryStore()
    elif request.param == "sqlite":
        sqlite = SqliteStore(str(tmp_path / "journal.sqlite"))
        yield sqlite
        sqlite.close()
    else:
        yield request.getfixturevalue("etcd_store")


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool], float, str], None]:
    return eventually
