# SPDX-License-Identifier: Apache-2.0
"""The truth of a simulated datacentre: hosts, their power, what runs on them. It knows nothing of vmhad.

A guest of a VM is a process on a host; two guests of one VM on powered hosts are two writers on one disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vmhad.sim.clock import Agenda

BOOT_S = 40.0
COMPUTE_START_S = 3.0
POWER_OFF_TAKES_S = 0.8


class Bmc(StrEnum):
    """How a host's BMC behaves. OTHER: its address leads to the BMC of another host."""

    OK = "ok"
    DEAD = "dead"
    LIES = "lies"
    STUCK = "stuck"
    WRONG_PASSWORD = "wrong-password"  # noqa: S105 - a word of the stories
    OTHER = "other"


@dataclass
class SimHost:
    """powered: mains reach it and it is switched on. alive: its system runs. hung: stopped in its tracks, may go on.

    compute: nova-compute runs. network: it reaches the control plane. feed: mains are there at all.
    """

    name: str
    domains: Mapping[str, str] = field(default_factory=dict)
    vcpus: int = 64
    ram_mib: int = 262_144
    zone: str = "nova"
    traits: frozenset[str] = frozenset()
    powered: bool = True
    alive: bool = True
    hung: bool = False
    compute: bool = True
    network: bool = True
    feed: bool = True
    bmc: Bmc = Bmc.OK
    bmc_of: str = ""
    boot_s: float = BOOT_S
    life: int = 0

    @property
    def serves(self) -> bool:
        """Its nova-compute does its work and is heard."""
        return self.powered and self.alive and self.compute and self.network and not self.hung


@dataclass
class SimVm:
    """A VM's guests: the hosts on which a process of it really runs, whatever Nova believes."""

    id: str
    name: str
    guests: set[str] = field(default_factory=set)


class Datacentre:
    """Hosts and guests, and the faults that befall them. compute_started is called with a host's name."""

    def __init__(self, agenda: Agenda) -> None:
        self.agenda = agenda
        self.hosts: dict[str, SimHost] = {}
        self.vms: dict[str, SimVm] = {}
        self.compute_started: list[Callable[[str], None]] = []
        self.bmc_ever_lied = False

    def add_host(self, host: SimHost) -> None:
        self.hosts[host.name] = host

    def writers(self, vm: SimVm) -> set[str]:
        """Where a guest of the VM may write to its disk; a hung host's guests may."""
        return {name for name in vm.guests if self.hosts[name].powered}

    # Faults.

    def cut(self, name: str) -> None:
        """The host loses power; its BMC has a feed of its own and answers."""
        self._power_lost(name)

    def unplug(self, name: str) -> None:
        """The host and its BMC lose their feed."""
        self.hosts[name].feed = False
        self._power_lost(name)

    def crash(self, name: str) -> None:
        """A kernel panic without reboot: power stays on, every guest is gone."""
        host = self.hosts[name]
        host.life += 1
        host.alive = host.compute = host.hung = False
        self._drop_guests(name)

    def hang(self, name: str, seconds: float | None = None) -> None:
        """The host stops in its tracks with its guests; after seconds, if given, all goes on as if nothing had been."""
        host = self.hosts[name]
        host.hung = True
        life = host.life
        if seconds is not None:
            self.agenda.after(seconds, lambda: self._unhang(name, life))

    def stop_compute(self, name: str) -> None:
        self.hosts[name].compute = False

    def isolate(self, name: str) -> None:
        """The management network is lost: guests and power go on, nothing is heard."""
        self.hosts[name].network = False

    def reboot(self, name: str) -> None:
        """The system starts anew, power never goes; no guest survives."""
        self.crash(name)
        self._boot(name)

    def restore(self, name: str) -> None:
        """Whatever was wrong with the host is repaired, and it is switched on if it was not."""
        host = self.hosts[name]
        host.feed = host.network = True
        host.bmc = Bmc.OK
        if not host.powered or not host.alive:
            self.power_on(name)
        elif host.hung:
            self._unhang(name, host.life)
        elif not host.compute:
            self._start_compute(name, host.life)

    # What a BMC does.

    def power_off(self, name: str) -> None:
        """The chassis goes off shortly."""
        self.agenda.after(POWER_OFF_TAKES_S, lambda: self._power_lost(name))

    def power_on(self, name: str) -> None:
        host = self.hosts[name]
        if host.feed and not (host.powered and host.alive):
            host.powered = True
            self._boot(name)

    # Within.

    def _power_lost(self, name: str) -> None:
        host = self.hosts[name]
        host.life += 1
        host.powered = host.alive = host.compute = host.hung = False
        self._drop_guests(name)

    def _drop_guests(self, name: str) -> None:
        for vm in self.vms.values():
            vm.guests.discard(name)

    def _unhang(self, name: str, life: int) -> None:
        host = self.hosts[name]
        if host.life == life:
            host.hung = False

    def _boot(self, name: str) -> None:
        host = self.hosts[name]
        host.life += 1
        life = host.life
        self.agenda.after(host.boot_s, lambda: self._booted(name, life))

    def _booted(self, name: str, life: int) -> None:
        host = self.hosts[name]
        if host.life == life:
            host.alive = True
            self.agenda.after(COMPUTE_START_S, lambda: self._start_compute(name, life))

    def _start_compute(self, name: str, life: int) -> None:
        host = self.hosts[name]
        if host.life != life or host.compute:
            return
        host.compute = True
        for call in self.compute_started:
            call(name)
