# SPDX-License-Identifier: Apache-2.0
"""What an agent was told, as frozen values. What cannot be right ends its start, in one sentence."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass

from oslo_config import cfg

from vmhad.conf.agent_luns import ReservedLuns, reserved_luns
from vmhad.conf.bmcs import BmcDefaults
from vmhad.conf.load import filled
from vmhad.conf.segments_file import NAME, load_bmcs, load_hosts
from vmhad.conf.settings import BmcAccess, ConfigError
from vmhad.kernel.beat import Plane
from vmhad.kernel.self_fence import SelfFence
from vmhad.kernel.topology import Segment

SEGMENTS_OPTION = "[agent] segments_file"
CREDENTIALS_OPTION = "[agent] bmc_credentials_file"
# How often a host writes its record on each storage.
WRITE_S = 1.0
FEEDS_PER_TIMEOUT = 5
STORAGE_FORM = "NAME dir:PATH MARKER, with an absolute path, or NAME rados:POOL:CONF_FILE:USER MARKER"


@dataclass(frozen=True, slots=True)
class StorageAccess:
    """One shared storage. kind: «dir» or «rados». place: the path, or the pool, its configuration file and its user."""

    name: str
    kind: str
    place: tuple[str, ...]
    marker: str


@dataclass(frozen=True, slots=True)
class Witness:
    plane: Plane
    address: str


@dataclass(frozen=True, slots=True)
class WatchdogAccess:
    """storage: the name of the one whose record is the lease."""

    device: str
    storage: str
    numbers: SelfFence


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """segment: the one that the host is in. bmcs: of its peers, as far as it may ask them. watchdog: None without
    self-fencing."""

    host: str
    segment: Segment
    beat_interval_s: float
    peers_watched: int
    watched_from_other: str
    probe_port: int
    kdump_port: int
    witnesses: tuple[Witness, ...]
    libvirt_uri: str
    storages: tuple[StorageAccess, ...]
    storage_down_after_s: float
    storage_buffered: bool
    registered_storages: tuple[ReservedLuns, ...]
    registrations_file: str
    nova_compute_unit: str
    libvirt_unit: str
    takes_orders: bool
    bmcs: Mapping[str, BmcAccess]
    bmc_timeout_s: float
    links: tuple[str, ...]
    watchdog: WatchdogAccess | None

    @property
    def units(self) -> dict[str, str]:
        """Service, as a beat calls it -> its systemd unit; without those that are not looked at."""
        units = {"nova-compute": self.nova_compute_unit, "libvirtd": self.libvirt_unit}
        return {service: unit for service, unit in units.items() if unit}


@dataclass(frozen=True, slots=True)
class _Texts:
    """The options that are not yet what they mean."""

    host: str
    segments_file: str
    bmc_credentials_file: str
    witnesses: list[str]
    storages: list[str]
    registered_storages: list[str]
    links: list[str]
    storage_down_after_s: float
    watchdog_device: str
    watchdog_storage: str
    watchdog_lease_s: float
    watchdog_timeout_s: float


def agent_settings(conf: cfg.ConfigOpts) -> AgentSettings:
    """Raises ConfigError."""
    texts = filled(_Texts, conf, "agent")
    storages = _storages(texts.storages)
    segments = load_hosts(texts.segments_file, SEGMENTS_OPTION)
    if not any(texts.host in one.names for one in segments):
        raise ConfigError(f"[agent] host: {texts.host!r} is in no segment of {texts.segments_file}.")
    told = filled(
        AgentSettings,
        conf,
        "agent",
        host=texts.host,
        segment=next(one for one in segments if texts.host in one.names),
        witnesses=tuple(_witness(text) for text in texts.witnesses),
        storages=storages,
        registered_storages=reserved_luns(
            texts.registered_storages, texts.segments_file, SEGMENTS_OPTION, texts.host, segments
        ),
        bmcs=_bmcs(texts, filled(BmcDefaults, conf, "power")),
        links=tuple(texts.links),
        watchdog=_watchdog(texts, [one.name for one in storages]),
    )
    if told.kdump_port and Plane.MANAGEMENT.value not in told.segment.host(told.host).planes:
        raise ConfigError(f"[agent] kdump_port: {told.host!r} has no management address in {texts.segments_file}.")
    return told


def _bmcs(texts: _Texts, defaults: BmcDefaults) -> Mapping[str, BmcAccess]:
    if not texts.bmc_credentials_file:
        return {}
    credentials = texts.bmc_credentials_file
    return load_bmcs(texts.segments_file, SEGMENTS_OPTION, credentials, CREDENTIALS_OPTION, texts.host, defaults)


def _witness(text: str) -> Witness:
    plane, _, address = text.partition(":")
    try:
        return Witness(Plane(plane), str(ipaddress.ip_address(address)))
    except ValueError:
        known = ", ".join(Plane)
        raise ConfigError(f"[agent] witnesses: {text!r} must be PLANE:ADDRESS; the planes are {known}.") from None


def _storages(texts: list[str]) -> tuple[StorageAccess, ...]:
    storages: dict[str, StorageAccess] = {}
    for text in texts:
        words = text.split()
        kind, *place = words[1].split(":") if len(words) == 3 else [""]
        fits = {"dir": len(place) == 1 and os.path.isabs(place[0]), "rados": len(place) == 3 and all(place)}
        if not fits.get(kind) or not NAME.fullmatch(words[0]):
            raise ConfigError(f"[agent] storages: {text!r} must be {STORAGE_FORM}.")
        name, where, marker = words
        if name in storages:
            raise ConfigError(f"[agent] storages: the name {name!r} stands twice.")
        if (kind, tuple(place)) in {(one.kind, one.place) for one in storages.values()}:
            raise ConfigError(f"[agent] storages: the place {where!r} stands twice.")
        storages[name] = StorageAccess(name, kind, tuple(place), marker)
    return tuple(storages.values())


def _watchdog(texts: _Texts, storages: list[str]) -> WatchdogAccess | None:
    if not texts.watchdog_device:
        return None
    if texts.watchdog_storage and texts.watchdog_storage not in storages:
        raise ConfigError(f"[agent] watchdog_storage: {texts.watchdog_storage!r} is not among the storages.")
    if not texts.watchdog_storage and len(storages) != 1:
        raise ConfigError("[agent] watchdog_storage must name one of the storages: there is not exactly one.")
    numbers = SelfFence(
        WRITE_S,
        texts.storage_down_after_s,
        texts.watchdog_lease_s,
        texts.watchdog_timeout_s / FEEDS_PER_TIMEOUT,
        texts.watchdog_timeout_s,
    )
    if why := numbers.unsafe():
        raise ConfigError(f"[agent] watchdog_lease_s, watchdog_timeout_s: {why}.")
    return WatchdogAccess(texts.watchdog_device, texts.watchdog_storage or storages[0], numbers)
