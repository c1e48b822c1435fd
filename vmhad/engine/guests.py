# SPDX-License-Identifier: Apache-2.0
"""What the agents' beats say of single guests. Soft: in memory, told anew every second, and no longer believed when it
is stale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from vmhad.guards.instances.judge import is_worth_asking
from vmhad.kernel.beat import Domain, DomainState, HeardBeat
from vmhad.kernel.policy import Policy
from vmhad.kernel.signal import Reading
from vmhad.kernel.topology import Segment

# Of what is so nothing is left that could write.
GONE = (DomainState.SHUT_OFF, DomainState.CRASHED)
WELL = (DomainState.RUNNING, DomainState.SHUT_OFF, DomainState.PAUSED, DomainState.OTHER)


class Told(NamedTuple):
    """A host's newest beat that names its guests. at: when it was made, by our clock."""

    at: float
    uptime_s: float
    domains: Mapping[str, Domain]
    storages_down: tuple[str, ...]


class Ill(NamedTuple):
    """A guest of which its hypervisor says that it failed. since: tells this failure from the next one."""

    server: str
    host: str
    since: tuple[str, float]
    because: str


@dataclass
class Guests:
    """let_be: server id -> the failure of it that was found to be none of ours."""

    told: dict[str, Told] = field(default_factory=dict)
    let_be: dict[str, tuple[str, float]] = field(default_factory=dict)
    _ill: dict[str, frozenset[str]] = field(default_factory=dict)
    _boots: dict[str, str] = field(default_factory=dict)
    # Server id -> the hosts that name it, so that nobody looks through all of them for one. A worker reads it, too:
    # each set is replaced, never changed.
    _named_by: dict[str, frozenset[str]] = field(default_factory=dict)

    def take(self, heard: HeardBeat) -> None:
        """Of a beat that came twice, or late, the newer one stays."""
        beat, old = heard.beat, self.told.get(heard.beat.host)
        if beat.domains is None or heard.refused or (old is not None and heard.at < old.at):
            return
        down = tuple(sorted(name for name, reading in beat.storages.items() if reading is Reading.DOWN))
        self.told[beat.host] = Told(heard.at, beat.uptime_s, beat.domains, down)
        self._boots[beat.host] = beat.boot
        if old is not None and old.domains is beat.domains:
            return
        self._name(beat.host, old.domains.keys() if old is not None else frozenset(), beat.domains.keys())
        self._ill[beat.host] = ill = frozenset(key for key, one in beat.domains.items() if one.state not in WELL)
        for server in self.let_be.keys() & beat.domains.keys() - ill:
            del self.let_be[server]

    def of(self, server: str, host: str, now: float, stale_s: float) -> tuple[Domain | None, float]:
        """What the host says of it, and when it was so; (None, 0.0) where nobody tells."""
        told = self._fresh(host, now, stale_s)
        domain = told.domains.get(server) if told is not None else None
        if told is None or domain is None:
            return None, 0.0
        return domain, told.at

    def beside(self, server: str, host: str, now: float, stale_s: float) -> str:
        """'' or another host which says that it has the guest, and not that it is off: the first one by name."""
        for name in sorted(self._named_by.get(server, frozenset()) - {host}):
            domain, _ = self.of(server, name, now, stale_s)
            if domain is not None and domain.state not in GONE:
                return name
        return ""

    def storage_down(self, host: str, now: float, stale_s: float) -> str:
        told = self._fresh(host, now, stale_s)
        return ", ".join(told.storages_down) if told is not None else ""

    def ill(self, segment: Segment, policy: Policy, now: float) -> Iterator[Ill]:
        """Those of the segment's hosts whose failure policy does not leave alone, by host and id."""
        for host in segment.names:
            if not self._ill.get(host) or (told := self._fresh(host, now, policy.channel_stale_s)) is None:
                continue
            for server in sorted(self._ill[host]):
                domain = told.domains[server]
                since = self._since(host, domain)
                if self.let_be.get(server) == since:
                    continue
                if is_worth_asking(policy, domain, told.uptime_s - domain.since_s):
                    detail = f" ({domain.detail})" if domain.detail else ""
                    yield Ill(server, host, since, f"its hypervisor says {domain.state.value}{detail}")

    def let(self, server: str, host: str) -> None:
        """This failure of it is none of ours; the next one may be."""
        told = self.told.get(host)
        if told is not None and server in told.domains:
            self.let_be[server] = self._since(host, told.domains[server])

    def _name(self, host: str, before: Set[str], names: Set[str]) -> None:
        for server in before - names:
            self._named_by[server] -= {host}
            if not self._named_by[server]:
                del self._named_by[server]
        for server in names - before:
            self._named_by[server] = self._named_by.get(server, frozenset()) | {host}

    def _since(self, host: str, domain: Domain) -> tuple[str, float]:
        return self._boots[host], domain.since_s

    def _fresh(self, host: str, now: float, stale_s: float) -> Told | None:
        told = self.told.get(host)
        return told if told is not None and now - told.at <= stale_s else None
