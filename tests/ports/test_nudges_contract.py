# SPDX-License-Identifier: Apache-2.0
"""The contract of Nudges, on the simulated queue."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.register_assert_rewrite("tests.ports.nudges_contract")

from tests.ports.nudges_contract import CASES, Case  # noqa: E402
from vmhad.ports import Nudge, Nudges  # noqa: E402
from vmhad.sim.clock import Agenda, SimClock  # noqa: E402
from vmhad.sim.nudges import NudgeQueue, SimNudges  # noqa: E402


class SimBench:
    def __init__(self) -> None:
        self._agenda = Agenda()
        self._queue = NudgeQueue(self._agenda)
        self.woken = 0

    def _wake(self) -> None:
        self.woken += 1

    def engine(self) -> Nudges:
        clock = SimClock(self._agenda)
        clock.on_wake = self._wake
        return SimNudges(self._queue, clock)

    def say(self, host: str, server: str, event: str) -> None:
        self._queue.put(Nudge(host, server, event))

    def garbage(self) -> None:
        """What cannot be read never gets as far as the port."""

    def go_away(self) -> None:
        self._queue.lost = True

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        assert holds(), f"in vain waited for: {what}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_contract(case: Case) -> None:
    case.run(SimBench())
