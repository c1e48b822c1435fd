# SPDX-License-Identifier: Apache-2.0
"""The Nova driver against a real Nova: what is its own affair.

What it promises to the core, and what of Nova's ways the core relies on, stands in tests/ports/compute_contract.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.cloud_lab import CloudLab
from vmhad.drivers.compute.nova import NovaCompute
from vmhad.kernel.cloud import ServerState
from vmhad.ports import Refused, Unanswered

pytestmark = pytest.mark.cloud

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def nova(lab: CloudLab) -> Iterator[NovaCompute]:
    driver = NovaCompute(lab.auth, region=lab.facts["region"], room_keep_s=0.0)
    yield driver
    driver.close()


def bury(lab: CloudLab, nova: NovaCompute, host: str) -> None:
    """The host is dead beyond doubt and Nova knows it: what a recovery has done before it evacuates."""
    lab.command("cut", host)
    nova.set_forced_down(host, True)


def refusal(call: object, *arguments: object) -> str:
    with pytest.raises(Refused) as said:
        call(*arguments)  # type: ignore[operator]
    return str(said.value)


def test_enable_and_force_down_are_seen(lab: CloudLab, nova: NovaCompute) -> None:
    nova.set_enabled("host01", False, "vmhad: a reason of 300 signs " + "x" * 300)
    service = nova.service("host01")
    assert service is not None and not service.enabled
    assert service.disabled_reason.startswith("vmhad: a reason") and len(service.disabled_reason) == 255
    nova.set_enabled("host01", True, "")
    nova.set_forced_down("host01", True)
    service = nova.service("host01")
    assert service is not None and service.enabled and service.forced_down and not service.up
    nova.set_forced_down("host01", False)
    service = nova.service("host01")
    assert service is not None and not service.forced_down
    assert "nosuchhost" in refusal(nova.set_forced_down, "nosuchhost", True)


def test_server_as_the_core_sees_it(lab: CloudLab, nova: NovaCompute) -> None:
    (server_id,) = lab.boot(host="host02", name="seen", metadata={"vmhad": "protect"})
    server = nova.server(server_id)
    assert server is not None
    assert (server.name, server.host, server.state) == ("seen-01", "host02", ServerState.ACTIVE)
    assert (server.vcpus, server.ram_mib, server.disk_gib) == (1, 64, 0)
    assert not server.volume_backed and not server.locked and not server.zone_pinned and server.task_state == ""
    assert dict(server.metadata) == {"vmhad": "protect"}
    lab.act(server_id, "lock")
    nova.stop(server_id)
    lab.wait("the server is off", lambda: lab.server(server_id)["status"] == "SHUTOFF")
    server = nova.server(server_id)
    assert server is not None and server.locked and server.state is ServerState.STOPPED
    assert "stopped" in refusal(nova.stop, server_id)
    nova.start(server_id)
    lab.wait("the server is on", lambda: lab.running_on(server_id) == ["host02"])


def test_zone_that_was_asked_for_is_pinned(lab: CloudLab, nova: NovaCompute) -> None:
    (server_id,) = lab.boot(zone="nova")
    server = nova.server(server_id)
    assert server is not None and (server.zone, server.zone_pinned) == ("nova", True)


def test_departures_are_two_requests(lab: CloudLab, nova: NovaCompute) -> None:
    ids = lab.boot(6, host="host01")
    nova.services()
    before, made = nova.http_requests, nova.calls_made
    servers, migrations = nova.departures("host01")
    assert nova.http_requests - before == 2 == nova.calls_made - made
    assert [server.id for server in servers] == sorted(ids)
    assert {server.host for server in servers} == {"host01"}
    assert not {migration.server for migration in migrations} & set(ids)


def test_departures_are_read_to_the_last_page(lab: CloudLab, nova: NovaCompute) -> None:
    """Nova's page is 1000 rows; one of 2 shows the same links and markers."""
    ids = lab.boot(5, host="host01")
    bury(lab, nova, "host01")
    for server_id in ids:
        nova.evacuate(server_id, "host02", False)
    for server_id in ids:
        lab.wait_settled(server_id)
    small = {"limit": "2", "migration_type": "evacuation", "source_compute": "host01"}
    rows = list(nova._calls.pages("migrations", "/os-migrations", "2.80", "migrations", small))
    assert {row["uuid"] for row in rows} == {migration.id for migration in nova.departures("host01")[1]}
    assert len(rows) == len({row["uuid"] for row in rows}) >= 5
    small = {"limit": "2", "all_tenants": "1", "host": "host02"}
    servers = list(nova._calls.pages("servers", "/servers/detail", "2.96", "servers", small))
    assert sorted(row["id"] for row in servers) == sorted(ids)


def test_inventory_for_planning(lab: CloudLab, nova: NovaCompute) -> None:
    apart = lab.group("anti-affinity", max_per_host=2)
    lab.group("affinity", name="empty")
    here = lab.boot(2, host="host01", group=apart, name="here")
    (there,) = lab.boot(host="host02", group=apart, name="there")
    (alone,) = lab.boot(host="host01", name="alone")
    found = nova.inventory("host01", ["host02", "host03"], 17.0)
    assert (found.host, found.at) == ("host01", 17.0)
    assert [server.id for server in found.servers] == sorted([*here, alone])
    assert [(group.id, group.policy, group.max_per_host) for group in found.groups] == [(apart, "anti-affinity", 2)]
    assert set(found.groups[0].members) == {*here, there}
    assert dict(found.member_hosts) == {here[0]: "host01", here[1]: "host01", there: "host02"}
    assert [service.host for service in found.services] == ["host02", "host03"]
    assert found.zones["host01"] == "nova"
    rooms = {room.host: room for room in found.rooms}
    assert rooms.keys() == {"host02", "host03"}
    assert rooms["host03"].ram_mib - rooms["host02"].ram_mib == 64
    assert rooms["host03"].vcpus - rooms["host02"].vcpus == 1
    assert all(room.ram_mib > 1000 and room.disk_gib > 10 for room in found.rooms)


def test_hard_affinity_moves_by_force_only(lab: CloudLab, nova: NovaCompute) -> None:
    """The filter wants a host that holds the group, and that host is dead: the first needs force, the rest do not."""
    together = lab.group("affinity")
    first, second = lab.boot(2, host="host01", group=together)
    bury(lab, nova, "host01")
    nova.evacuate(first, "host02", False)
    assert [row["status"] for row in lab.wait_settled(first)] == ["error"]
    nova.evacuate(first, "host02", True)
    assert "done" in [row["status"] for row in lab.wait_settled(first, records=2)]
    nova.evacuate(second, "host02", False)
    assert [row["status"] for row in lab.wait_settled(second)] == ["done"]
    assert lab.running_on(first) == lab.running_on(second) == ["host02"]


@pytest.mark.chaos
def test_why_evacuate_is_written_out_as_2_94(lab: CloudLab, nova: NovaCompute) -> None:
    """One microversion later Nova leaves what it evacuated switched off; and past 2.67 it knows no force."""
    (server_id,) = lab.boot(host="host01")
    bury(lab, nova, "host01")
    forced = {"evacuate": {"host": "host02", "force": True}}
    refused = lab.nova.compute.request(f"/servers/{server_id}/action", "POST", json=forced, microversion="2.68")
    assert refused.status_code == 400 and lab.evacuations(server_id) == []
    lab.api("POST", f"/servers/{server_id}/action", {"evacuate": {"host": "host02"}}, microversion="2.95")
    assert [row["status"] for row in lab.wait_settled(server_id)] == ["done"]
    assert lab.server(server_id)["status"] == "SHUTOFF" and lab.running_on(server_id) == []


def test_a_wrong_password_is_no_answer_and_is_not_told(lab: CloudLab) -> None:
    wrong = "not-the-password"
    driver = NovaCompute({**lab.auth, "password": wrong}, region=lab.facts["region"])
    with pytest.raises(Unanswered) as said:
        driver.services()
    assert "Unauthorized" in str(said.value) and wrong not in f"{said.value!r}{driver!r}"


def test_keystone_away_does_not_matter_while_the_token_lives(lab: CloudLab, nova: NovaCompute) -> None:
    nova.services()
    fresh = NovaCompute(lab.auth, region=lab.facts["region"])
    lab.command("stop", "keystone", "--kill")
    try:
        assert len(nova.services()) == len(lab.hosts)
        with pytest.raises(Unanswered):
            fresh.services()
    finally:
        lab.command("start", "keystone")
    lab.wait("the second one has logged in", lambda: _answers(fresh))


def _answers(nova: NovaCompute) -> bool:
    try:
        return bool(nova.services())
    except (Unanswered, Refused):
        return False


def test_what_policies_of_vms_match_by(lab: CloudLab, nova: NovaCompute) -> None:
    """Of the whole cloud: what a server's own row says, and what is asked of Nova and Keystone beside it."""
    (server_id,) = lab.boot(host="host01", name="matched")
    aggregate = lab.api("POST", "/os-aggregates", {"aggregate": {"name": "matched-by"}})["aggregate"]
    where = f"/os-aggregates/{aggregate['id']}"
    lab.api("POST", f"{where}/action", {"add_host": {"host": "host01"}})
    try:
        found = nova.surroundings(frozenset({"aggregate", "domain"}), frozenset({"default", "nosuch"}))
    finally:
        lab.api("POST", f"{where}/action", {"remove_host": {"host": "host01"}})
        lab.api("DELETE", where)
    assert found.aggregates == {"host01": ("matched-by",)} and not found.unknown and not found.groups
    server = nova.server(server_id)
    assert server is not None and found.domains[server.project] == "default"
    assert server.flavor and server.image and [one.id for one in nova.servers_named("matched-01")] == [server_id]
    assert server_id in {one.id for one in nova.all_servers()}
