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
HANGS_S = 30.0
SLOW_SHARE = 0.8
TRUE = {
    True: (Reading.ON, "chassis power is on", ANSWER_S),
    False: (Reading.OFF, "chassis power is off", ANSWER_S),
}
DECLINES = {Bmc.WRONG_PASSWORD: "refused the password", Bmc.REFUSES: "declined the command"}


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
        truth = self._datacentre.hosts.get(host)
        if truth is None:
            raise Refused(f"no BMC is configured for {host}")
        self._on_order(PowerOrder(self._datacentre.agenda.now, self._life.name, verb, host))
        self._clock.spend(_takes_s(truth, self._timeout_s))
        if truth.bmc is Bmc.HANGS and truth.feed and not truth.bmc_silenced_by:
            self._datacentre.agenda.after(HANGS_S, lambda: act(host))
        if not _answers(truth):
            raise Unanswered(f"the BMC of {host} did not answer in {self._timeout_s:g} s")
        if truth.bmc is Bmc.GARBAGE:
            raise Unanswered(f"the BMC of {host} answered garbage")
        if truth.bmc in DECLINES:
            raise Refused(f"the BMC of {host} {DECLINES[truth.bmc]}")
        if truth.bmc in (Bmc.LIES, Bmc.STUCK):
            return
        aimed = truth.bmc_of if truth.bmc is Bmc.OTHER else host
        self._life.send(verb, lambda: act(aimed))
        if truth.bmc is Bmc.LOSES_ANSWERS:
            self._clock.spend(self._timeout_s)
            raise Unanswered(f"the BMC of {host} did not answer in {self._timeout_s:g} s")


def look(datacentre: Datacentre, host: str, timeout_s: float) -> tuple[Reading, str, float]:
    """What a BMC says of its host's power, in words, and how long it took (seconds)."""
    truth = datacentre.hosts.get(host)
    if truth is None:
        return Reading.UNKNOWN, f"no BMC is configured for {host}", 0.0
    # Nearly every look is of a BMC that works.
    if truth.bmc is Bmc.OK and truth.feed and not truth.bmc_silenced_by and datacentre.agenda.now >= truth.blips_until:
        return TRUE[truth.powered]
    if not _answers(truth):
        return Reading.UNKNOWN, f"BMC did not answer in {timeout_s:g} s", timeout_s
    took_s = ANSWER_S if truth.bmc is Bmc.OK else _takes_s(truth, timeout_s)
    if truth.bmc is Bmc.WRONG_PASSWORD:
        return Reading.UNKNOWN, "BMC refused the password", took_s
    if truth.bmc is Bmc.GARBAGE:
        return Reading.UNKNOWN, "BMC answered garbage", took_s
    if truth.bmc is Bmc.LIES or datacentre.agenda.now < truth.blips_until:
        return Reading.OFF, "chassis power is off", took_s
    if truth.bmc is Bmc.OTHER:
        truth = datacentre.hosts[truth.bmc_of]
    if truth.powered:
        return Reading.ON, "chassis power is on", took_s
    return Reading.OFF, "chassis power is off", took_s


def _answers(host: SimHost) -> bool:
    return host.feed and host.bmc not in (Bmc.DEAD, Bmc.HANGS) and not host.bmc_silenced_by


def _takes_s(host: SimHost, timeout_s: float) -> float:
    if not _answers(host):
        return timeout_s
    return timeout_s * SLOW_SHARE if host.bmc is Bmc.SLOW else ANSWER_S
