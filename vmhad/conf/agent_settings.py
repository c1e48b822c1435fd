# SPDX-License-Identifier: Apache-2.0
"""What an agent was told, as frozen values. What cannot be right ends its start, in one sentence."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

from oslo_config import cfg

from vmhad.conf.load import filled
from vmhad.conf.segments_file import NAME, load_hosts
from vmhad.conf.settings import ConfigError
from vmhad.kernel.beat import Plane
from vmhad.kernel.topology import Segment

SEGMENTS_OPTION = "[agent] segments_file"
STORAGE_KINDS = ("dir",)


@dataclass(frozen=True, slots=True)
class StorageAccess:
    """One shared storage. kind: «dir». place: where it is, in that kind's words."""

    name: str
    kind: str
    place: str
    marker: str


@dataclass(frozen=True, slots=True)
class Witness:
    plane: Plane
    address: str


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """segment: the one that the host is in."""

    host: str
    segment: Segment
    beat_interval_s: float
    peers_watched: int
    watched_from_other: str
    probe_port: int
    witnesses: tuple[Witness, ...]
    libvirt_uri: str
    storages: tuple[StorageAccess, ...]
    storage_down_after_s: float
    storage_buffered: bool


@dataclass(frozen=True, slots=True)
class _Texts:
    """The options that are not yet what they mean."""

    host: str
    segments_file: str
    witnesses: list[str]
    storages: list[str]


def agent_settings(conf: cfg.ConfigOpts) -> AgentSettings:
    """Raises ConfigError."""
    texts = filled(_Texts, conf, "agent")
    return filled(
        AgentSettings,
        conf,
        "agent",
        host=texts.host,
        segment=_segment(texts),
        witnesses=tuple(_witness(text) for text in texts.witnesses),
        storages=_storages(texts.storages),
    )


def _segment(texts: _Texts) -> Segment:
    for segment in load_hosts(texts.segments_file, SEGMENTS_OPTION):
        if texts.host in segment.names:
            return segment
    raise ConfigError(f"[agent] host: {texts.host!r} is in no segment of {texts.segments_file}.")


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
        if len(words) != 3:
            raise ConfigError(f"[agent] storages: {text!r} must be NAME dir:PATH MARKER.")
        name, where, marker = words
        kind, _, place = where.partition(":")
        if not NAME.fullmatch(name) or kind not in STORAGE_KINDS or not os.path.isabs(place):
            raise ConfigError(f"[agent] storages: {text!r} must be NAME dir:PATH MARKER, and the path absolute.")
        if name in storages:
            raise ConfigError(f"[agent] storages: the name {name!r} stands twice.")
        if (kind, place) in {(one.kind, one.place) for one in storages.values()}:
            raise ConfigError(f"[agent] storages: the place {where!r} stands twice.")
        storages[name] = StorageAccess(name, kind, place, marker)
    return tuple(storages.values())
