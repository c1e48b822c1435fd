# SPDX-License-Identifier: Apache-2.0
"""What every Compute behind the port does, as far as the core relies on it: the same suite for every world.

A world comes as a Bench: how to boot, bury and bring back, and how to let time pass. The simulated one is here; the lab
joins by another entry in BENCHES. Times are limits, not measurements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest

from vmhad.kernel.cloud import Server, ServerState
from vmhad.ports import Compute, Refused, Unanswered
from vmhad.sim.clock import Agenda, SimClock
from vmhad.sim.compute import NovaFaults, SimCompute
from vmhad.sim.datacentre import Datacentre, SimHost
from vmhad.sim.life import Life
from vmhad.sim.nova import GroupRow, ServerRow, SimNova
from vmhad.sim.rebuild import Rebuilds


class Bench(Protocol):
    """One cloud with the hosts h1, h2, h3, empty at first."""

    compute: Compute

    def boot(self, name: str, host: str, group: str = "", stopped: bool = False) -> str:
        """The id of a new server."""

    def group(self, policy: str) -> str: ...

    def kill(self, host: str) -> None:
        """Power goes; Nova does not know yet."""

    def bring_back(self, host: str) -> None: ...

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        """Lets time pass until it holds; fails the test after two minutes."""

    def running_on(self, server_id: str) -> list[str]:
        """Where guests of it really run."""

    def api_away(self) -> None: ...


class SimBench:
    """The simulated Nova."""

    def __init__(self) -> None:
        self.agenda = Agenda()
        self.datacentre = Datacentre(self.agenda)
        self.nova = SimNova(self.datacentre)
        for name in ("h1", "h2", "h3"):
            self.nova.add_host(SimHost(name))
        self.faults = NovaFaults()
        self.compute: Compute = SimCompute(
            self.nova,
            Rebuilds(self.nova),
            self.faults,
            Life(self.agenda, "e1"),
            SimClock(self.agenda),
            5.0,
            lambda post: None,
        )

    def boot(self, name: str, host: str, group: str = "", stopped: bool = False) -> str:
        self.nova.add_server(ServerRow(name, name, host, ServerState.STOPPED if stopped else ServerState.ACTIVE))
        if group:
            self.nova.groups[group].members.append(name)
        return name

    def group(self, policy: str) -> str:
        self.nova.groups[policy] = GroupRow(policy, policy)
        return policy

    def kill(self, host: str) -> None:
        self.datacentre.cut(host)

    def bring_back(self, host: str) -> None:
        self.datacentre.restore(host)

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        until = self.agenda.now + 120.0
        while not holds():
            assert self.agenda.step(until), f"in vain waited for: {what}"

    def running_on(self, server_id: str) -> list[str]:
        return sorted(self.datacentre.vms[server_id].guests)

    def api_away(self) -> None:
        self.faults.down_until = self.agenda.now + 30.0


BENCHES: dict[str, Callable[[], Bench]] = {"sim": SimBench}


@pytest.fixture(params=sorted(BENCHES))
def bench(request: pytest.FixtureRequest) -> Bench:
    return BENCHES[request.param]()


def server(bench: Bench, server_id: str) -> Server:
    found = bench.compute.server(server_id)
    assert found is not None
    return found


def bury(bench: Bench, host: str) -> None:
    """Dead beyond doubt, and Nova knows it: what a recovery has done before it evacuates."""
    bench.kill(host)
    bench.compute.set_forced_down(host, True)


def statuses(bench: Bench, host: str, server_id: str) -> list[str]:
    return [one.status for one in bench.compute.departures(host)[1] if one.server == server_id]


def evacuated(bench: Bench, server_id: str, target: str) -> None:
    bench.compute.evacuate(server_id, target, False)
    bench.wait(f"{server_id} on {target}", lambda: server(bench, server_id).host == target)


def test_services_are_up_enabled_and_sorted(bench: Bench) -> None:
    services = bench.compute.services()
    assert [one.host for one in services] == ["h1", "h2", "h3"]
    assert all(one.up and one.enabled and not one.forced_down for one in services)
    assert bench.compute.service("h1") == services[0]
    assert bench.compute.service("nosuchhost") is None


def test_a_heartbeat_moves_updated_at_and_a_dead_host_has_none(bench: Bench) -> None:
    first = bench.compute.service("h2")
    assert first is not None
    bench.wait("a heartbeat", lambda: bench.compute.service("h2") != first)
    bench.kill("h1")
    before = bench.compute.service("h1")
    assert before is not None and before.up, "Nova says up for a minute after a death"
    bench.wait("Nova's own silence", lambda: not _up(bench, "h1"))
    after = bench.compute.service("h1")
    assert after is not None and after.updated_at == before.updated_at
    assert _up(bench, "h2")


def test_forcing_down_and_disabling_move_updated_at_too(bench: Bench) -> None:
    """Which is why a change of it is a sign of life only if nothing else of the row changed."""
    bench.kill("h1")
    before = bench.compute.service("h1")
    bench.wait("another second", lambda: bench.compute.service("h2") != before and _second_passed(bench))
    bench.compute.set_forced_down("h1", True)
    forced = bench.compute.service("h1")
    assert before is not None and forced is not None
    assert forced.forced_down and not forced.up and forced.updated_at != before.updated_at


def test_disabling_keeps_the_reason(bench: Bench) -> None:
    bench.compute.set_enabled("h1", False, "vmhad: why")
    found = bench.compute.service("h1")
    assert found is not None and (found.enabled, found.disabled_reason) == (False, "vmhad: why")
    bench.compute.set_enabled("h1", True, "")
    found = bench.compute.service("h1")
    assert found is not None and (found.enabled, found.disabled_reason) == (True, "")


def test_evacuation_is_done_when_the_host_moved(bench: Bench) -> None:
    vm = bench.boot("vm", "h1")
    bury(bench, "h1")
    bench.compute.evacuate(vm, "h2", False)
    assert [one.target for one in bench.compute.departures("h1")[1]] == ["h2"], "the target stands there from the start"
    bench.wait("it moved", lambda: server(bench, vm).host == "h2")
    assert statuses(bench, "h1", vm) == ["done"]
    assert bench.compute.departures("h1")[0] == ()
    assert server(bench, vm).state is ServerState.ACTIVE
    assert bench.running_on(vm) == ["h2"]


def test_a_stopped_server_stays_stopped(bench: Bench) -> None:
    vm = bench.boot("vm", "h1", stopped=True)
    bury(bench, "h1")
    evacuated(bench, vm, "h2")
    assert server(bench, vm).state is ServerState.STOPPED
    assert bench.running_on(vm) == []


@pytest.mark.parametrize(
    ("target", "words"), [("h2", "still in use"), ("h1", "host"), ("nosuchhost", "nosuchhost")]
)
def test_evacuation_from_a_living_host_or_to_nowhere_is_refused(bench: Bench, target: str, words: str) -> None:
    vm = bench.boot("vm", "h1")
    with pytest.raises(Refused, match=words):
        bench.compute.evacuate(vm, target, False)
    assert statuses(bench, "h1", vm) == []
    assert bench.running_on(vm) == ["h1"]


def test_two_posts_are_two_migrations_and_one_guest(bench: Bench) -> None:
    """Never idempotent; but the late twin names the same target and does no harm there."""
    vm = bench.boot("vm", "h1")
    bury(bench, "h1")
    bench.compute.evacuate(vm, "h2", False)
    bench.compute.evacuate(vm, "h2", False)
    assert len(statuses(bench, "h1", vm)) == 2
    bench.wait("both settled", lambda: not {"accepted", "pre-migrating"} & set(statuses(bench, "h1", vm)))
    assert "done" in statuses(bench, "h1", vm)
    assert (server(bench, vm).host, bench.running_on(vm)) == ("h2", ["h2"])
    with pytest.raises(Refused):
        bench.compute.evacuate(vm, "h2", False)


def test_no_valid_host_is_an_error_that_can_be_repeated(bench: Bench) -> None:
    """A server that was stopped comes up from ERROR as ACTIVE: whoever repeats must remember what it was."""
    group = bench.group("anti-affinity")
    vm = bench.boot("vm", "h1", group, stopped=True)
    bench.boot("sibling", "h2", group)
    bury(bench, "h1")
    bench.compute.evacuate(vm, "h2", False)
    bench.wait("Nova gave up", lambda: statuses(bench, "h1", vm) == ["error"])
    assert (server(bench, vm).host, server(bench, vm).state) == ("h1", ServerState.ERROR)
    assert "No valid host" in server(bench, vm).fault
    evacuated(bench, vm, "h3")
    assert statuses(bench, "h1", vm) == ["done", "error"], "newest first"
    assert server(bench, vm).state is ServerState.ACTIVE


def test_a_lone_member_of_a_hard_affinity_group_moves_by_force_only(bench: Bench) -> None:
    group = bench.group("affinity")
    first = bench.boot("first", "h1", group)
    bury(bench, "h1")
    bench.compute.evacuate(first, "h2", False)
    bench.wait("no valid host", lambda: statuses(bench, "h1", first) == ["error"])
    bench.compute.evacuate(first, "h2", True)
    bench.wait("by force", lambda: server(bench, first).host == "h2")


def test_a_target_that_dies_leaves_the_migration_unfinished(bench: Bench) -> None:
    vm = bench.boot("vm", "h1")
    bury(bench, "h1")
    bench.compute.evacuate(vm, "h2", False)
    bench.wait("it is received", lambda: statuses(bench, "h1", vm) == ["pre-migrating"])
    bury(bench, "h2")
    evacuated(bench, vm, "h3")
    assert statuses(bench, "h1", vm) == ["done", "pre-migrating"]
    assert bench.running_on(vm) == ["h3"]


def test_forced_down_is_cleared_only_after_the_source_cleaned_up(bench: Bench) -> None:
    vm = bench.boot("vm", "h1")
    bury(bench, "h1")
    evacuated(bench, vm, "h2")
    with pytest.raises(Refused, match="done"):
        bench.compute.set_forced_down("h1", False)
    bench.bring_back("h1")
    bench.wait("h1 has cleaned up", lambda: statuses(bench, "h1", vm) == ["completed"])
    bench.compute.set_forced_down("h1", False)
    assert _up(bench, "h1")
    assert bench.running_on(vm) == ["h2"]


def test_inventory_shows_groups_room_and_who_could_receive(bench: Bench) -> None:
    group = bench.group("anti-affinity")
    here, there = bench.boot("here", "h1", group), bench.boot("there", "h2", group)
    found = bench.compute.inventory("h1", ["h3", "h2"], 17.0)
    assert (found.host, found.at, [one.id for one in found.servers]) == ("h1", 17.0, [here])
    assert dict(found.member_hosts) == {here: "h1", there: "h2"}
    assert [one.host for one in found.services] == ["h2", "h3"]
    rooms = {one.host: one for one in found.rooms}
    assert rooms["h3"].vcpus - rooms["h2"].vcpus == 1
    assert rooms["h3"].ram_mib - rooms["h2"].ram_mib == found.servers[0].ram_mib


def test_stop_and_start(bench: Bench) -> None:
    vm = bench.boot("vm", "h1")
    with pytest.raises(Refused):
        bench.compute.start(vm)
    bench.compute.stop(vm)
    bench.wait("it is off", lambda: server(bench, vm).state is ServerState.STOPPED)
    assert bench.running_on(vm) == []
    bench.compute.start(vm)
    bench.wait("it is on", lambda: bench.running_on(vm) == ["h1"])


def test_an_api_that_is_away_is_no_answer(bench: Bench) -> None:
    vm = bench.boot("vm", "h1")
    bench.api_away()
    calls: list[Callable[[], object]] = [
        bench.compute.services,
        lambda: bench.compute.server(vm),
        lambda: bench.compute.departures("h1"),
        lambda: bench.compute.evacuate(vm, "h2", False),
    ]
    for call in calls:
        with pytest.raises(Unanswered):
            call()


def test_what_does_not_exist(bench: Bench) -> None:
    assert bench.compute.server("nosuchserver") is None
    with pytest.raises(Refused):
        bench.compute.evacuate("nosuchserver", "h2", False)


def _up(bench: Bench, host: str) -> bool:
    found = bench.compute.service(host)
    return found is not None and found.up


def _second_passed(bench: Bench) -> bool:
    """h2's heartbeat stands for a clock: its text moves by whole seconds."""
    first, second = bench.compute.service("h1"), bench.compute.service("h2")
    return first is not None and second is not None and second.updated_at > first.updated_at
