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
class SimVm:
    """A VM's guests, whatever Nova believes of them. said: what its hypervisor says of it, since when."""

    id: str
    name: str
    guests: Guests = field(default_factory=Guests)
    disk: Disk = field(default_factory=Disk)
    said: tuple[DomainState, str, float] = (DomainState.RUNNING, "", 0.0)

    def started_anew(self, host: str) -> None:
        """Whatever was left of it there is ended first."""
        self.guests.add(host)
        self.said = (DomainState.RUNNING, "", 0.0)
