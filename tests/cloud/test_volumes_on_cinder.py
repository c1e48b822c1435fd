# SPDX-License-Identifier: Apache-2.0
"""Where volumes are kept, asked of a real Cinder beside a real Nova, and what is left when Cinder fails in its ways.

The volumes hold nothing, and lie on two backends. Cinder costs a lab half a minute and 450 MiB, so every build
has tests/ports/test_cinder_answers.py instead.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.cloud_lab import CloudLab
from lab.layout import Lab

pytest.register_assert_rewrite("tests.ports.compute_disks")

from tests.ports.compute_disks import A, B, disks_are_where_their_storage_is  # noqa: E402
from vmhad.drivers.compute.nova import NovaCompute  # noqa: E402
from vmhad.kernel.cloud import Inventory  # noqa: E402
from vmhad.kernel.topology import OF_CINDER, OF_NOVA  # noqa: E402

pytestmark = [pytest.mark.cloud, pytest.mark.chaos]

HOST = "host01"
LIMIT_S = 10.0


@pytest.fixture(scope="module")
def lab() -> Iterator[CloudLab]:
    lab = CloudLab.up("cindertest", 2, "--cinder")
    try:
        yield lab
    finally:
        lab.command("down", "--wipe")


@contextmanager
def driver_of(lab: CloudLab) -> Iterator[NovaCompute]:
    driver = NovaCompute(lab.auth, region=lab.facts["region"], timeout_s=LIMIT_S, ask_cinder=True)
    try:
        yield driver
    finally:
        driver.close()


@pytest.fixture
def nova(lab: CloudLab) -> Iterator[NovaCompute]:
    with driver_of(lab) as driver:
        yield driver


@pytest.fixture
def fresh(lab: CloudLab) -> Iterator[NovaCompute]:
    with driver_of(lab) as driver:
        assert driver.services()
        yield driver


class Volumes:
    """What the tests ask of Cinder as its administrator."""

    def __init__(self, lab: CloudLab) -> None:
        self.lab = lab

    def cinder(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        response = self.lab.nova.block_storage.request(path, method, json=body, microversion="3.70")
        assert response.ok, f"{method} {path}: HTTP {response.status_code} {response.text[:500]}"
        return dict(response.json()) if response.content else {}

    def row(self, volume: str) -> dict[str, Any]:
        return dict(self.cinder("GET", f"/volumes/{volume}")["volume"])

    def rows(self) -> list[dict[str, Any]]:
        return list(self.cinder("GET", "/volumes?all_tenants=1")["volumes"])

    def until(self, volume: str, status: str) -> None:
        self.lab.wait(f"{volume} is {status}", lambda: self.row(volume)["status"] == status)

    def make(self, kind: str) -> str:
        """The id of a new one, once it is there."""
        made = str(self.cinder("POST", "/volumes", {"volume": {"size": 1, "volume_type": kind}})["volume"]["id"])
        self.until(made, "available")
        return made

    def act(self, volume: str, action: str, body: object) -> None:
        self.cinder("POST", f"/volumes/{volume}/action", {action: body})

    def reset(self, volume: str, **states: str) -> None:
        """As an administrator may write it."""
        self.act(volume, "os-reset_status", states)

    def boot_from(self, kind: str, name: str, host: str) -> str:
        """The id of a new server whose root disk is a new volume."""
        root = self.make(kind)
        self.act(root, "os-set_bootable", {"bootable": True})
        flavor = self.lab.nova.compute.find_flavor("m1.nano", ignore_missing=False).id
        disk = {"boot_index": 0, "uuid": root, "source_type": "volume", "destination_type": "volume"}
        server = {"name": name, "flavorRef": flavor, "networks": "none", "host": host, "imageRef": ""}
        body = {"server": {**server, "block_device_mapping_v2": [disk]}}
        made = str(self.lab.api("POST", "/servers", body)["server"]["id"])
        self.lab.wait("it is built", lambda: self.lab.server(made)["status"] == "ACTIVE")
        return made

    def forget(self) -> None:
        """No server and no volume is left."""
        self.lab.reset()
        for row in self.rows():
            self.act(row["id"], "os-force_delete", {})
        self.lab.wait("no volume is left", lambda: not self.rows())


class Attached(Volumes):
    """A server on HOST with a volume on each backend."""

    def __init__(self, lab: CloudLab) -> None:
        super().__init__(lab)
        self.a, self.b = self.make("array-a"), self.make("array-b")
        (self.server,) = lab.boot(host=HOST, name="with-volumes")
        for one in (self.a, self.b):
            self.attach(one)

    def attach(self, volume: str) -> None:
        body = {"volumeAttachment": {"volumeId": volume}}
        self.lab.api("POST", f"/servers/{self.server}/os-volume_attachments", body)
        self.until(volume, "in-use")

    def expected(self, a: str, b: str, *unknown: str) -> tuple[str, ...]:
        """The disks, sorted by their volumes' ids; the root disk is the host's own. unknown: volumes beside a and b."""
        places = {self.a: a, self.b: b} | {one: f"volume/{one}" for one in unknown}
        return (OF_NOVA, *(places[one] for one in sorted(places)))


class LabBench:
    """For the contract."""

    def __init__(self, volumes: Volumes, compute: NovaCompute) -> None:
        self.compute = compute
        self.hosts = tuple(sorted(volumes.lab.hosts))
        self._volumes = volumes

    def boot_on(self, name: str, host: str, place: str) -> str:
        if place == OF_NOVA:
            return self._volumes.lab.boot(host=host, name=name)[0]
        return self._volumes.boot_from(place.removeprefix(OF_CINDER), name, host)

    def kill(self, host: str) -> None:
        self._volumes.lab.command("cut", host)

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        self._volumes.lab.wait(what, holds, 120.0)


@pytest.fixture
def volumes(lab: CloudLab) -> Iterator[Volumes]:
    begun = Volumes(lab)
    yield begun
    begun.forget()


@pytest.fixture
def attached(volumes: Volumes) -> Attached:
    return Attached(volumes.lab)


def disks(inventory: Inventory) -> tuple[str, ...]:
    (server,) = inventory.servers
    return server.disks


def look(nova: NovaCompute) -> tuple[str, ...]:
    return disks(nova.inventory(HOST, ("host02",), 0.0))


def test_contract(volumes: Volumes, nova: NovaCompute) -> None:
    disks_are_where_their_storage_is(LabBench(volumes, nova))


def test_a_server_of_two_backends(lab: CloudLab, nova: NovaCompute, attached: Attached) -> None:
    lab.command("cut", HOST)
    assert look(nova) == attached.expected(A, B)


def test_what_moves_is_nowhere_until_it_is_there(lab: CloudLab, nova: NovaCompute, attached: Attached) -> None:
    """Nova moves the disk of a guest that runs, and Cinder names the new place when it has arrived."""
    unknown = f"volume/{attached.a}"
    attached.reset(attached.a, migration_status="migrating")
    assert look(nova) == attached.expected(unknown, B)
    attached.reset(attached.a, migration_status="none")
    attached.reset(attached.a, status="maintenance")
    assert look(nova) == attached.expected(unknown, B)
    attached.reset(attached.a, status="in-use")
    assert look(nova) == attached.expected(A, B)
    attached.act(attached.a, "os-retype", {"new_type": "array-b", "migration_policy": "on-demand"})
    seen = set()

    def arrived() -> bool:
        seen.add(look(nova))
        row = attached.row(attached.a)
        assert row["status"] in ("retyping", "in-use"), row
        return row["status"] == "in-use" and row["migration_status"] == "success"

    lab.wait("the volume has moved", arrived, 60.0)
    assert look(nova) == attached.expected(B, B)
    print("seen while it moved:", sorted(seen))
    assert attached.expected(A, B) not in seen


def test_a_volume_that_is_gone_and_one_that_others_may_write_to(nova: NovaCompute, attached: Attached) -> None:
    kinds = {row["name"] for row in attached.cinder("GET", "/types")["volume_types"]}
    if "shared" not in kinds:
        specs = {"volume_backend_name": "array-a", "multiattach": "<is> True"}
        attached.cinder("POST", "/types", {"volume_type": {"name": "shared", "extra_specs": specs}})
    shared = attached.make("shared")
    attached.attach(shared)
    assert look(nova) == attached.expected(A, B, shared)
    attached.reset(attached.b, status="available", attach_status="detached")
    attached.act(attached.b, "os-force_delete", {})
    attached.lab.wait("it is gone", lambda: attached.b not in [row["id"] for row in attached.rows()])
    assert look(nova) == attached.expected(A, f"volume/{attached.b}", shared)


@contextmanager
def silent(lab: CloudLab) -> Iterator[None]:
    """cinder-api is stopped in its tracks: its socket takes connections, and nobody answers."""
    pid = lab.facts["services"]["cinder-api"]["pid"]
    os.killpg(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(pid, signal.SIGCONT)


def test_a_silent_cinder_takes_its_time_and_no_more(
    lab: CloudLab, nova: NovaCompute, fresh: NovaCompute, attached: Attached
) -> None:
    known = nova.inventory(HOST, ("host02",), 0.0)
    assert disks(known) == attached.expected(A, B)
    with silent(lab):
        # One has asked Cinder before; the other does not even know yet which versions it speaks.
        for driver in (nova, fresh):
            began = time.monotonic()
            blind = driver.inventory(HOST, ("host02",), 0.0)
            took = time.monotonic() - began
            print(f"an inventory beside a silent Cinder took {took:.1f} s")
            assert took < 2 * LIMIT_S
            assert disks(blind) == attached.expected(f"volume/{attached.a}", f"volume/{attached.b}")
            # A heartbeat may have moved updated_at meanwhile.
            assert [(one.host, one.up) for one in blind.services] == [(one.host, one.up) for one in known.services]
            assert (blind.rooms, blind.groups) == (known.rooms, known.groups)
            assert [one.id for one in blind.servers] == [attached.server]
    for driver in (nova, fresh):
        assert look(driver) == attached.expected(A, B)


def test_a_cinder_that_refuses(lab: CloudLab, nova: NovaCompute, attached: Attached) -> None:
    """Who is no administrator in its eyes is shown the volume and not its place, or nothing at all."""
    policy = Lab(lab.name).etc / "cinder" / "policy.yaml"
    unknown = attached.expected(f"volume/{attached.a}", f"volume/{attached.b}")
    try:
        for rule in ("volume_extension:volume_host_attribute", "volume:get"):
            policy.write_text(f'"{rule}": "!"\n')
            lab.wait(f"{rule} is refused", lambda: look(nova) == unknown)
    finally:
        policy.write_text("{}\n")
    lab.wait("it is allowed again", lambda: look(nova) == attached.expected(A, B))


def test_the_catalog_decides_whether_cinder_is_found(lab: CloudLab, attached: Attached) -> None:
    """Older clouds call it volumev3 and have the project in its address; where there is none, nothing is known."""
    services = lab.identity("GET", "/services?type=block-storage")["services"]
    service = services[0]["id"]
    rows = lab.identity("GET", f"/endpoints?service_id={service}")["endpoints"]
    url = rows[0]["url"]

    def written(kind: str, address: str) -> tuple[str, ...]:
        lab.identity("PATCH", f"/services/{service}", {"service": {"type": kind}})
        for row in rows:
            lab.identity("PATCH", f"/endpoints/{row['id']}", {"endpoint": {"url": address}})
        with driver_of(lab) as driver:
            return look(driver)

    unknown = attached.expected(f"volume/{attached.a}", f"volume/{attached.b}")
    try:
        assert written("volumev3", url + "/$(project_id)s") == attached.expected(A, B)
        assert written("object-store", url) == unknown
        assert written("block-storage", lab.auth["auth_url"]) == unknown
    finally:
        assert written("block-storage", url) == attached.expected(A, B)
