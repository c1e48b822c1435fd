# SPDX-License-Identifier: Apache-2.0
"""The truth of simulated VMs: where their guests run, and where their disks lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vmhad.kernel.beat import DomainState


@dataclass
class Disk:
    """Where a VM's disk lies, and its further ones. Its writers are whoever reaches that and runs a guest of the VM."""

    backend: str = "ceph"
    also: tuple[str, ...] = ()

    @property
    def backends(self) -> tuple[str, ...]:
        return (self.backend, *self.also)


class Guests(set[str]):
    """The hosts on which a process of one VM really runs. on_start is told of each that is new."""

    on_start: Callable[[], None] = staticmethod(lambda: None)

    def add(self, host: str) -> None:
        if host not in self:
            super().add(host)
            self.on_start()


@dataclass
class Service:
    """What a VM is there for. takes_s: how long after each start of a guest it is ready, inf: never. started_at: when
    one was started last. lost_at: since when it is not ready though it could be; None while it is well. silent_until:
    whoever asks gets no answer before that."""

    takes_s: float = 0.0
    started_at: float = 0.0
    lost_at: float | None = None
    silent_until: float = 0.0

    def is_ready(self, now: float) -> bool:
        return self.lost_at is None and now >= self.started_at + self.takes_s

    @property
    def unready_since(self) -> float:
        """Of what is not ready now."""
        return self.started_at if self.lost_at is None else max(self.started_at, self.lost_at)


@dataclass
class SimVm:
    """A VM's guests, whatever Nova believes of them. said: what its hypervisor says of it, since when."""

    id: str
    name: str
    guests: Guests = field(default_factory=Guests)
    disk: Disk = field(default_factory=Disk)
    said: tuple[DomainState, str, float] = (DomainState.RUNNING, "", 0.0)
    service: Service = field(default_factory=Service)

    def started_anew(self, host: str) -> None:
        """Whatever was left of it there is ended first."""
        self.guests.add(host)
        self.said = (DomainState.RUNNING, "", 0.0)
