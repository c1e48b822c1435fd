# SPDX-License-Identifier: Apache-2.0
"""What befalls single guests of the simulated datacentre, and what their hypervisors say of them."""

from __future__ import annotations

from collections.abc import Callable

from vmhad.kernel.beat import DISK_PAUSED, Beat, Domain, DomainState
from vmhad.kernel.signal import Reading
from vmhad.sim.datacentre import Datacentre
from vmhad.sim.nova import SimNova

BEAT_S = 1.0
GONE = (DomainState.CRASHED, DomainState.SHUT_OFF)


def befall(nova: SimNova, server_id: str, what: str) -> None:
    """dies | shuts-down | panics | freezes | io-pauses | falls-silent | pauses | recovers. The first two end
    its process; what recovers runs again, whoever did it."""
    vm, now = nova.datacentre.vms[server_id], nova.agenda.now
    state, detail = {
        "dies": (DomainState.CRASHED, "failed"),
        "shuts-down": (DomainState.SHUT_OFF, "shutdown"),
        "panics": (DomainState.CRASHED, "panicked"),
        "freezes": (DomainState.FROZEN, "I/O error"),
        "io-pauses": (DomainState.FROZEN, DISK_PAUSED),
        "falls-silent": (DomainState.UNRESPONSIVE, "guest agent disconnected"),
        "pauses": (DomainState.PAUSED, "user"),
        "recovers": (DomainState.RUNNING, ""),
    }[what]
    if server_id not in nova.servers:
        return
    vm.said = (state, detail, now)
    if what == "recovers":
        vm.guests.add(nova.servers[server_id].host)
    if what in ("dies", "shuts-down"):
        nova.guest_dies(server_id)


def slip(nova: SimNova, server_id: str, host: str) -> None:
    """As where nova-compute is restarted in the middle of a live migration: the guest is there, and Nova calls it where
    it was, until it finds it gone."""
    nova.guest_dies(server_id)
    nova.datacentre.vms[server_id].guests.add(host)
    nova.copies.add((server_id, host))


def end_on(nova: SimNova, server_id: str, host: str) -> None:
    nova.datacentre.vms[server_id].guests.discard(host)
    nova.copies.discard((server_id, host))


def domains_of(nova: SimNova, host: str) -> dict[str, Domain]:
    """The guests that the host's hypervisor has, running or not."""
    found = {}
    for server_id, where in sorted(nova.copies):
        if where != host or server_id not in nova.servers:
            continue
        vm = nova.datacentre.vms[server_id]
        state, detail, since = vm.said
        if host not in vm.guests and state not in GONE:
            state, detail = DomainState.SHUT_OFF, "destroyed"
        found[server_id] = Domain(state, detail, since, vm.service.is_ready(nova.agenda.now) or None)
    return found


class GuestWords:
    """What every hypervisor says of its guests comes to each engine once a second, while its host can say it."""

    def __init__(self, nova: SimNova, hear: Callable[[Beat], None]) -> None:
        self._nova, self._hear = nova, hear
        self._nova.agenda.after(BEAT_S, self._beat, periodic=True)

    def _beat(self) -> None:
        now = self._nova.agenda.now
        for name, host in sorted(self._nova.datacentre.hosts.items()):
            if host.powered and host.alive and host.is_reached and not host.hung:
                reached = Reading.UP if _is_stored(self._nova.datacentre, name) else Reading.DOWN
                domains = domains_of(self._nova, name)
                self._hear(
                    Beat(
                        host=name, boot=str(host.life), run="", count=0, uptime_s=now, sent_at=now,
                        storages={"ceph": reached}, domains=domains,
                    )  # fmt: skip
                )
        self._nova.agenda.after(BEAT_S, self._beat, periodic=True)


def _is_stored(datacentre: Datacentre, name: str) -> bool:
    return datacentre.takes("ceph", name)
