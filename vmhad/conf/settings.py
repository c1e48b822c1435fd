# SPDX-License-Identifier: Apache-2.0
"""What an engine was told, as frozen values. Below wiring nothing else of the configuration is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Segment


class ConfigError(Exception):
    """The configuration cannot be used; one sentence that names the option, or the file and the field."""


@dataclass(frozen=True, slots=True)
class BmcAccess:
    """How one power switch of a host is reached: the fields of the Bmc of its driver, and via: «agents» where those of
    its peers ask it. Then an engine has no password of it. system: a path. second: another device that cuts the host's
    power; outlets: instead of it several that do so together, and not alone. outlet: of any of these, its ON says only
    that there is power to be had."""

    address: str
    port: int
    user: str
    password: str = field(repr=False)
    privilege: str
    guid: str
    via: str = ""
    driver: str = "ipmi"
    system: str = ""
    ca_file: str = ""
    outlet: bool = False
    second: BmcAccess | None = None
    outlets: tuple[BmcAccess, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineSettings:
    name: str
    lease_s: float
    call_timeout_s: float
    workers: int
    journal: str
    sqlite_path: str
    etcd_endpoints: tuple[str, ...]
    etcd_ca_file: str
    etcd_cert_file: str
    etcd_key_file: str
    standalone: bool
    membership_url: str
    membership_group: str
    timeline_file: str
    keep_incidents_days: float = 30.0
    keep_incidents_max: int = 1000
    certificate_dir: str = ""


@dataclass(frozen=True, slots=True)
class NovaSettings:
    auth_url: str
    username: str
    password: str = field(repr=False)
    project_name: str
    user_domain_name: str
    project_domain_name: str
    region_name: str | None
    interface: str
    cafile: str | None
    timeout_s: float
    poll_interval_s: float


@dataclass(frozen=True, slots=True)
class NotificationSettings:
    """transport_urls is empty where vmhad only polls; the URLs hold passwords."""

    transport_urls: tuple[str, ...] = field(repr=False)
    topic: str
    exchange: str
    durable_queues: bool
    quorum_queues: bool


@dataclass(frozen=True, slots=True)
class AgentKey:
    """One host's own key. The fields of bus.signature.HostKey."""

    host: str
    id: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AgentsSettings:
    """How an engine hears the agents. master_keys: by key id; empty where it does not listen."""

    enabled: bool
    transport_urls: tuple[str, ...] = field(repr=False)
    ca_file: str
    keys_file: str
    master_keys: Mapping[str, bytes] = field(repr=False)
    replay_window_s: float


@dataclass(frozen=True, slots=True)
class AgentBusSettings:
    """How an agent reaches the engines; its host is the one of its key."""

    transport_urls: tuple[str, ...] = field(repr=False)
    ca_file: str
    key: AgentKey


@dataclass(frozen=True, slots=True)
class PowerSettings:
    """bmcs: by host name."""

    driver: str
    timeout_s: float
    poll_interval_s: float
    poll_timeout_s: float
    poll_workers: int
    reads_per_s_max: float
    asf_ping: bool
    bmcs: Mapping[str, BmcAccess]

    @property
    def via_agents(self) -> frozenset[str]:
        """The hosts whose BMC is asked by the agents of their peers."""
        return frozenset(host for host, bmc in self.bmcs.items() if bmc.via == "agents")

    @property
    def second(self) -> Mapping[str, BmcAccess]:
        """The second power path of each host that has one."""
        return {host: bmc.second for host, bmc in self.bmcs.items() if bmc.second is not None}

    @property
    def outlets(self) -> Mapping[str, tuple[BmcAccess, ...]]:
        """The outlets that are the second power path of a host together, of each host that has them."""
        return {host: bmc.outlets for host, bmc in self.bmcs.items() if bmc.outlets}


@dataclass(frozen=True, slots=True)
class StorageAccess:
    """A shared storage of the segments file. holds: as kernel.topology.Backend has it. settings: the driver's own.
    clients: host -> what the storage knows it by. are_named: the file lists them; else they are the hosts with an
    address on the storage plane, and nobody says that no other host reaches it."""

    name: str
    driver: str
    holds: frozenset[str]
    settings: Mapping[str, object]
    clients: Mapping[str, tuple[str, ...]]
    are_named: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """policies: by segment name, one for every segment."""

    engine: EngineSettings
    nova: NovaSettings
    notifications: NotificationSettings
    agents: AgentsSettings
    power: PowerSettings
    segments: tuple[Segment, ...]
    policies: Mapping[str, Policy]
    storages: tuple[StorageAccess, ...] = ()
    storage_timeout_s: float = 5.0
