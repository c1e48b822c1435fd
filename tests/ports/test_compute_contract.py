# SPDX-License-Identifier: Apache-2.0
"""The contract of Compute, on the simulated Nova; and where a real one leaves it to chance, the worst that was seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.register_assert_rewrite(
    *(
        f"tests.ports.compute_{one}"
        for one in ("bench", "disks", "services", "evacuations", "twins", "groups", "migrations")
    )
)

from tests.ports.compute_bench import bury, place, statuses  # noqa: E402
from tests.ports.compute_contract import CASES, Case  # noqa: E402
from tests.ports.compute_disks import disks_are_where_their_storage_is  # noqa: E402
from vmhad.kernel.cloud import ServerState  # noqa: E402
from vmhad.kernel.topology import OF_CINDER, OF_NOVA  # noqa: E402
from vmhad.ports import Compute  # noqa: E402
from vmhad.sim.clock import Agenda, SimClock  # noqa: E402
from vmhad.sim.compute import NovaFaults, SimCompute  # noqa: E402
from vmhad.sim.datacentre import Datacentre, SimHost  # noqa: E402
from vmhad.sim.life import Life  # noqa: E402
from vmhad.sim.migrations import LiveMigrations  # noqa: E402
from vmhad.sim.nova import GroupRow, ServerRow, SimNova  # noqa: E402
from vmhad.sim.rebuild import Rebuilds  # noqa: E402


class SimBench:
    """The simulated Nova."""

    def __init__(self) -> None:
        self.agenda = Agenda()
        self.datacentre = Datacentre(self.agenda)
        self.nova = SimNova(self.datacentre)
        self.hosts = ("h1", "h2", "h3", "h4")
        for name in self.hosts:
            self.nova.add_host(SimHost(name))
        self.rebuilds = Rebuilds(self.nova)
        self.faults = NovaFaults()
        life, clock = Life(self.agenda, "e1"), SimClock(self.agenda)
        live = LiveMigrations(self.nova, self.rebuilds)
        self.compute: Compute = SimCompute(
            self.nova, self.rebuilds, live, self.faults, life, clock, 5.0, lambda post: None
        )

    def boot(self, name: str, host: str, *, group: str = "", stopped: bool = False, locked: bool = False) -> str:
        state = ServerState.STOPPED if stopped else ServerState.ACTIVE
        self.nova.add_server(ServerRow(name, name, host, state, locked=locked))
        if group:
            self.nova.groups[group].members.append(name)
        return name

    def boot_on(self, name: str, host: str, place: str) -> str:
        local, backend = place == OF_NOVA, place.removeprefix(OF_CINDER)
        self.nova.add_server(ServerRow(name, name, host, ServerState.ACTIVE, local_disk=local, backend=backend))
        return name

    def group(self, policy: str) -> str:
        self.nova.groups[policy] = GroupRow(policy, policy)
        return policy

    def pause(self, server_id: str) -> None:
        self.nova.servers[server_id].state = ServerState.PAUSED

    def kill(self, host: str) -> None:
        self.datacentre.cut(host)

    def hang(self, host: str) -> None:
        self.datacentre.hang(host)

    def bring_back(self, host: str) -> None:
        self.datacentre.restore(host)
        self.wait("it runs", lambda: self.datacentre.hosts[host].serves)

    def reboot(self, host: str) -> None:
        self.datacentre.reboot(host)

    def lose_guest(self, server_id: str, host: str) -> None:
        assert host in self.datacentre.vms[server_id].guests
        self.nova.guest_dies(server_id)

    def restart_compute(self, host: str) -> None:
        self.datacentre.stop_compute(host)
        self.datacentre.restore(host)

    def slow_spawns(self, host: str, seconds: float) -> None:
        self.rebuilds.slow[host] = seconds

    def late_check(self, host: str) -> None:
        assert not self.nova.affinity_check_off

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        until = self.agenda.now + 120.0
        while not holds():
            assert self.agenda.step(until), f"in vain waited for: {what}"

    def rest(self, seconds: float) -> None:
        until = self.agenda.now + seconds
        while self.agenda.step(until):
            pass

    def running_on(self, server_id: str) -> list[str]:
        return sorted(self.datacentre.vms[server_id].guests)

    def api_away(self) -> None:
        self.faults.down_until = self.agenda.now + 30.0


@pytest.fixture
def bench() -> SimBench:
    return SimBench()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_contract(bench: SimBench, case: Case) -> None:
    case.run(bench)


def test_disks_contract(bench: SimBench) -> None:
    disks_are_where_their_storage_is(bench)


def test_twins_at_once_end_as_badly_as_was_seen(bench: SimBench) -> None:
    """One record failed, the other accepted for ever; ERROR, on the dead host, while the guest runs on the target."""
    vm = bench.boot("vm", "h1")
    bury(bench, "h1")
    bench.compute.evacuate(vm, "h2", False)
    bench.compute.evacuate(vm, "h2", False)
    bench.rest(60.0)
    assert statuses(bench, "h1", vm) == ["accepted", "failed"]
    assert place(bench, vm) == ("h1", ServerState.ERROR)
    assert bench.running_on(vm) == ["h2"]


def test_what_a_killed_nova_compute_had_begun_dies_with_it(bench: SimBench) -> None:
    """Its host lives and the guests on it run on; the half-made one never comes to be, also when it is started anew."""
    vm = bench.boot("vm", "h1")
    bury(bench, "h1")
    bench.slow_spawns("h2", 5.0)
    bench.compute.evacuate(vm, "h2", False)
    bench.wait("it is received", lambda: statuses(bench, "h1", vm) == ["pre-migrating"])
    bench.restart_compute("h2")
    bench.rest(60.0)
    assert statuses(bench, "h1", vm) == ["pre-migrating"]
    assert bench.running_on(vm) == []


def test_a_second_start_of_the_source_gives_a_lost_rebuild_up(bench: SimBench) -> None:
    vm = bench.boot("vm", "h1")
    bury(bench, "h1")
    bench.hang("h2")
    bench.compute.evacuate(vm, "h2", False)
    bench.rest(1.0)
    bench.bring_back("h1")
    bench.wait("its record is ended", lambda: statuses(bench, "h1", vm) == ["completed"])
    assert place(bench, vm) == ("h1", ServerState.ACTIVE)
    bench.restart_compute("h1")
    bench.wait("it is given up", lambda: place(bench, vm) == ("h1", ServerState.ERROR))
