# SPDX-License-Identifier: Apache-2.0
"""The contract of Readiness, over real sockets with a stand-in for Nova, and on the simulated VMs."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from math import inf
from urllib.parse import urlsplit

import pytest

pytest.register_assert_rewrite("tests.ports.readiness_contract")

from keystoneauth1.noauth import NoAuth  # noqa: E402

from tests.ports.doors import Door, door  # noqa: E402
from tests.ports.readiness_contract import CASES, VM, Bench, Case  # noqa: E402
from tests.ports.stand_in import Answer, StandIn, running  # noqa: E402
from vmhad.drivers.compute.nova import NovaCompute  # noqa: E402
from vmhad.drivers.readiness.gates import GateProbes  # noqa: E402
from vmhad.kernel.gate import Gate, Kind, read_gate  # noqa: E402
from vmhad.sim.clock import SimClock  # noqa: E402
from vmhad.sim.draft import Draft  # noqa: E402
from vmhad.sim.life import Life  # noqa: E402
from vmhad.sim.readiness import PROBE_LIMIT_S, SimReadiness  # noqa: E402
from vmhad.sim.world import Pace  # noqa: E402

NOVA_S, PROBES_S = 1.0, 0.5


def my_address() -> str:
    """Of this machine as others reach it. Nothing is sent for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


class RealBench:
    """The VM is a port of this machine."""

    limit_s = NOVA_S + PROBES_S

    def __init__(self, nova: StandIn, vm: Door) -> None:
        self._nova, self._vm, self._is_wired = nova, vm, False
        nova.answer = self._answer
        self.compute = NovaCompute(NoAuth(endpoint=nova.url), timeout_s=NOVA_S)
        self.eye = GateProbes(self.compute, PROBES_S)
        self.gates = (Gate(Kind.PORT), read_gate(f"tcp:{vm.port}"), read_gate(f"http:{vm.port}/healthz"))
        place = f"{vm.address}:{vm.port}"
        self.named = (read_gate(f"tcp:{place}"), read_gate(f"http:{place}/healthz"))

    def _answer(self, method: str, path: str) -> Answer:
        where = urlsplit(path).path.removeprefix("/v2.1")
        if not where.startswith(f"/servers/{VM}"):
            return 404, json.dumps({"itemNotFound": {"code": 404, "message": "Instance could not be found."}}).encode()
        fixed = {"addr": self._vm.address, "version": 4, "OS-EXT-IPS:type": "fixed"}
        if where.endswith("/os-interface"):
            state = "ACTIVE" if self._is_wired else "DOWN"
            port = {"port_id": "p1", "port_state": state, "net_id": "n", "mac_addr": "", "fixed_ips": []}
            return 200, json.dumps({"interfaceAttachments": [port]}).encode()
        return 200, json.dumps({"server": {"id": VM, "addresses": {"net": [fixed]}}}).encode()

    def serve(self) -> None:
        self._is_wired = True
        self._vm.open()

    def stop_serving(self) -> None:
        self._is_wired = False
        self._vm.close()

    def fall_silent(self) -> None:
        self._vm.fall_silent()

    def lose_nova(self) -> None:
        self._nova.delay_s = 30.0

    def took_s(self, call: Callable[[], object]) -> float:
        began_at = time.monotonic()
        call()
        return time.monotonic() - began_at


class SimBench:
    limit_s = NOVA_S + PROBE_LIMIT_S

    def __init__(self) -> None:
        draft = Draft(pace=Pace(call_timeout_s=NOVA_S))
        draft.add_segment("east", {})
        draft.add_host("h1", {})
        draft.add_vm(VM, "h1", set(), {})
        self.world = draft.build()
        self._clock = SimClock(self.world.agenda)
        self._service = self.world.datacentre.vms[VM].service
        self._service.takes_s = inf
        life = Life(self.world.agenda, "readiness")
        self.eye = SimReadiness(life, self._clock, self.world.nova, self.world.nova_faults, NOVA_S)
        self.gates = (Gate(Kind.PORT), read_gate("tcp:5432"), read_gate("http:8080/healthz"))
        self.named = (read_gate("tcp:192.0.2.1:5432"), read_gate("http:192.0.2.1:8080/healthz"))

    def serve(self) -> None:
        self._service.takes_s = 0.0

    def stop_serving(self) -> None:
        self._service.takes_s = inf

    def fall_silent(self) -> None:
        self._service.silent_until = inf

    def lose_nova(self) -> None:
        self.world.nova_faults.down_until = inf

    def took_s(self, call: Callable[[], object]) -> float:
        self._clock.spent_s = 0.0
        call()
        return self._clock.spent_s


@pytest.fixture(params=["real", "simulated"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "simulated":
        yield SimBench()
        return
    address = my_address()
    if not address:
        pytest.skip("this machine has no address but its loopback's, which is none that a VM may have")
    with running() as nova, door(address) as vm:
        real = RealBench(nova, vm)
        yield real
        real.compute.close()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_contract(case: Case, bench: Bench) -> None:
    case.run(bench)
