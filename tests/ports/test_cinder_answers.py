# SPDX-License-Identifier: Apache-2.0
"""What an inventory makes of Cinder's answers, of its silence, and of what it does not say.

Nova and Cinder are stand-ins that speak real HTTP; VOLUME is what a Cinder 29 answered. A real Cinder is asked in
tests/cloud/test_volumes_on_cinder.py.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from keystoneauth1.noauth import NoAuth
from keystoneauth1.session import Session
from stand_in import Answer, StandIn, running

from vmhad.drivers.compute.nova import NovaCompute
from vmhad.drivers.compute.volumes import THREADS, Unknown, backend_of
from vmhad.ports import Unanswered

LIMIT_S = 4.0
VOLUME: dict[str, Any] = {
    "id": "2c0a7836-eff4-47ae-b7dc-12d97153a68b",
    "status": "in-use",
    "size": 1,
    "availability_zone": "nova",
    "name": "v",
    "volume_type": "array-a",
    "bootable": "false",
    "encrypted": False,
    "replication_status": None,
    "multiattach": False,
    "attachments": [{"server_id": "ffa55a52-a6c4-4dd6-8769-8715f2f98383", "host_name": "host01", "device": "/dev/sdb"}],
    "migration_status": None,
    "os-vol-tenant-attr:tenant_id": "180dcba8ba81494ab9967d5437313cba",
    "os-vol-mig-status-attr:migstat": None,
    "os-vol-host-attr:host": "controller@array-a#array-a",
}


class Catalog(NoAuth):
    """Nova and Cinder are found at addresses of their own."""

    def __init__(self, nova: str, cinder: str) -> None:
        super().__init__(endpoint=nova)
        self._cinder = cinder

    def get_endpoint(self, session: Session, **wanted: Any) -> str | None:
        if wanted.get("service_type") == "block-storage":
            return self._cinder
        found: str | None = super().get_endpoint(session, **wanted)
        return found


@pytest.fixture
def nova() -> Iterator[StandIn]:
    with running() as server:
        yield server


@pytest.fixture
def cinder() -> Iterator[StandIn]:
    with running() as server:
        server.answer = lambda method, path: says(path)
        yield server


@contextmanager
def driver(nova: StandIn, cinder: str, ask_cinder: bool = True) -> Iterator[NovaCompute]:
    """Nova is known to it already; Cinder it meets in the test."""
    opened = NovaCompute(Catalog(nova.url, cinder), timeout_s=LIMIT_S, ask_cinder=ask_cinder)
    has(nova, {})
    opened.services()
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def compute(nova: StandIn, cinder: StandIn) -> Iterator[NovaCompute]:
    with driver(nova, cinder.url) as opened:
        yield opened


def has(nova: StandIn, volumes: dict[str, list[str]]) -> None:
    """These servers on host01, from volumes each, and nothing else."""
    rows = [
        {"id": server, "OS-EXT-SRV-ATTR:host": "host01", "OS-EXT-STS:vm_state": "active", "image": "",
         "os-extended-volumes:volumes_attached": [{"id": one} for one in attached]}
        for server, attached in volumes.items()
    ]  # fmt: skip
    body = json.dumps({"services": [], "servers": rows, "migrations": [], "server_groups": []}).encode()
    nova.answer = lambda method, path: (200, body)


def says(path: str, **change: Any) -> Answer:
    volume_id = path.rpartition("/")[2]
    return 200, json.dumps({"volume": VOLUME | {"id": volume_id} | change}).encode()


def look(compute: NovaCompute) -> dict[str, tuple[str, ...]]:
    return {one.id: one.disks for one in compute.inventory("host01", (), 0.0).servers}


def asked(cinder: StandIn) -> list[str]:
    return sorted(path.rpartition("/")[2] for _, path in cinder.asked)


@pytest.mark.parametrize(
    ("host", "backend"),
    [
        ("controller@array-a#array-a", "array-a"),
        ("controller@array-a", "array-a"),
        ("node-1.example.org@nfs#server:/share@1", "nfs"),
    ],
)
def test_the_backend_stands_between_host_and_pool(host: str, backend: str) -> None:
    assert backend_of(VOLUME | {"os-vol-host-attr:host": host}, VOLUME["id"]) == backend


@pytest.mark.parametrize(
    "change",
    [
        {"status": "retyping"}, {"status": "maintenance"}, {"status": "error"}, {"status": "a-state-to-come"},
        {"migration_status": "starting"}, {"migration_status": "migrating"}, {"migration_status": "completing"},
        {"migration_status": "target:2c0a"}, {"migration_status": "error"},
        {"multiattach": True}, {"multiattach": None},
        {"replication_status": "failing-over"}, {"replication_status": "failed-over"},
        {"os-vol-host-attr:host": ""}, {"os-vol-host-attr:host": None}, {"os-vol-host-attr:host": "controller"},
        {"os-vol-host-attr:host": "controller#pool@1"}, {"id": "another"},
    ],
    ids=lambda change: "-".join(map(str, change.items())),
)  # fmt: skip
def test_what_is_not_said_plainly_is_not_known(change: dict[str, Any]) -> None:
    with pytest.raises(Unknown):
        backend_of(VOLUME | change, VOLUME["id"])


@pytest.mark.parametrize("key", ["os-vol-host-attr:host", "migration_status", "multiattach", "status", "id"])
def test_what_an_administrator_alone_is_shown_is_needed(key: str) -> None:
    with pytest.raises(KeyError):
        backend_of({name: value for name, value in VOLUME.items() if name != key}, VOLUME["id"])


def test_each_volume_is_asked_for_once_and_anew_every_time(
    nova: StandIn, cinder: StandIn, compute: NovaCompute
) -> None:
    has(nova, {"x": ["v2", "v1"], "y": ["v3"], "z": []})
    cinder.answer = lambda method, path: says(path, **{
        "os-vol-host-attr:host": "c@fast#p" if path.endswith("v1") else "c@slow#p"})  # fmt: skip
    first = {"x": ("cinder/fast", "cinder/slow"), "y": ("cinder/slow",), "z": ()}
    assert look(compute) == first and asked(cinder) == ["v1", "v2", "v3"]
    assert compute.calls["GET", "cinder"] == 3 and compute.calls_made == sum(compute.calls.values()) - 3
    cinder.answer = lambda method, path: says(path, **{"os-vol-host-attr:host": "c@slow#p"})
    assert look(compute) == first | {"x": ("cinder/slow", "cinder/slow")}
    assert asked(cinder) == sorted(["v1", "v2", "v3"] * 2)


def test_cinder_is_not_asked_where_nobody_needs_it(nova: StandIn, cinder: StandIn, compute: NovaCompute) -> None:
    has(nova, {"x": []})
    assert look(compute) == {"x": ()}
    with driver(nova, cinder.url, ask_cinder=False) as plain:
        has(nova, {"x": ["v1"]})
        assert look(plain) == {"x": ("volume/v1",)}
    assert asked(cinder) == []


def fault(status: int, text: str) -> Answer:
    return status, json.dumps({"fault": {"code": status, "message": text}}).encode()


@pytest.mark.parametrize(
    "answer",
    [
        fault(404, "Volume v1 could not be found."), fault(403, "Policy doesn't allow volume:get."),
        fault(500, "The server has either erred."), (503, b"<html>"), (401, b""), (0, b""),
        (200, b""), (200, b"<html>"), (200, b"[]"), (200, b'{"volume": 7}'), (200, b'{"volume": {"id": "v1"}}'),
    ],
)  # fmt: skip
def test_one_bad_answer_leaves_the_others(
    nova: StandIn, cinder: StandIn, compute: NovaCompute, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    has(nova, {"x": ["v1", "v2"], "y": ["v3"]})
    cinder.answer = lambda method, path: answer if path.endswith("v1") else says(path)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert look(compute) == {"x": ("volume/v1", "cinder/array-a"), "y": ("cinder/array-a",)}
    told = [record.getMessage() for record in caplog.records if "Cinder does not say" in record.getMessage()]
    assert len(told) == 1 and "1 of 3 volumes, the first is v1: " in told[0]


def test_nobody_there(nova: StandIn) -> None:
    with driver(nova, "http://127.0.0.1:9/v3") as compute:
        has(nova, {"x": ["v1"], "y": []})
        assert look(compute) == {"x": ("volume/v1",), "y": ()}


def test_no_cinder_in_the_catalog(nova: StandIn) -> None:
    with driver(nova, "") as compute:
        has(nova, {"x": ["v1"], "y": []})
        assert look(compute) == {"x": ("volume/v1",), "y": ()}


def test_silence_is_met_by_a_few_questions_only(nova: StandIn, cinder: StandIn, compute: NovaCompute) -> None:
    names = [f"v{number:03d}" for number in range(100)]
    has(nova, {"x": names})
    cinder.delay_s = 30.0
    began = time.monotonic()
    assert look(compute) == {"x": tuple(f"volume/{one}" for one in names)}
    assert time.monotonic() - began < LIMIT_S + 1.0
    assert len(cinder.asked) <= THREADS


def test_what_was_said_before_the_silence_counts(nova: StandIn, cinder: StandIn, compute: NovaCompute) -> None:
    def answer(method: str, path: str) -> Answer:
        if path.endswith("v9"):
            cinder.released.wait(30.0)
        return says(path)

    has(nova, {"x": ["v1", "v2"], "y": ["v9"]})
    cinder.answer = answer
    assert look(compute) == {"x": ("cinder/array-a", "cinder/array-a"), "y": ("volume/v9",)}


@contextmanager
def dripping() -> Iterator[str]:
    """A server that answers one byte at a time, so that no wait for a single one of them ever gets long."""
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)

    def drip(connection: socket.socket) -> None:
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not ended.wait(0.1):
                connection.sendall(b" ")

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threads.append(threading.Thread(target=drip, args=(connection,)))
            threads[-1].start()

    threads = [threading.Thread(target=serve)]
    threads[0].start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v3"
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        listener.close()


def test_an_answer_that_does_not_end_is_not_waited_for(nova: StandIn) -> None:
    with dripping() as url, driver(nova, url) as compute:
        has(nova, {"x": ["v1"]})
        began = time.monotonic()
        assert look(compute) == {"x": ("volume/v1",)}
        assert time.monotonic() - began < LIMIT_S + 1.0


class Discovering(Catalog):
    """Cinder is asked which versions it speaks until the test lets go."""

    def __init__(self, nova: str, cinder: str) -> None:
        super().__init__(nova, cinder)
        self.begun, self.let_go = threading.Event(), threading.Event()

    def get_endpoint(self, session: Session, **wanted: Any) -> str | None:
        if wanted.get("service_type") == "block-storage":
            self.begun.set()
            self.let_go.wait(LIMIT_S)
        return super().get_endpoint(session, **wanted)


def test_while_cinder_is_sought_nova_is_there_for_all(nova: StandIn, cinder: StandIn) -> None:
    catalog = Discovering(nova.url, cinder.url)
    compute = NovaCompute(catalog, timeout_s=LIMIT_S, ask_cinder=True)
    has(nova, {"x": ["v1"]})
    inventory = threading.Thread(target=look, args=(compute,))
    inventory.start()
    assert catalog.begun.wait(LIMIT_S)
    began = time.monotonic()
    assert compute.services() == ()
    assert time.monotonic() - began < LIMIT_S / 2
    catalog.let_go.set()
    inventory.join()
    compute.close()


def test_without_nova_there_is_no_inventory(nova: StandIn, compute: NovaCompute) -> None:
    nova.answer = lambda method, path: (503, b"<html>")
    with pytest.raises(Unanswered):
        look(compute)
