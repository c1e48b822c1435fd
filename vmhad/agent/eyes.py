# SPDX-License-Identifier: Apache-2.0
"""Opens the eyes that the configuration asks for, and makes an agent of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from vmhad.agent.bootclock import boot_id
from vmhad.agent.directory import Directory
from vmhad.agent.guests import Guests
from vmhad.agent.loop import Agent, Identity
from vmhad.agent.peers import PeerLooks, Target
from vmhad.agent.storage import SharedStorage
from vmhad.agent.told import Eye
from vmhad.conf.agent_settings import AgentSettings
from vmhad.kernel.beat import Beat, Plane
from vmhad.kernel.ring import watched_by


def agent_of(told: AgentSettings, say: Callable[[Beat], None], acts: bool = True) -> Agent:
    """acts: False for an agent that only looks, beside the one that beats for this host. Raises guests.LibvirtMissing.
    """
    who = Identity(told.host, boot_id(), uuid.uuid4().hex)
    peers = watched_by(told.host, told.segment.hosts, told.peers_watched, told.watched_from_other)
    eyes: list[Eye] = [PeerLooks(targets(told, peers), told.probe_port)]
    eyes += [
        SharedStorage(
            one.name,
            one.marker,
            Directory(one.place, told.storage_buffered),
            who,
            peers,
            down_after_s=told.storage_down_after_s,
            writes=acts,
        )
        for one in told.storages
    ]
    agent = Agent(who, eyes, say, told.beat_interval_s)
    if told.libvirt_uri:
        eyes.append(Guests(told.libvirt_uri, agent.news))
    return agent


def targets(told: AgentSettings, peers: tuple[str, ...]) -> list[Target]:
    """The peers on every plane that they have an address on, and the witnesses of these planes."""
    found = [
        Target(peer, Plane(plane), address)
        for peer in peers
        for plane, address in sorted(told.segment.host(peer).planes.items())
    ]
    planes = {target.plane for target in found}
    return found + [Target("", one.plane, one.address) for one in told.witnesses if one.plane in planes]
