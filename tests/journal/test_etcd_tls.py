# SPDX-License-Identifier: Apache-2.0
"""An etcd that speaks TLS and asks for a certificate holds the journal and shows the engines to each other."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from etcd_starts import START_LIMIT_S, eventually, free_ports

from vmhad.conf.load import TOOZ_NAMES
from vmhad.drivers.membership.tooz_ring import ToozMembership
from vmhad.drivers.store.etcd import EtcdStore
from vmhad.ports import Unanswered


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """One that signed itself, for both ends: (certificate, key)."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=etcd",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True)
    return str(cert), str(key)


@pytest.fixture
def endpoint(etcd_binary: str, tmp_path: Path, certificate: tuple[str, str]) -> Iterator[str]:
    client, peer = free_ports(2)
    cert, key = certificate
    arguments = {
        "data-dir": tmp_path / "data",
        "listen-client-urls": f"https://127.0.0.1:{client}",
        "advertise-client-urls": f"https://127.0.0.1:{client}",
        "listen-peer-urls": f"http://127.0.0.1:{peer}",
        "initial-advertise-peer-urls": f"http://127.0.0.1:{peer}",
        "initial-cluster": f"default=http://127.0.0.1:{peer}",
        "cert-file": cert,
        "key-file": key,
        "trusted-ca-file": cert,
        "client-cert-auth": "true",
    }
    with (tmp_path / "etcd.log").open("wb") as log:
        command = [etcd_binary, *(f"--{name}={value}" for name, value in arguments.items())]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"https://127.0.0.1:{client}"
    finally:
        process.kill()
        process.wait()


def answers(store: EtcdStore) -> bool:
    try:
        return store.get("/hello") is None
    except Unanswered:
        return False


def test_the_journal_and_the_ring_go_by_tls(
    endpoint: str, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """tooz asks etcd by a session of requests', for which these variables weigh more than the file it was given."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    cert, key = certificate
    store = EtcdStore([endpoint], 5.0, cert, cert, key)
    try:
        eventually(lambda: answers(store), START_LIMIT_S, "etcd answers us")
        store.commit([], {"/k": b"v"})
        assert store.get("/k") == b"v"
    finally:
        store.close()
    files = dict(zip(TOOZ_NAMES.values(), (cert, cert, key), strict=True))
    query = "&".join(f"{name}={path}" for name, path in files.items())
    ring = ToozMembership(f"etcd3+{endpoint}?{query}", b"e1")
    try:
        until = time.monotonic() + 10.0
        while ring.members() != [b"e1"]:
            assert time.monotonic() < until, "the ring does not show its only member"
            ring.beat()
            time.sleep(0.1)
    finally:
        ring.stop()


def test_without_our_certificate_it_does_not_answer(endpoint: str, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    known = EtcdStore([endpoint], 5.0, cert, cert, key)
    eventually(lambda: answers(known), START_LIMIT_S, "etcd answers us")
    known.close()
    for store in (EtcdStore([endpoint], 2.0, cert), EtcdStore([endpoint], 2.0)):
        with pytest.raises(Unanswered):
            store.get("/hello")
        store.close()
