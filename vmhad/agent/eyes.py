# SPDX-License-Identifier: Apache-2.0
"""Opens the eyes that the configuration asks for, and makes an agent of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

from vmhad.agent.bootclock import boot_id
from vmhad.agent.directory import Directory
from vmhad.agent.dumps import Dumps
from vmhad.agent.guests import Guests
from vmhad.agent.hardware import Hardware
from vmhad.agent.loop import Agent, Identity
from vmhad.agent.lun_memory import KeptFile, LunMemory
from vmhad.agent.own_sessions import OwnSessions
from vmhad.agent.peers import PeerLooks, Target
from vmhad.agent.rados_pool import RadosPool
from vmhad.agent.registrations import Registrations, Reserved
from vmhad.agent.services import Services, Systemd
from vmhad.agent.storage import SharedStorage, Store
from vmhad.agent.told import Eye
from vmhad.agent.watchdog import LinuxWatchdog, Watchdog
from vmhad.conf.agent_settings import WRITE_S, AgentSettings, StorageAccess
from vmhad.conf.settings import ConfigError
from vmhad.kernel.beat import Beat, Plane
from vmhad.kernel.ring import rings, watched_by
from vmhad.scsi.marks import marks_of

MANAGEMENT = Plane.MANAGEMENT.value


def agent_of(told: AgentSettings, say: Callable[[Beat], None], acts: bool = True) -> Agent:
    """acts: False for one that only looks, beside the agent that beats for this host. Raises guests.LibvirtMissing,
    ConfigError."""
    who = Identity(told.host, boot_id(), uuid.uuid4().hex)
    ring = next(ring for ring in rings(told.segment) if told.host in ring.names)
    peers = watched_by(told.host, ring.hosts, told.peers_watched, told.watched_from_other)
    eyes: list[Eye] = []
    eyes.append(Services(told.units, Systemd()))
    eyes.append(PeerLooks(targets(told, peers), told.probe_port))
    if told.kdump_port and acts:
        # Two of them on one port would take each other's messages.
        eyes.append(Dumps(told.segment.host(told.host).planes[MANAGEMENT], told.kdump_port, managed(told, peers)))
    storages = {
        one.name: SharedStorage(
            one.name,
            one.marker,
            store_of(one, told.storage_buffered),
            who,
            peers,
            interval_s=WRITE_S,
            down_after_s=told.storage_down_after_s,
            writes=acts,
        )
        for one in told.storages
    }
    eyes += [*storages.values(), Hardware(told.links)]
    if told.registered_storages and acts:
        eyes.append(registrations_of(told, who.boot))
    farewell: Callable[[Beat], None] = no_farewell
    if told.watchdog is not None and acts:
        numbers, lease = told.watchdog.numbers, storages[told.watchdog.storage]
        watchdog = Watchdog(LinuxWatchdog(told.watchdog.device), numbers, lease)
        eyes.append(watchdog)
        farewell = watchdog.leave
    agent = Agent(who, eyes, say, told.beat_interval_s, farewell)
    if told.libvirt_uri:
        luns = {lun for one in told.registered_storages for lun in one.luns}
        eyes.append(Guests(told.libvirt_uri, agent.news, own_sessions=OwnSessions(luns)))
    return agent


def store_of(one: StorageAccess, buffered: bool) -> Store:
    if one.kind == "dir":
        (path,) = one.place
        return Directory(path, buffered)
    pool, conf_file, user = one.place
    return RadosPool(pool, conf_file, user)


def registrations_of(told: AgentSettings, boot: str) -> Registrations:
    """Raises ConfigError: who does not know what was registered in this boot registers nothing."""
    reserved = [
        Reserved(one.storage, one.key, marks_of(told.host, one.prefix), one.luns, one.wwids)
        for one in told.registered_storages
    ]
    file = told.registrations_file
    try:
        return Registrations(reserved, LunMemory(KeptFile(Path(file)), boot))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no agent wrote it"
        raise ConfigError(f"[agent] registrations_file: {file} cannot be read: {why}.") from None


def no_farewell(last: Beat) -> None:
    """Nothing is bound to this agent's life."""


def managed(told: AgentSettings, peers: tuple[str, ...]) -> dict[str, str]:
    """Address -> peer, of those that have one on the management plane."""
    found = {peer: told.segment.host(peer).planes.get(MANAGEMENT) for peer in peers}
    return {address: peer for peer, address in found.items() if address}


def targets(told: AgentSettings, peers: tuple[str, ...]) -> list[Target]:
    """The peers on every plane that they have an address on, and the witnesses of these planes."""
    found = [
        Target(peer, Plane(plane), address)
        for peer in peers
        for plane, address in sorted(told.segment.host(peer).planes.items())
    ]
    planes = {target.plane for target in found}
    return found + [Target("", one.plane, one.address) for one in told.witnesses if one.plane in planes]
