# SPDX-License-Identifier: Apache-2.0
"""The agents on the simulated hosts: what each sees, writes on the shared storage, and says once a second.

No beat is an event. Between two changes of the truth an agent beats like a clock, so its newest beat is worked out when
somebody asks, or just before something changes. It lives, freezes and dies with its host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import floor, inf
from typing import TypeVar

from vmhad.kernel.beat import DUMP_HEARD_S, PANIC_KNOWN_S, Beat, Dump, PeerView, Plane, StorageBeat
from vmhad.kernel.ring import rings, watched_by
from vmhad.kernel.signal import Reading
from vmhad.kernel.topology import Segment
from vmhad.sim.datacentre import Datacentre

# Looked up once: a member of an enumeration costs ten times what another name does.
UP, DOWN = Reading.UP, Reading.DOWN
BEAT_S = 1.0
# A peer that has not answered for so long is called down, a storage that was not read for so long is called lost.
ANSWER_OLD_S = 2.0
STORAGE_LOST_S = 3.0
# A crash kernel says so often that it writes a dump.
DUMP_EVERY_S = 10.0
# After a longer pause of its own an agent's first beat says what it knew before, as old as that is.
PAUSE_S = 2.0


@dataclass(frozen=True)
class Made:
    """A beat as it left. at: when it was made, by the world's clock. late_s: how long it waits in the broker."""

    beat: Beat
    at: float
    refused: str = ""
    late_s: float = 0.0


@dataclass
class SimAgent:
    """phase_s: where in the second it beats. watches: the peers it looks at. storages: where it has a record.

    runs: its process is there and not stopped. run: how often it was started. beat_at, count: its newest beat;
    heard_at: the newest that reached the bus, heard_from: the first of the unbroken row of those. records: storage ->
    boot, count and time of its newest record there. reads: what it read of its peers' records last. refused: what is
    wrong with its clock. complaints: of its hardware. unheard: its way to the bus is lost, and nothing else. made:
    beats that nobody may have read.
    """

    host: str
    phase_s: float
    watches: tuple[str, ...]
    storages: tuple[str, ...]
    runs: bool = True
    frozen: bool = False
    complaints: tuple[str, ...] = ()
    run: int = 1
    refused: str = ""
    late_s: float = 0.0
    unheard: bool = False
    beat_at: float = 0.0
    heard_at: float = 0.0
    heard_from: float = 0.0
    count: int = 0
    records: dict[str, tuple[str, int, float]] = field(default_factory=dict)
    reads: dict[tuple[str, str], StorageBeat] = field(default_factory=dict)
    made: list[Made] = field(default_factory=list)


@dataclass
class Dumping:
    """Messages about a host, as its crash kernel sends them. forged: they come from elsewhere, and the host lives."""

    began_at: float
    forged: bool = False
    ended_at: float = inf

    def heard(self, at: float) -> Dump | None:
        """As the agent of a peer tells of it."""
        last_at = self.began_at + (min(at, self.ended_at) - self.began_at) // DUMP_EVERY_S * DUMP_EVERY_S
        return Dump(at - self.began_at, at - last_at) if 0.0 <= at - last_at < DUMP_HEARD_S else None


Key = TypeVar("Key", bound=tuple[str, ...])


class Agents:
    """All of a datacentre's. storage: the shared storage all hosts have a record on, '' for none; «site» for one a
    site. planes: those that they see each other on. on_news: called with the time of a beat that says something new."""

    def __init__(
        self,
        datacentre: Datacentre,
        segments: tuple[Segment, ...],
        storage: str,
        watchers: int,
        planes: tuple[Plane, ...] = tuple(Plane),
    ) -> None:
        self.datacentre, self.agenda = datacentre, datacentre.agenda
        self.planes, self._all_up = planes, dict.fromkeys(planes, UP)
        self.bus_is_down = False
        self.self_fence_s = 0.0
        self.on_news: list[Callable[[float], None]] = []
        self.agents: dict[str, SimAgent] = {}
        self._settled_at = self.agenda.now
        self._dumps: dict[str, Dumping] = {}
        self._unanswered: dict[tuple[str, str, Plane], float] = {}
        self._unreached: dict[tuple[str, str], float] = {}
        self._changed = False
        for segment in segments:
            self._add(segment, storage, watchers)
        datacentre.before_change.append(self.changing)
        for name in self.agents:
            datacentre.hosts[name].told.append(self.changing)

    def _add(self, segment: Segment, storage: str, watchers: int) -> None:
        watches = {
            name: watched_by(name, ring.hosts, watchers) for ring in rings(segment) for name in ring.names
        }
        for number, host in enumerate(segment.hosts):
            own = host.domains.get("site", "") if storage == "site" else storage
            phase_s = round((number * 0.37 + 0.11) % BEAT_S, 2)
            storages = (own,) if own else ()
            self.agents[host.name] = SimAgent(host.name, phase_s, tuple(sorted(watches[host.name])), storages)

    # Changes.

    def changing(self) -> None:
        """Called before the truth changes: what was so far was seen as it was."""
        self.settle()
        self._changed = True

    def tell(self, name: str) -> None:
        """The next beat of the host says something new."""
        at = self._settled_at + (self.agents[name].phase_s - self._settled_at) % BEAT_S
        for call in self.on_news:
            call(at)

    def leave(self, name: str) -> None:
        """Its agent is told to stop, says so, and is gone."""
        self.changing()
        agent = self.agents[name]
        if self._beats(agent):
            self._make(agent, self.agenda.now, leaving=True)
            for call in self.on_news:
                call(self.agenda.now)
        agent.runs = False

    def stop(self, name: str) -> None:
        """It is killed, and says nothing."""
        self.changing()
        self.agents[name].runs = False

    def start(self, name: str) -> None:
        self.changing()
        agent = self.agents[name]
        agent.run += not agent.runs
        agent.runs, agent.frozen = True, False
        self.tell(name)

    def freeze(self, name: str, frozen: bool) -> None:
        self.changing()
        self.agents[name].frozen = frozen

    def set_bus(self, is_down: bool) -> None:
        self.changing()
        self.bus_is_down = is_down

    def set_right(self, name: str) -> None:
        """Its clock, and its way through the broker."""
        self.changing()
        agent = self.agents[name]
        agent.refused, agent.late_s, agent.unheard = "", 0.0, False

    def set_complaints(self, name: str, complaints: tuple[str, ...]) -> None:
        self.changing()
        self.agents[name].complaints = complaints

    def dump(self, name: str, forged: bool = False) -> None:
        """Its crash kernel comes up and writes a dump, or somebody says so who can send under its address."""
        self.changing()
        self._dumps[name] = Dumping(self.agenda.now, forged)
        for peer, agent in self.agents.items():
            if name in agent.watches:
                self.tell(peer)

    def end_dump(self, name: str) -> None:
        self.changing()
        self._dumps[name].ended_at = min(self._dumps[name].ended_at, self.agenda.now)

    def heal(self) -> None:
        self.changing()
        self.bus_is_down = False
        for agent in self.agents.values():
            agent.run += not agent.runs
            agent.runs, agent.frozen = True, False
            agent.refused, agent.late_s, agent.unheard, agent.complaints = "", 0.0, False, ()

    # The truth of an agent.

    def _beats(self, agent: SimAgent) -> bool:
        host = self.datacentre.hosts[agent.host]
        return host.powered and host.alive and not host.hung and agent.runs and not agent.frozen

    def is_heard(self, name: str) -> bool:
        """Its beats reach the bus."""
        agent = self.agents[name]
        reaches = self.datacentre.hosts[name].is_reached and not agent.unheard
        return reaches and self._beats(agent) and not self.bus_is_down

    def answers(self, name: str, peer: str, plane: Plane) -> bool:
        """The peer's kernel answers the host on that plane."""
        mine, other = self.datacentre.hosts[name], self.datacentre.hosts[peer]
        if other.powered and not other.alive and self._writes(peer):
            # Its crash kernel is up, on the one network that it needs.
            return plane is Plane.MANAGEMENT and mine.network and other.network
        if not (other.powered and other.alive and not other.hung):
            return False
        link = {Plane.MANAGEMENT: "network", Plane.STORAGE: "storage", Plane.TENANT: "tenant"}[plane]
        if not (getattr(mine, link) and getattr(other, link)):
            return False
        if mine.silenced_by == other.silenced_by == set():
            return True
        wans = self.datacentre.wans
        return mine.silenced_by & wans == other.silenced_by & wans and (
            plane is not Plane.MANAGEMENT or not (mine.silenced_by | other.silenced_by) - wans
        )

    def _writes(self, name: str) -> bool:
        dumping = self._dumps.get(name)
        return dumping is not None and not dumping.forged and dumping.ended_at == inf

    def panic(self, name: str) -> Dumping | None:
        """Of a host that is down, and whose crash kernel writes or wrote lately."""
        dumping = self._dumps.get(name)
        if dumping is None or dumping.forged or self.datacentre.hosts[name].alive:
            return None
        return dumping if self.agenda.now < dumping.ended_at + PANIC_KNOWN_S else None

    # What was seen until now.

    def settle(self) -> None:
        """Every agent has beaten, and looked at its peers, as often as it should have by now."""
        since, now = self._settled_at, self.agenda.now
        if now <= since:
            return
        self._settled_at = now
        if self._changed:
            self._changed = False
            self._look(since)
        newest = []
        for agent in self.agents.values():
            if self._beats(agent):
                beats = floor((now - agent.phase_s) / BEAT_S) - floor((since - agent.phase_s) / BEAT_S)
                if beats > 0:
                    at = floor((now - agent.phase_s) / BEAT_S) * BEAT_S + agent.phase_s
                    agent.count += beats
                    agent.beat_at = at - BEAT_S if beats > 1 else agent.beat_at
                    newest.append((at, agent))
                    self._write(agent, at)
        for at, agent in newest:
            if self.is_heard(agent.host):
                self._make(agent, at)
                if agent.beat_at - agent.heard_at > PAUSE_S or not agent.heard_from:
                    agent.heard_from = at
                agent.heard_at = at
            agent.beat_at = at

    def _look(self, since: float) -> None:
        """Who does not answer whom, who reaches no storage, and whose dump was cut short, as it has been since then."""
        for name, dumping in self._dumps.items():
            if not self.datacentre.hosts[name].powered:
                dumping.ended_at = min(dumping.ended_at, since)
        for agent in self.agents.values():
            for peer in agent.watches:
                for plane in self.planes:
                    answers = self.answers(agent.host, peer, plane)
                    self._note(self._unanswered, (agent.host, peer, plane), since, answers)
            for storage in agent.storages:
                reached = self.datacentre.reaches(agent.host, storage)
                self._note(self._unreached, (agent.host, storage), since, reached)

    @staticmethod
    def _note(lost: dict[Key, float], key: Key, since: float, is_there: bool) -> None:
        if is_there:
            lost.pop(key, None)
        else:
            lost.setdefault(key, since)

    def _write(self, agent: SimAgent, at: float) -> None:
        for storage in agent.storages:
            datacentre = self.datacentre
            refused = any(agent.host in cut.get(storage, ()) for cut in (datacentre.cut_clients, datacentre.fenced))
            if not refused and (agent.host, storage) not in self._unreached:
                agent.records[storage] = (self.boot(agent.host), agent.count, at)

    def boot(self, name: str) -> str:
        return f"{name}-boot{self.datacentre.hosts[name].life}"

    # A beat.

    def _make(self, agent: SimAgent, at: float, leaving: bool = False) -> None:
        host = self.datacentre.hosts[agent.host]
        paused = agent.beat_at > 0.0 and at - agent.beat_at > PAUSE_S
        beat = Beat(
            host=agent.host,
            boot=self.boot(agent.host),
            run=f"{self.boot(agent.host)}.{agent.run}",
            count=agent.count,
            uptime_s=at - self.agenda.start_s,
            sent_at=at,
            leaving=leaving,
            services=SERVICES[host.compute, host.libvirtd],
            storages={one: self._storage(agent, one, at) for one in agent.storages},
            peers={peer: self._view(agent, peer, at, paused) for peer in agent.watches},
            hardware=agent.complaints,
            units=self.datacentre.services.units(agent.host),
        )
        made = Made(beat, at, agent.refused, agent.late_s)
        agent.made = [*agent.made[-9:], made] if agent.late_s else [made]

    def _storage(self, agent: SimAgent, storage: str, at: float) -> Reading:
        lost_at = self._unreached.get((agent.host, storage))
        return UP if lost_at is None or at - lost_at < STORAGE_LOST_S else DOWN

    def _view(self, agent: SimAgent, peer: str, at: float, paused: bool) -> PeerView:
        planes: Mapping[Plane, Reading] = self._all_up
        if self._unanswered or paused:
            planes = {plane: self._plane(agent.host, peer, plane, at, paused) for plane in self.planes}
        records = {}
        for storage in agent.storages:
            read = self._record(agent, peer, storage, at, paused)
            if read is not None:
                records[storage] = read
        dumping = self._dumps.get(peer)
        hears = dumping is not None and self.datacentre.hosts[agent.host].network
        return PeerView(planes, records, dumping.heard(at) if dumping is not None and hears else None)

    def _plane(self, name: str, peer: str, plane: Plane, at: float, paused: bool) -> Reading:
        lost_at = self._unanswered.get((name, peer, plane))
        return DOWN if paused or (lost_at is not None and at - lost_at >= ANSWER_OLD_S) else UP

    def _record(self, agent: SimAgent, peer: str, storage: str, at: float, paused: bool) -> StorageBeat | None:
        lost_at = self._unreached.get((agent.host, storage))
        before = agent.reads.get((peer, storage))
        if lost_at is not None or paused:
            if before is None or (lost_at is not None and at - lost_at >= STORAGE_LOST_S):
                return None
            since = agent.beat_at if lost_at is None else lost_at
            return StorageBeat(before.boot, before.count, at - since, self.self_fence_s)
        found = self.agents[peer].records.get(storage)
        if found is None:
            return None
        read = agent.reads[peer, storage] = StorageBeat(found[0], found[1], max(0.0, at - found[2]), self.self_fence_s)
        return read


def _services(compute: bool, libvirtd: bool) -> Mapping[str, Reading]:
    return {"libvirtd": UP if libvirtd else DOWN, "nova-compute": UP if compute else DOWN}


BOTH = (True, False)
SERVICES = {(compute, libvirtd): _services(compute, libvirtd) for compute in BOTH for libvirtd in BOTH}
