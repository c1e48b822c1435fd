# SPDX-License-Identifier: Apache-2.0
"""The hands act for what is wanted now, not for what was wanted when all of them were busy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from vmhad.engine.executor import Executor
from vmhad.engine.world import World
from vmhad.kernel.signal import Reading
from vmhad.kernel.step import Step, Verb, start
from vmhad.ports import Compute, Power, Workers


@dataclass
class _Clock:
    at: float = 1000.0

    def now(self) -> float:
        return self.at


@dataclass
class _Bmc:
    sent: list[str] = field(default_factory=list)

    def read(self, host: str) -> tuple[Reading, str]:
        return Reading.ON, "chassis power is on"

    def off(self, host: str) -> None:
        self.sent.append(host)


@dataclass
class _BusyWorkers:
    """All threads are taken: what is submitted waits."""

    waiting: list[Callable[[], object]] = field(default_factory=list)

    def submit(self, name: str, call: Callable[[], object]) -> bool:
        self.waiting.append(call)
        return True


def power_off() -> Step:
    return start(Step("h1.1/1/power_off", "h1.1", Verb.POWER_OFF, "h1"), 1000.0)


def sent_after(then: list[Step]) -> list[str]:
    """What leaves for the BMC when the threads are free again, where these steps are wanted by then."""
    bmc, workers = _Bmc(), _BusyWorkers()
    world = World(cast(Compute, None), cast(Power, bmc), _Clock())  # type: ignore[arg-type]
    executor = Executor(world, cast(Workers, workers), lambda segment: 60.0, 5.0)
    executor.pursue("east", [power_off()], 1000.0)
    executor.pursue("east", then, 1000.1)
    workers.waiting[0]()
    return bmc.sent


def test_a_wanted_act_is_made_when_a_thread_is_free() -> None:
    assert sent_after([power_off()]) == ["h1"]


@pytest.mark.parametrize("then", [[], [replace(power_off(), attempt=2)]], ids=["given up", "the next attempt"])
def test_an_act_that_nobody_wants_any_more_is_not_made(then: list[Step]) -> None:
    assert sent_after(then) == []
