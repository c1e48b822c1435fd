# SPDX-License-Identifier: Apache-2.0
"""The services of the simulated hosts as their systemds have them: which start of each runs, how one ended, and what
becomes of an order to restart one.

Whether nova-compute and libvirtd run is the host's own (datacentre.py); here stands what its systemd adds to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmhad.kernel.beat import Unit, UnitState
from vmhad.ports import Refused
from vmhad.sim.clock import Ticket

if TYPE_CHECKING:
    from vmhad.sim.datacentre import Datacentre

RUNS_IN = {"libvirtd": "libvirtd", "nova-compute": "compute"}
SERVICES = tuple(RUNS_IN)
TAKES_S = {"libvirtd": 1.0, "nova-compute": 3.0}
# What dies again dies so long after each start; what hangs again, too.
AGAIN_S = 0.4
Key = tuple[str, str]


@dataclass(frozen=True)
class End:
    """How a service ended, and when."""

    state: UnitState
    detail: str
    kept_off: str
    at: float


class Services:
    """doomed: (host, service) -> what befalls it again shortly after each of its starts."""

    def __init__(self, datacentre: Datacentre) -> None:
        self._datacentre, self._agenda = datacentre, datacentre.agenda
        self.doomed: dict[Key, str] = {}
        self._ended: dict[Key, End] = {}
        self._starts: dict[Key, int] = {}
        self._began_at: dict[Key, float] = {}
        self._coming: dict[Key, Ticket] = {}
        datacentre.compute_started.append(lambda host: self._started((host, "nova-compute")))

    # What its systemd says.

    def units(self, host: str) -> Mapping[str, Unit]:
        return {service: self.unit(host, service) for service in SERVICES}

    def unit(self, host: str, service: str) -> Unit:
        truth, key = self._datacentre.hosts[host], (host, service)
        invocation = f"{service}-{self._starts.get(key, 1)}"
        end = self._ended.get(key)
        if self.runs(key):
            return Unit(UnitState.RUNS, "", "", invocation, self._since(self._began_at.get(key, 0.0)))
        if end is None:
            return Unit(UnitState.CHANGING, "", "", invocation, self._since(truth.booted_at))
        return Unit(end.state, end.detail, end.kept_off, invocation, self._since(end.at))

    def runs(self, key: Key) -> bool:
        return bool(getattr(self._datacentre.hosts[key[0]], RUNS_IN[key[1]]))

    def _since(self, at: float) -> float:
        return max(0.0, at - self._agenda.start_s)

    # What befalls one, and what people do.

    def dies(self, host: str, service: str, returns_s: float | None = None) -> None:
        """returns_s: its systemd starts it again by itself after so long."""
        state = UnitState.FAILED if returns_s is None else UnitState.WAITS
        self._end((host, service), state, "exit-code", "")
        if returns_s is not None:
            self._begin((host, service), returns_s)

    def stops(self, host: str, service: str) -> None:
        self._end((host, service), UnitState.STOPPED, "success", "")

    def is_masked(self, host: str, service: str) -> None:
        """Where it failed it is kept off, too; where it runs it is stopped."""
        state = UnitState.STOPPED if self.runs((host, service)) else self.unit(host, service).state
        self._end((host, service), state, "success" if state is UnitState.STOPPED else "exit-code", "masked")

    def is_gone(self, host: str, service: str) -> None:
        """Its package was removed: its systemd has no such service any more."""
        self._end((host, service), UnitState.OTHER, "not-found", "")

    def hangs(self, host: str) -> None:
        """Its nova-compute runs, and gets through to nobody."""
        self._datacentre.hosts[host].stalled = True

    def starts(self, host: str, service: str) -> None:
        """By hand, whatever it is."""
        key = (host, service)
        if not self.runs(key) and key not in self._coming:
            self._begin(key, TAKES_S[service])

    def mend(self, host: str) -> None:
        """What befell its services befalls them no more; who starts them is another thing."""
        self._datacentre.hosts[host].stalled = False
        for service in SERVICES:
            self.doomed.pop((host, service), None)

    def restart(self, host: str, service: str, known: str) -> None:
        """What the agent there does by an order. Raises Refused."""
        unit = self.unit(host, service)
        if unit.invocation != known:
            raise Refused(f"another start of {service} runs than the one that was seen")
        if unit.is_wanted_off:
            raise Refused(f"{service} of {host} was stopped by somebody")
        if unit.state is UnitState.CHANGING:
            raise Refused(f"{service} of {host} is just being started")
        self._drop((host, service))
        self._begin((host, service), TAKES_S[service])

    def starting(self, host: str, service: str) -> None:
        """However it ended is over: this is another start."""
        self._datacentre.changing()
        self._ended.pop((host, service), None)
        self._starts[host, service] = self._starts.get((host, service), 1) + 1

    def fell(self, host: str) -> None:
        """With its host. What its boot starts is on its way."""
        for service in SERVICES:
            self._ended.pop((host, service), None)

    def booted(self, host: str) -> None:
        self.starting(host, "libvirtd")
        self._set((host, "libvirtd"), True)
        self._started((host, "libvirtd"))

    # Within.

    def _end(self, key: Key, state: UnitState, detail: str, kept_off: str) -> None:
        truth = self._datacentre.hosts[key[0]]
        if not truth.powered or not truth.alive:
            return
        self._datacentre.changing()
        self._drop(key)
        self._ended[key] = End(state, detail, kept_off, self._agenda.now)

    def _drop(self, key: Key) -> None:
        self._set(key, False)
        if (coming := self._coming.pop(key, None)) is not None:
            coming.cancel()

    def _set(self, key: Key, runs: bool) -> None:
        setattr(self._datacentre.hosts[key[0]], RUNS_IN[key[1]], runs)

    def _begin(self, key: Key, takes_s: float) -> None:
        life = self._datacentre.hosts[key[0]].life
        if key not in self._ended or self._ended[key].state is not UnitState.WAITS:
            self.starting(*key)
        self._coming[key] = self._agenda.after(takes_s, lambda: self._come(key, life))

    def _come(self, key: Key, life: int) -> None:
        self._coming.pop(key, None)
        truth = self._datacentre.hosts[key[0]]
        if truth.life != life or self.runs(key):
            return
        if key[1] == "nova-compute":
            truth.stalled = False
            self._datacentre.start_compute(key[0])
        else:
            self.starting(*key)
            self._set(key, True)
            self._started(key)

    def _started(self, key: Key) -> None:
        self._began_at[key] = self._agenda.now
        number = self._starts.get(key, 1)
        if key in self.doomed:
            self._agenda.after(AGAIN_S, lambda: self._again(key, number))

    def _again(self, key: Key, number: int) -> None:
        if self._starts.get(key, 1) != number or not self.runs(key) or key not in self.doomed:
            return
        if self.doomed[key] == "hangs":
            self.hangs(key[0])
        else:
            self.dies(*key)
