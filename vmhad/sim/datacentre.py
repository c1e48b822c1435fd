# SPDX-License-Identifier: Apache-2.0
"""The truth of a simulated datacentre: hosts, their power, what runs on them. It knows nothing of vmhad.

A guest of a VM is a process on a host; two guests of one VM on powered hosts are two writers on one disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from vmhad.sim.clock import Agenda
from vmhad.sim.services import Services
from vmhad.sim.vms import SimVm

BOOT_S = 40.0
COMPUTE_START_S = 3.0
STARTS_AGAIN_S = 1.0
POWER_OFF_TAKES_S = 0.8


class Bmc(StrEnum):
    """How a host's BMC behaves. STUCK: it accepts and does nothing. OTHER: its address leads to another host's BMC.

    LOSES_ANSWERS: it does what it is told, and nobody hears that it did. REFUSES: it shows the power and does nothing.
    HANGS: it does what it is told half a minute later, when nobody waits for it any more.
    """

    OK = "ok"
    DEAD = "dead"
    LIES = "lies"
    STUCK = "stuck"
    WRONG_PASSWORD = "wrong-password"  # noqa: S105 - a word of the stories
    OTHER = "other"
    GARBAGE = "garbage"
    REFUSES = "refuses"
    LOSES_ANSWERS = "loses-answers"
    SLOW = "slow"
    HANGS = "hangs"


# What an answer of its BMC comes from. Whoever changes bmc_silenced_by sets bmc_at, too.
SHOWN_BY_BMC = frozenset({"powered", "feed", "bmc", "bmc_of", "bmc_at", "blips_until"})
# What its agent says, or its peers see of it, comes from these.
SEEN_BY_AGENTS = frozenset({"powered", "alive", "hung", "compute", "libvirtd", "network", "storage", "tenant"})


class _Watched:
    """watchers: called when what the BMC shows is about to be another; told: when what agents see is. No part of the
    truth, so no field of it."""

    __slots__ = ("told", "watchers")
    watchers: list[Callable[[], None]]
    told: list[Callable[[], None]]


@dataclass
class SimHost(_Watched):
    """powered: mains reach it and it is switched on. alive: its system runs. hung: stopped in its tracks, may go on.

    compute, libvirtd: it runs. stalled: its nova-compute runs and gets through to nobody.
    network, storage, tenant: its own link of that plane is there (network: management).
    feed: mains are there at all. off_at, powered_at, bmc_at: when its power, and its BMC's ways, changed last.
    off_before_at: when it had gone the time before.
    silenced_by: switches and WANs that keep its management plane from us; bmc_silenced_by: its BMC, too.
    """

    name: str
    domains: Mapping[str, str] = field(default_factory=dict)
    vcpus: int = 64
    ram_mib: int = 262_144
    zone: str = "nova"
    traits: frozenset[str] = frozenset()
    powered: bool = True
    alive: bool = True
    booted_at: float = 0.0
    hung: bool = False
    compute: bool = True
    libvirtd: bool = True
    stalled: bool = False
    network: bool = True
    storage: bool = True
    tenant: bool = True
    silenced_by: set[str] = field(default_factory=set)
    bmc_silenced_by: set[str] = field(default_factory=set)
    feed: bool = True
    bmc: Bmc = Bmc.OK
    bmc_of: str = ""
    boot_s: float = BOOT_S
    off_s: float = POWER_OFF_TAKES_S
    life: int = 0
    powered_at: float = 0.0
    misled_at: float = 0.0
    off_at: float = 0.0
    off_before_at: float = 0.0
    bmc_at: float = 0.0
    blips_until: float = 0.0

    def __post_init__(self) -> None:
        self.watchers, self.told = [], []

    def __setattr__(self, name: str, value: object) -> None:
        if name in SHOWN_BY_BMC:
            for call in getattr(self, "watchers", ()):
                call()
        if name in SEEN_BY_AGENTS:
            for call in getattr(self, "told", ()):
                call()
        object.__setattr__(self, name, value)

    @property
    def misleads(self) -> bool:
        """What its BMC says of its power need not be so."""
        return self.bmc in (Bmc.LIES, Bmc.OTHER)

    @property
    def serves(self) -> bool:
        """Its nova-compute does its work and is heard."""
        works = self.compute and not self.stalled
        return self.powered and self.alive and works and self.is_reached and not self.hung

    @property
    def is_reached(self) -> bool:
        """Its management plane and ours are one."""
        return self.network and not self.silenced_by


class Datacentre:
    """Hosts and guests, and the faults that befall them. compute_started is called with a host's name. mounted: a
    storage that not every host reaches -> those that do."""

    def __init__(self, agenda: Agenda) -> None:
        self.agenda = agenda
        self.hosts: dict[str, SimHost] = {}
        self.vms: dict[str, SimVm] = {}
        self.compute_started: list[Callable[[str], None]] = []
        self.bmc_ever_lied = False
        self.touched: list[SimVm] = []
        self.cut_clients: dict[str, set[str]] = {}
        self.fenced: dict[str, set[str]] = {}
        self.reset: set[str] = set()
        self.cut_at: dict[tuple[str, str], float] = {}
        self.hung_storages: set[str] = set()
        self.mounted: dict[str, frozenset[str]] = {}
        self.wans: set[str] = set()
        self.before_change: list[Callable[[], None]] = []
        self.services = Services(self)

    def add_host(self, host: SimHost) -> None:
        self.hosts[host.name] = host

    def add_vm(self, vm: SimVm) -> None:
        """touched collects the VMs that may have a new writer since the checkers looked last."""
        self.vms[vm.id] = vm

        def started() -> None:
            vm.service.started_at = self.agenda.now
            self.touched.append(vm)

        vm.guests.on_start = started

    def writers(self, vm: SimVm) -> set[str]:
        """Where a guest of the VM may write to its disk; a hung host's guests may, one without storage cannot. Of
        several disks the one that most may write to."""
        return max((self._writers_on(backend, vm) for backend in vm.disk.backends), key=len)

    def _writers_on(self, backend: str, vm: SimVm) -> set[str]:
        return {name for name in vm.guests if self.hosts[name].powered and self.takes(backend, name)}

    def fenced_from_all(self, vm: SimVm) -> set[str]:
        """The hosts that were cut off from every disk of the VM by order."""
        return set.intersection(*(self.fenced.get(backend, set()) for backend in vm.disk.backends))

    # Faults.

    def cut(self, name: str) -> None:
        """The host loses power; its BMC has a feed of its own and answers."""
        self._power_lost(name)

    def unplug(self, name: str) -> None:
        """The host and its BMC lose their feed."""
        self.hosts[name].feed, self.hosts[name].bmc_at = False, self.agenda.now
        self._power_lost(name)

    def crash(self, name: str) -> None:
        """A kernel panic without reboot: power stays on, every guest is gone."""
        host = self.hosts[name]
        if not host.powered:
            return
        host.life += 1
        host.alive = host.compute = host.libvirtd = host.hung = host.stalled = False
        self.services.fell(name)
        self._drop_guests(name)

    def hang(self, name: str, seconds: float | None = None) -> None:
        """The host stops in its tracks with its guests; after seconds, if given, all goes on as if nothing had been."""
        host = self.hosts[name]
        host.hung = host.powered and host.alive
        life = host.life
        if seconds is not None:
            self.agenda.after(seconds, lambda: self._unhang(name, life))

    def stop_compute(self, name: str) -> None:
        """It dies; nobody asked it to."""
        self.services.dies(name, "nova-compute")

    def isolate(self, name: str) -> None:
        """The management network is lost: guests and power go on, nothing is heard."""
        self.hosts[name].network = False

    def set_storage(self, name: str, reached: bool) -> None:
        """A guest that was cut off from its disk writes on when it is back: its host never told it to stop."""
        self.hosts[name].storage = reached
        self._perhaps_writes(name)

    def cut_client(self, backend: str, name: str, cut: bool) -> None:
        """The backend refuses whatever the host writes, or takes it again."""
        self.changing()
        clients = self.cut_clients.setdefault(backend, set())
        (clients.add if cut else clients.discard)(name)
        self.cut_at[backend, name] = self.agenda.now
        self._perhaps_writes(name)

    def fence_client(self, backend: str, name: str, cut: bool) -> None:
        """As cut_client, by order; nobody but who ordered it takes it back."""
        self.changing()
        clients = self.fenced.setdefault(backend, set())
        (clients.add if cut else clients.discard)(name)
        self.cut_at[backend, name] = self.agenda.now
        self._perhaps_writes(name)

    def silence(self, cause: str, names: Sequence[str], with_bmc: bool) -> None:
        """A switch or a WAN is lost: what is behind it lives on, unheard."""
        self.changing()
        for name in names:
            self.hosts[name].silenced_by.add(cause)
            if with_bmc:
                self.hosts[name].bmc_silenced_by.add(cause)
                self.hosts[name].bmc_at = self.agenda.now

    def unsilence(self, cause: str) -> None:
        self.changing()
        for host in self.hosts.values():
            host.silenced_by.discard(cause)
            if cause in host.bmc_silenced_by:
                host.bmc_silenced_by.discard(cause)
                host.bmc_at = self.agenda.now

    def heal_planes(self) -> None:
        """Switches, WANs and backends are as they were."""
        self.changing()
        self.hung_storages.clear()
        for host in self.hosts.values():
            host.silenced_by.clear()
            if host.bmc_silenced_by:
                host.bmc_silenced_by.clear()
                host.bmc_at = self.agenda.now
        for backend, clients in self.cut_clients.items():
            for name in sorted(clients):
                self.cut_client(backend, name, False)

    def hang_storage(self, backend: str, hangs: bool) -> None:
        """Whatever is asked of it waits."""
        self.changing()
        (self.hung_storages.add if hangs else self.hung_storages.discard)(backend)

    def reaches(self, name: str, backend: str) -> bool:
        """Whether what the host reads there comes."""
        is_fenced = name in self.fenced.get(backend, ())
        return self.hosts[name].storage and backend not in self.hung_storages and not is_fenced

    def takes(self, backend: str, name: str) -> bool:
        """Whether the backend takes what the host writes."""
        is_cut = name in self.cut_clients.get(backend, ()) or name in self.fenced.get(backend, ())
        return self.hosts[name].storage and not is_cut

    def changing(self) -> None:
        """Whoever works out lazily what was seen so far has to do it now."""
        for call in self.before_change:
            call()

    def in_domain(self, name: str) -> list[str]:
        """The hosts of a rack, a feed, a switch or a site, whatever kind it is."""
        return [host.name for host in self.hosts.values() if name in host.domains.values()]

    def reboot(self, name: str) -> None:
        """The system starts anew, power never goes; no guest survives."""
        self.crash(name)
        if self.hosts[name].powered:
            self._boot(name)

    def restore(self, name: str) -> None:
        """Whatever was wrong with the host is repaired, and it is switched on if it was not."""
        host = self.hosts[name]
        host.feed = host.network = host.tenant = True
        self.services.mend(name)
        self.set_storage(name, True)
        self.set_bmc(name, Bmc.OK)
        if not host.powered or not host.alive:
            self.power_on(name)
        elif host.hung:
            self._unhang(name, host.life)
        elif not host.compute:
            self._start_compute(name, host.life)
        if host.powered and host.alive:
            self.services.starts(name, "libvirtd")

    def set_bmc(self, name: str, bmc: Bmc, other: str = "") -> None:
        """other: whose BMC it is that answers under this host's address."""
        host = self.hosts[name]
        if host.misleads:
            host.misled_at = self.agenda.now
        host.bmc, host.bmc_of, host.bmc_at = bmc, other, self.agenda.now
        self.bmc_ever_lied |= host.misleads

    # What a BMC does.

    def power_off(self, name: str) -> None:
        """The chassis goes off shortly."""
        self.agenda.after(self.hosts[name].off_s, lambda: self._power_lost(name))

    def power_on(self, name: str) -> None:
        host = self.hosts[name]
        if host.feed and not (host.powered and host.alive):
            host.powered_at = host.powered_at if host.powered else self.agenda.now
            host.powered = True
            self._boot(name)

    # Within.

    def _power_lost(self, name: str) -> None:
        host = self.hosts[name]
        host.life += 1
        if host.powered:
            host.off_before_at, host.off_at = host.off_at, self.agenda.now
        host.powered = host.alive = host.compute = host.libvirtd = host.hung = host.stalled = False
        self.services.fell(name)
        self._drop_guests(name)

    def _perhaps_writes(self, name: str) -> None:
        self.touched.extend(vm for vm in self.vms.values() if name in vm.guests)

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
            host.alive, host.booted_at = True, self.agenda.now
            self.services.booted(name)
            self.agenda.after(COMPUTE_START_S, lambda: self._start_compute(name, life))

    def start_compute(self, name: str) -> None:
        self._start_compute(name, self.hosts[name].life)

    def _start_compute(self, name: str, life: int) -> None:
        """A starting nova-compute does nothing before it has spoken to Nova's conductor: cut off, it waits for that."""
        host = self.hosts[name]
        if host.life != life or host.compute:
            return
        self.services.starting(name, "nova-compute")
        if host.hung or not host.is_reached:
            self.agenda.after(STARTS_AGAIN_S, lambda: self._start_compute(name, life), periodic=True)
            return
        host.compute = True
        for call in self.compute_started:
            call(name)
