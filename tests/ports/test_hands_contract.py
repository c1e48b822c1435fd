# SPDX-License-Identifier: Apache-2.0
"""The contract of Hands, over a real RabbitMQ with signed orders, and on the simulated agents."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

pytest.register_assert_rewrite("tests.ports.hands_contract")

from tests.ports.hands_contract import CASES, FROZEN, PAUSED, Bench, Case  # noqa: E402
from tests.ports.orders_bench import HOSTS, RabbitBench  # noqa: E402
from vmhad.kernel.beat import DomainState, Plane  # noqa: E402
from vmhad.sim.agents import Agents  # noqa: E402
from vmhad.sim.clock import SimClock  # noqa: E402
from vmhad.sim.draft import Draft  # noqa: E402
from vmhad.sim.guests import befall  # noqa: E402
from vmhad.sim.hands import Ear, SimHands  # noqa: E402
from vmhad.sim.life import Life  # noqa: E402
from vmhad.sim.world import Pace  # noqa: E402


class SimBench:
    """A simulated datacentre of two hosts with agents. What was done there is read from the truth."""

    limit_s = 2.0

    def __init__(self) -> None:
        draft = Draft(pace=Pace(call_timeout_s=self.limit_s))
        draft.add_segment("east", {})
        for host in HOSTS:
            draft.add_host(host, {})
        for vm in (FROZEN, PAUSED):
            draft.add_vm(vm, "h1", set(), {})
        draft.agents = ("ceph", 1, tuple(Plane))
        self.world = draft.build()
        life = Life(self.world.agenda, "hands")
        self._clock = SimClock(self.world.agenda)
        self.hands = SimHands(life, self._clock, self.world.acts, self.limit_s)
        self._by_hand = dict.fromkeys(HOSTS, 0)
        for vm, what in ((FROZEN, "io-pauses"), (PAUSED, "pauses")):
            befall(self.world.nova, vm, what)

    def done(self, host: str) -> list[str]:
        restarts = self.world.acts.starts.get((host, "nova-compute"), 0) - self._by_hand[host]
        resumed = [one for one in self.world.datacentre.vms.values() if one.said[0] is DomainState.RUNNING]
        return ["restart nova-compute"] * restarts + [f"resume {one.id}" for one in resumed if host in one.guests]

    def known(self, host: str) -> str:
        return self.world.acts.invocation(host, "nova-compute")

    def starts_anew(self, host: str) -> None:
        self.world.acts.restart(host, "nova-compute", self.known(host))
        self._by_hand[host] += 1

    def stop_agent(self, host: str) -> None:
        self._agents.stop(host)

    def start_agent(self, host: str) -> None:
        self._agents.start(host)

    def hang_agent(self, host: str) -> None:
        self.world.acts.ears[host] = Ear.HANGS

    def lose_answers(self, host: str) -> None:
        self.world.acts.ears[host] = Ear.LOSES_ANSWERS

    def go_away(self) -> None:
        self._agents.set_bus(True)

    def come_back(self) -> None:
        self._agents.set_bus(False)

    def took_s(self, call: Callable[[], None]) -> float:
        self._clock.spent_s = 0.0
        call()
        return self._clock.spent_s

    @property
    def _agents(self) -> Agents:
        assert self.world.agents is not None
        return self.world.agents

    def end(self) -> None:
        """Nothing of it is outside of this process."""


@pytest.fixture(params=["rabbit", "sim"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    begun = SimBench() if request.param == "sim" else RabbitBench(request.getfixturevalue("rabbit"))
    yield begun
    begun.end()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_contract(bench: Bench, case: Case) -> None:
    case.run(bench)
