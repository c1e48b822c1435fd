# SPDX-License-Identifier: Apache-2.0
"""What the Nova driver makes of answers that no healthy Nova gives: a stand-in server says them over real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from keystoneauth1.noauth import NoAuth
from stand_in import Answer, StandIn, running

from vmhad.drivers.compute.nova import NovaCompute
from vmhad.drivers.compute.rooms import NO_LIMIT, room_of
from vmhad.drivers.compute.rows import server_of, service_of
from vmhad.kernel.cloud import Room, ServerState
from vmhad.ports import Refused, Unanswered

ROW = {"id": "a", "OS-EXT-SRV-ATTR:host": "host01", "OS-EXT-STS:vm_state": "active"}


@pytest.fixture
def peer() -> Iterator[StandIn]:
    with running() as server:
        yield server


@pytest.fixture
def nova(peer: StandIn) -> Iterator[NovaCompute]:
    """Connected already, so that what a test sees is its own answer and not a failed discovery."""
    driver = NovaCompute(NoAuth(endpoint=peer.url), timeout_s=2.0)
    peer.answer = lambda method, path: (200, b'{"services": []}')
    assert driver.services() == ()
    peer.asked.clear()
    driver.calls.clear()
    yield driver
    driver.close()


def fault(text: str) -> bytes:
    return json.dumps({"badRequest": {"code": 400, "message": text}}).encode()


def page(rows: list[dict[str, Any]], marker: str = "") -> bytes:
    links = [{"rel": "next", "href": f"http://elsewhere/v2.1/servers/detail?limit=1000&marker={marker}"}]
    return json.dumps({"servers": rows} | ({"servers_links": links} if marker else {}) | {"migrations": []}).encode()


def test_the_services_own_no_is_a_refusal(peer: StandIn, nova: NovaCompute) -> None:
    for status in (400, 403, 404, 409):
        peer.answer = lambda method, path, status=status: (status, fault("Compute service of host01 is still in use."))
        with pytest.raises(Refused, match="still in use"):
            nova.evacuate("a", "host02", False)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, fault("Unexpected API Error.")),
        (503, b"<html>no server is available</html>"),
        (404, b"<html>not found</html>"),
        (403, b"forbidden by the proxy"),
        (401, json.dumps({"error": {"code": 401, "message": "The request requires authentication."}}).encode()),
        (429, fault("slow down")),
        (300, b"{}"),
    ],
)
def test_no_answer_of_nova_itself(peer: StandIn, nova: NovaCompute, status: int, body: bytes) -> None:
    peer.answer = lambda method, path: (status, body)
    for call in (lambda: nova.server("a"), lambda: nova.evacuate("a", "host02", False), nova.services):
        with pytest.raises(Unanswered):
            call()


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b'{"servers": {}}', b'{"servers": [7]}', b'{"servers": [{}]}',
     b'{"servers": [{"id": 7}]}', b'{"servers": [{"id": "a", "flavor": {"vcpus": "many"}}]}', b"\xff\xfe"],
)  # fmt: skip
def test_garbage_is_no_answer(peer: StandIn, nova: NovaCompute, body: bytes) -> None:
    peer.answer = lambda method, path: (200, body)
    for call in (lambda: nova.departures("host01"), nova.services, lambda: nova.server("a")):
        with pytest.raises(Unanswered):
            call()


def test_a_missing_server_is_none(peer: StandIn, nova: NovaCompute) -> None:
    body = json.dumps({"itemNotFound": {"code": 404, "message": "Instance a could not be found."}}).encode()
    peer.answer = lambda method, path: (404, body)
    assert nova.server("a") is None


def test_thousands_of_servers_come_in_pages(peer: StandIn, nova: NovaCompute) -> None:
    def answer(method: str, path: str) -> Answer:
        if "marker=999" in path:
            return 200, page([{**ROW, "id": str(number)} for number in range(1000, 1500)])
        return 200, page([{**ROW, "id": str(number)} for number in range(1000)], marker="999")

    peer.answer = answer
    servers, migrations = nova.departures("host01")
    assert len({server.id for server in servers}) == 1500 and migrations == ()
    assert [path for _, path in peer.asked] == [
        "/v2.1/servers/detail?all_tenants=1&host=host01",
        "/v2.1/servers/detail?all_tenants=1&host=host01&marker=999",
        "/v2.1/os-migrations?migration_type=evacuation&source_compute=host01",
    ]
    assert nova.calls_made == 3


def test_a_listing_without_end_is_no_answer(peer: StandIn, nova: NovaCompute) -> None:
    peer.answer = lambda method, path: (200, page([ROW], marker="a"))
    with pytest.raises(Unanswered, match="circles"):
        nova.departures("host01")


def test_silence_ends_within_the_limit(peer: StandIn, nova: NovaCompute) -> None:
    peer.delay_s = 30.0
    for call in (nova.services, lambda: nova.evacuate("a", "host02", False)):
        began = time.monotonic()
        with pytest.raises(Unanswered):
            call()
        assert 1.0 < time.monotonic() - began < 2.5
    assert [method for method, _ in peer.asked] == ["GET", "POST"]


def test_an_act_is_sent_once_whatever_happens(peer: StandIn, nova: NovaCompute) -> None:
    """The connection breaks after the request was read: it may have landed."""
    peer.answer = lambda method, path: (0, b"")
    with pytest.raises(Unanswered):
        nova.evacuate("a", "host02", False)
    assert [method for method, _ in peer.asked] == ["POST"]


def test_a_read_survives_a_connection_the_server_had_closed(peer: StandIn, nova: NovaCompute) -> None:
    answers = iter([(0, b""), (200, b'{"services": []}')])
    peer.answer = lambda method, path: next(answers)
    assert nova.services() == ()
    assert [method for method, _ in peer.asked] == ["GET", "GET"]


def test_nobody_listens() -> None:
    nova = NovaCompute(NoAuth(endpoint="http://127.0.0.1:1/v2.1"), timeout_s=2.0)
    with pytest.raises(Unanswered):
        nova.services()


def test_a_service_whose_cell_is_down_is_not_told_of(peer: StandIn, nova: NovaCompute) -> None:
    dark = {"binary": "nova-compute", "host": "host01", "status": "UNKNOWN"}
    lit = {
        "binary": "nova-compute",
        "host": "host02",
        "id": "2",
        "status": "enabled",
        "state": "up",
        "forced_down": False,
    }
    peer.answer = lambda method, path: (200, json.dumps({"services": [dark, lit]}).encode())
    assert [service.host for service in nova.services()] == ["host02"]
    for call in (lambda: nova.service("host01"), lambda: nova.inventory("host01", ["host02"], 0.0)):
        with pytest.raises(Unanswered, match="cell"):
            call()
    assert service_of(dark) is None


def test_a_server_whose_cell_is_down_is_on_no_host() -> None:
    server = server_of(
        {"id": "a", "status": "UNKNOWN", "tenant_id": "t", "created": "2026-01-01T00:00:00Z", "links": []}
    )
    assert (server.state, server.host, server.volume_backed) == (ServerState.OTHER, "", False)


def test_what_a_server_takes() -> None:
    flavor = {"vcpus": 4, "ram": 8192, "disk": 20, "ephemeral": 10, "swap": 1025}
    on_volume = server_of({**ROW, "image": "", "flavor": flavor})
    on_disk = server_of({**ROW, "image": {"id": "i"}, "flavor": flavor})
    assert (on_volume.volume_backed, on_volume.disk_gib) == (True, 12)
    assert (on_disk.volume_backed, on_disk.disk_gib) == (False, 32)
    assert server_of({**ROW, "OS-EXT-STS:vm_state": "soft-delete"}).state is ServerState.OTHER


def test_when_a_server_changed_is_novas_own_text_and_makes_it_no_other() -> None:
    early, late = (server_of({**ROW, "updated": f"2026-11-28T09:00:0{second}Z"}) for second in (1, 2))
    assert early.updated_at == "2026-11-28T09:00:01Z" != late.updated_at
    assert early == late


def test_a_zone_is_pinned_only_where_nova_says_so() -> None:
    free = server_of({**ROW, "OS-EXT-AZ:availability_zone": "az1", "pinned_availability_zone": None})
    pinned = server_of({**ROW, "OS-EXT-AZ:availability_zone": "az1", "pinned_availability_zone": "az2"})
    assert (free.zone, free.zone_pinned) == ("az1", False)
    assert (pinned.zone, pinned.zone_pinned) == ("az2", True)


def test_room_counts_reserve_and_ratio() -> None:
    inventories = {
        "VCPU": {"total": 10, "reserved": 2, "allocation_ratio": 1.5},
        "PCPU": {"total": 4, "reserved": 0, "allocation_ratio": 1.0},
        "MEMORY_MB": {"total": 1000, "reserved": 512, "allocation_ratio": 1.0},
    }
    room = room_of("host02", inventories, {"VCPU": 5, "MEMORY_MB": 600})
    assert room == Room("host02", vcpus=7 + 4, ram_mib=-112, disk_gib=NO_LIMIT)
