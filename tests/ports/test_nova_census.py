# SPDX-License-Identifier: Apache-2.0
"""What an export reads of Nova and Placement, answered by stand-ins: which figures are kept, and what is no figure."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import pytest
from keystoneauth1.noauth import NoAuth

from vmhad.drivers.compute.census import Stock, needs_of
from vmhad.drivers.compute.nova import NovaCompute
from vmhad.kernel.cloud import ComputeService, Group, Room
from vmhad.ports import Unanswered

FLAVOR = {"vcpus": 4, "ram": 8192, "disk": 0, "extra_specs": {"trait:CUSTOM_SSD": "required", "hw:cpu_policy": "mixed"}}
SERVERS = [
    {"id": "b", "name": "two", "OS-EXT-SRV-ATTR:host": "h2", "OS-EXT-STS:vm_state": "active", "image": ""},
    {"id": "a", "name": "one", "OS-EXT-SRV-ATTR:host": "h1", "OS-EXT-STS:vm_state": "active", "flavor": FLAVOR},
]
FULL = {
    "VCPU": {"total": 24, "reserved": 0, "allocation_ratio": 4.0},
    "MEMORY_MB": {"total": 131072, "reserved": 3072, "allocation_ratio": 1.0},
}
ANSWERS: dict[str, Any] = {
    "/v2.1/os-services": {
        "services": [
            {"id": "1", "host": "h1", "zone": "az1", "state": "up", "status": "enabled", "forced_down": False},
            {"id": "2", "host": "h2", "zone": "az1", "state": "up", "status": "enabled", "forced_down": False},
        ]
    },
    "/v2.1/servers/detail": {"servers": SERVERS},
    "/v2.1/os-hypervisors/detail": {"hypervisors": [{"id": "p1", "service": {"host": "h1"}}]},
    "/v2.1/os-aggregates": {"aggregates": [{"name": "ssd", "hosts": ["h1"]}, {"name": "all", "hosts": ["h1", "h2"]}]},
    "/resource_providers/p1/inventories": {"inventories": FULL},
    "/resource_providers/p1/traits": {"traits": ["CUSTOM_SSD", "HW_CPU_X86_AVX", "CUSTOM_ROW_4"]},
}
GROUPS = [{"id": "g1", "policy": "anti-affinity", "rules": {"max_server_per_host": 2}, "members": ["a", "b"]}]


def migration(number: int, kind: str, status: str) -> dict[str, Any]:
    """A later one with each number."""
    return {
        "uuid": f"m{number}", "id": number, "instance_uuid": "a", "migration_type": kind, "status": status,
        "source_compute": "h2", "dest_compute": "h1", "created_at": f"2026-01-01T00:00:0{number}",
    }  # fmt: skip


MIGRATIONS = [
    migration(1, "evacuation", "done"),
    migration(2, "live-migration", "completed"),
    migration(3, "live-migration", "error"),
    migration(4, "resize", "migrating"),
    migration(5, "evacuation", "running"),
]


class Cloud(ThreadingHTTPServer):
    """Nova and Placement at once; answers: path -> the body of a 200, else 404."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Talk)
        self.answers = dict(ANSWERS)


class Talk(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Cloud

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        body: Any = self.server.answers.get(path)
        if path in ("", "/", "/v2.1", "/v2.1/"):
            link = {"rel": "self", "href": f"http://127.0.0.1:{self.server.server_port}/v2.1"}
            version = {"id": "v2.1", "status": "CURRENT", "version": "2.104", "min_version": "2.1", "links": [link]}
            body = {"version": version}
        elif path == "/v2.1/os-migrations":
            body = {"migrations": [row for row in MIGRATIONS if self.matches(row, query)]}
        elif path == "/v2.1/os-server-groups":
            body = {"server_groups": GROUPS if "offset=0" in query else []}
        status = 200 if body is not None else 404
        text = json.dumps(body or {"itemNotFound": {"code": 404, "message": f"no {path}"}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def matches(self, row: dict[str, Any], query: str) -> bool:
        return all(row[key] == value for key, value in parse_qsl(query))

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


@pytest.fixture
def peer() -> Iterator[Cloud]:
    server = Cloud()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def nova(peer: Cloud) -> Iterator[NovaCompute]:
    driver = NovaCompute(NoAuth(endpoint=f"http://127.0.0.1:{peer.server_port}/v2.1"), timeout_s=5.0)
    yield driver
    driver.close()


def test_a_census_has_servers_groups_and_what_hosts_have_in_all(peer: Cloud, nova: NovaCompute) -> None:
    """h2 is unknown to Placement: it has no figures, which is not a figure of nothing."""
    for path in ("/resource_providers/p1/inventories", "/resource_providers/p1/traits"):
        peer.answers[f"/v2.1{path}"] = peer.answers[path]  # without a catalogue both services have one address
    census = nova.census()
    assert [(one.id, one.host, one.vcpus) for one in census.servers] == [("a", "h1", 4), ("b", "h2", 1)]
    assert dict(census.needs) == {"a": ("CUSTOM_SSD",)}
    assert census.groups == (Group("g1", "anti-affinity", ("a", "b"), 2),)
    assert census.stocks == (
        Stock("h1", "az1", 96, 128000, None, ("all", "ssd"), ("CUSTOM_ROW_4", "CUSTOM_SSD")),
        Stock("h2", "az1", aggregates=("all",)),
    )


def test_a_prospect_has_beside_that_what_is_left_and_what_is_under_way(peer: Cloud, nova: NovaCompute) -> None:
    """Of migrations that are over only those that still say something; the newest first, and each once."""
    peer.answers["/resource_providers/p1/usages"] = {"usages": {"VCPU": 4, "MEMORY_MB": 8000}}
    for part in ("inventories", "traits", "usages"):
        peer.answers[f"/v2.1/resource_providers/p1/{part}"] = peer.answers[f"/resource_providers/p1/{part}"]
    prospect, census = nova.prospect(), nova.census()
    assert (prospect.servers, prospect.groups, prospect.stocks) == (census.servers, census.groups, census.stocks)
    assert prospect.services == tuple(ComputeService(host, True, True, "", False, "") for host in ("h1", "h2"))
    assert prospect.rooms == (Room("h1", 92, 120000, 1 << 30),)
    assert [one.id for one in prospect.migrations] == ["m5", "m4", "m3", "m1"]
    assert not census.rooms and not census.migrations


def test_half_a_census_is_none(peer: Cloud, nova: NovaCompute) -> None:
    peer.answers["/v2.1/os-aggregates"] = {"aggregates": "many"}
    with pytest.raises(Unanswered, match="aggregates"):
        nova.census()


@pytest.mark.parametrize(
    ("specs", "needs"),
    [
        ({"trait:A": "required", "trait1:B": "required"}, ("A", "B")),
        ({"trait:A": "forbidden", "traits:B": "required", "trait:": "required", "hw:trait": "required"}, ()),
        (None, ()),
    ],
)
def test_required_traits_are_needs(specs: dict[str, str] | None, needs: tuple[str, ...]) -> None:
    assert needs_of({"flavor": {"extra_specs": specs}}) == needs
