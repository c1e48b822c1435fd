# SPDX-License-Identifier: Apache-2.0
"""ports.Power of one engine over the simulated BMCs: they answer, are silent, lie, or belong to somebody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmhad.kernel.signal import Reading
from vmhad.ports import Refused, Unanswered
from vmhad.sim.clock import SimClock
from vmhad.sim.datacentre import Bmc, Datacentre, SimHost
from vmhad.sim.life import Life

ANSWER_S = 0.1


@dataclass
class PowerOrder:
    """One power-off or power-on as it left for a BMC; kept for the checkers."""

    at: float
    engine: str
    verb: str
    host: str


class SimPower:
    """One engine's way to the BMCs. on_order is told of every order before a BMC sees it."""

    def __init__(
        self,
        datacentre: Datacentre,
        life: Life,
        clock: SimClock,
        timeout_s: float,
        on_order: Callable[[PowerOrder], None],
    ) -> None:
        self._datacentre, self._life, self._clock = datacentre, life, clock
        self._timeout_s = timeout_s
        self._on_order = on_order

    def read(self, host: str) -> tuple[Reading, str]:
        self._life.count_call()
        reading, text, took_s = look(self._datacentre, host, self._timeout_s)
        self._clock.spend(took_s)
        return reading, text

    def off(self, host: str) -> None:
        self._order("power_off", host, self._datacentre.power_off)

    def on(self, host: str) -> None:
        self._order("power_on", host, self._datacentre.power_on)

    def _order(self, verb: str, host: str, act: Callable[[str], None]) -> None:
        self._life.count_call()
        self._on_order(PowerOrder(self._datacentre.agenda.now, self._life.name, verb, host))
        truth = self._datacentre.hosts[host]
        if not _answers(truth):
            self._clock.spend(self._timeout_s)
            raise Unanswered(f"the BMC of {host} did not answer in {self._timeout_s:g} s")
        self._clock.spend(ANSWER_S)
        if truth.bmc is Bmc.WRONG_PASSWORD:
            raise Refused(f"the BMC of {host} refused the password")
        if truth.bmc in (Bmc.LIES, Bmc.STUCK):
            return
        aimed = truth.bmc_of if truth.bmc is Bmc.OTHER else host
        self._life.send(verb, lambda: act(aimed))


def look(datacentre: Datacentre, host: str, timeout_s: float) -> tuple[Reading, str, float]:
    """What a BMC says of its host's power, in words, and how long it took (seconds)."""
    truth = datacentre.hosts[host]
    if not _answers(truth):
        return Reading.UNKNOWN, f"BMC did not answer in {timeout_s:g} s", timeout_s
    if truth.bmc is Bmc.WRONG_PASSWORD:
        return Reading.UNKNOWN, "BMC refused the password", ANSWER_S
    if truth.bmc is Bmc.LIES:
        return Reading.OFF, "chassis power is off", ANSWER_S
    if truth.bmc is Bmc.OTHER:
        truth = datacentre.hosts[truth.bmc_of]
    if truth.powered:
        return Reading.ON, "chassis power is on", ANSWER_S
    return Reading.OFF, "chassis power is off", ANSWER_S


def _answers(host: SimHost) -> bool:
    return host.feed and host.bmc is not Bmc.DEAD
