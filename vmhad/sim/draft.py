# SPDX-License-Identifier: Apache-2.0
"""A datacentre on paper: what a story declares before the first event, and the world that is built from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum

from vmhad.kernel.beat import Plane
from vmhad.kernel.cloud import ServerState
from vmhad.kernel.policy import AfterFence, CutOff, CutStorage, Drain, OnFailure, OnIoError, Policy, SilentMeans
from vmhad.kernel.topology import OF_CINDER, OF_NOVA, Backend, Host, Segment
from vmhad.sim.datacentre import SimHost
from vmhad.sim.nova import GroupRow, ServerRow
from vmhad.sim.watchdogs import Watchdogs
from vmhad.sim.world import Pace, World

HOST_OPTIONS = ("room", "zone", "has", "boot", "off", "cut_storage")
VM_OPTIONS = ("state", "group", "vcpus", "refused", "needs", "backend", "also")
CHOICES: dict[str, type[StrEnum]] = {
    "silent_means": SilentMeans,
    "after_fence": AfterFence,
    "cut_storage": CutStorage,
    "isolated": CutOff,
    "storage_lost": CutOff,
    **dict.fromkeys(("on_crash", "on_panic", "on_silent_agent", "on_service_failure"), OnFailure),
    "on_io_error": OnIoError,
    "drain": Drain,
}


class StoryError(Exception):
    """The story's text is wrong: says what and where."""


@dataclass
class Draft:
    """Hosts belong to the segment declared last before them; groups name their members' group in the vm line. agents:
    the shared storage they have a record on, how many of them watch each host, and on which planes; None where there
    are none. backends: the storages that can cut a host off.
    self_fence_s: what the agents' records promise, 0 for nothing."""

    policies: dict[str, Policy] = field(default_factory=dict)
    hosts: dict[str, list[Host]] = field(default_factory=dict)
    truths: list[SimHost] = field(default_factory=list)
    vms: list[ServerRow] = field(default_factory=list)
    groups: dict[str, GroupRow] = field(default_factory=dict)
    engines: list[tuple[str, float]] = field(default_factory=list)
    pace: Pace = Pace()
    seed: int = 0
    agents: tuple[str, int, tuple[Plane, ...]] | None = None
    backends: list[Backend] = field(default_factory=list)
    self_fence_s: float = 0.0

    def add_backend(self, name: str, options: Mapping[str, str]) -> None:
        """Without holds: every volume there. Without clients: every host that is declared by the time it is built.
        Without reach every host reaches it, and nobody says so."""
        holds = options.get("holds", f"{OF_CINDER}{name}").split(",")
        clients, reach = (frozenset(options.get(key, "").split(",")) - {""} for key in ("clients", "reach"))
        self.backends.append(Backend(name, frozenset(holds), clients, reach))

    def add_segment(self, name: str, options: Mapping[str, str]) -> None:
        self.policies[name] = with_options(Policy(), options)
        self.hosts[name] = []

    def add_host(self, name: str, options: Mapping[str, str]) -> None:
        if not self.hosts:
            raise StoryError(f"host {name} comes before any segment")
        places = {kind: place for kind, place in options.items() if kind not in HOST_OPTIONS}
        own = CutStorage(options["cut_storage"]) if "cut_storage" in options else None
        self.hosts[next(reversed(self.hosts))].append(Host(name, places, cut_storage=own))
        room = options.get("room", "64vcpu").removesuffix("vcpu")
        traits = frozenset(options.get("has", "").split(",")) - {""}
        zone, boot_s = options.get("zone", "nova"), seconds(options.get("boot", "40s"))
        truth = SimHost(name, places, vcpus=int(room), zone=zone, traits=traits, boot_s=boot_s)
        truth.off_s = seconds(options.get("off", "0.8"))
        self.truths.append(truth)

    def add_vm(self, name: str, host: str, words: set[str], options: Mapping[str, str]) -> None:
        if host not in {truth.name for truth in self.truths}:
            raise StoryError(f"vm {name} is on {host}, which is no host")
        metadata = {key: value for key, value in options.items() if key not in VM_OPTIONS}
        vm = ServerRow(
            id=name,
            name=name,
            host=host,
            state=ServerState(options.get("state", "active")),
            locked="locked" in words,
            local_disk="local-disk" in words,
            zone_pinned="zone-pinned" in words,
            vcpus=int(options.get("vcpus", "1")),
            refused=options.get("refused", ""),
            needs=options.get("needs", ""),
            backend=options.get("backend", self._kept_on("local-disk" in words)),
            also=tuple(options["also"].split(",")) if "also" in options else (),
            unlisted="unlisted" in words,
            unplaced="unplaced" in words,
            metadata=metadata,
        )
        self.vms.append(vm)
        if "group" in options:
            self.groups[options["group"]].members.append(vm.id)

    def _kept_on(self, local: bool) -> str:
        """Where its disk lies that says nothing of it. What the computes keep may be on a storage that they share."""
        if not local or not self.backends:
            return "ceph"
        return next((one.name for one in self.backends if OF_NOVA in one.holds), "local")

    def build(self) -> World:
        hosts_of = {name: tuple(self._planned(host) for host in hosts) for name, hosts in self.hosts.items()}
        segments = tuple(Segment(name, hosts, self._backends(hosts)) for name, hosts in hosts_of.items())
        world = World(segments, self.policies, self.pace, self.seed)
        for truth in self.truths:
            world.nova.add_host(truth)
        for vm in self.vms:
            world.nova.add_server(vm)
        world.nova.groups.update(self.groups)
        world.datacentre.mounted = {one.name: one.reached_by for one in self.backends if one.reached_by}
        if self.agents is not None:
            world.add_agents(*self.agents)
            if self.self_fence_s and world.agents is not None:
                world.watchdogs = Watchdogs(world.agents, self.self_fence_s)
        for name, offset_s in self.engines or [("e1", 0.0)]:
            world.add_engine(name, offset_s)
        return world

    def _backends(self, hosts: tuple[Host, ...]) -> tuple[Backend, ...]:
        names = frozenset(host.name for host in hosts)
        return tuple(
            replace(one, clients=one.clients & names if one.clients else names, reached_by=one.reached_by & names)
            for one in self.backends
        )

    def _planned(self, host: Host) -> Host:
        """Where agents watch, the topology says at which addresses."""
        if self.agents is None:
            return host
        return replace(host, planes={plane.value: host.name for plane in self.agents[2]})


def with_options(policy: Policy, options: Mapping[str, str]) -> Policy:
    """The policy with options set, each by the type of the value it replaces. Raises StoryError for an unknown one."""
    known = {one.name for one in fields(policy)}
    changes: dict[str, object] = {}
    for key, text in options.items():
        if key not in known:
            raise StoryError(f"policy has no {key}")
        changes[key] = _read(key, text, getattr(policy, key))
    return replace(policy, **changes)  # type: ignore[arg-type]


def with_pace(pace: Pace, options: Mapping[str, str]) -> Pace:
    unknown = set(options) - {one.name for one in fields(pace)}
    if unknown:
        raise StoryError(f"pace has no {', '.join(sorted(unknown))}")
    return replace(pace, **{key: seconds(text) for key, text in options.items()})


def seconds(text: str) -> float:
    """20s, 2m, 0.5s, or a plain number of seconds."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
    try:
        return float(number) * unit
    except ValueError:
        raise StoryError(f"{text} is no time") from None


def _read(key: str, text: str, old: object) -> object:
    if key in CHOICES:
        return CHOICES[key](text)
    if isinstance(old, bool):
        return {"yes": True, "true": True, "no": False, "false": False}[text]
    if isinstance(old, int):
        return int(text)
    return seconds(text) if isinstance(old, float) else text
