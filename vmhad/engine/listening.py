# SPDX-License-Identifier: Apache-2.0
"""The ear of an engine: the newest beat of every agent, who watches whom, and whether the bus is heard at all.

A beat that only says again what was said costs no judgement. The silence of one host counts only while others are
heard: when next to all fall silent at once it is the bus, and when a whole site does it is the way to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf

from vmhad.engine.guests import Guests
from vmhad.engine.units import Units
from vmhad.kernel.beat import Beat, HeardBeat, Plane
from vmhad.kernel.evidence import Evidence, weigh
from vmhad.kernel.policy import Policy
from vmhad.kernel.signal import Channel, Reading
from vmhad.kernel.topology import Segment
from vmhad.kernel.views import FRESH_S, PLANES, STEADY_S, Record, Views, Witness, blind_on, moved
from vmhad.ports import Beats

# Fewer than this share of the agents heard within DEAF_S: nobody's silence counts. A host that was silent for longer
# than COUNTED_S is not counted among them.
HEARD_SHARE = 0.25
DEAF_S = 2.5
COUNTED_S = 60.0
COUNT_EVERY_S = 0.5
# A record that a peer has not seen move for this long is worth a look: it may be about to have stopped.
STANDS_S = 2.0
# Beats come once a second; more slowly than this on average says that there was a pause.
BEATS_APART_S = 1.5
SITE = "site"
# Looked up once: a member of an enumeration costs ten times what another name does.
UP, DOWN, UNKNOWN = Reading.UP, Reading.DOWN, Reading.UNKNOWN
OF_PEERS = frozenset({Channel.STORAGE, *(channel for _, channel in PLANES)})


@dataclass
class Ear:
    """One segment's, or one site's. born_at: when it began to listen. since: from when on it is heard, inf while it is
    not; lost_at: when that began."""

    born_at: float
    since: float = inf
    lost_at: float = -inf
    counted_at: float = -inf
    away: bool = False

    def hears(self, is_heard: bool, now: float) -> bool:
        """True if that is another answer than before."""
        if is_heard == (self.since < inf):
            return False
        self.since = now if is_heard else inf
        self.lost_at = self.lost_at if is_heard else now
        return True


@dataclass
class News:
    """hosts: those of which a beat said something new. back: host -> when it was heard again after a silence, or after
    a boot."""

    hosts: set[str] = field(default_factory=set)
    back: dict[str, float] = field(default_factory=dict)


@dataclass
class Listening:
    sources: Sequence[Beats]
    segments: Sequence[Segment]
    policies: Mapping[str, Policy]
    guests: Guests = field(default_factory=Guests)
    units: Units = field(default_factory=Units)
    latest: dict[str, HeardBeat] = field(default_factory=dict)
    _segment_of: dict[str, Segment] = field(default_factory=dict)
    _site_of: dict[str, str] = field(default_factory=dict)
    _expected: set[str] = field(default_factory=set)
    _steady_from: dict[str, float] = field(default_factory=dict)
    _watchers: dict[str, set[str]] = field(default_factory=dict)
    _records: dict[str, dict[str, Record]] = field(default_factory=dict)
    _reads: dict[str, dict[str, float]] = field(default_factory=dict)
    _blind: dict[str, tuple[Beat, frozenset[Plane]]] = field(default_factory=dict)
    _ears: dict[tuple[str, str], Ear] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)
    _now: float = 0.0

    def __post_init__(self) -> None:
        hosts = [(segment, host) for segment in self.segments for host in segment.hosts]
        self._segment_of = {host.name: segment for segment, host in hosts}
        self._site_of = {host.name: host.domains.get(SITE, "") for _, host in hosts}
        self._expected = {host.name for _, host in hosts if host.planes}

    # What comes.

    def gather(self, doubted: Collection[str], now: float) -> News:
        """Takes in every beat, whoever owns the hosts: an heir has listened before. doubted: hosts of which every word
        counts."""
        news = News()
        for source in self.sources:
            for heard in source.read():
                if heard.beat.host in self._segment_of:
                    self._take(heard, doubted, news)
        for segment in self.segments:
            self._listen(segment, now)
        return news

    def _take(self, heard: HeardBeat, doubted: Collection[str], news: News) -> None:
        beat, host = heard.beat, heard.beat.host
        old = self.latest.get(host)
        if old is not None and heard.at < old.at:
            return
        self.guests.take(heard)
        self.units.take(heard)
        self.latest[host] = heard
        if old is None or _paused(old, heard):
            self._steady_from[host] = heard.at
            news.hosts.add(host)
        if self._is_back(old, heard):
            news.back[host] = heard.at
        if host in doubted or old is None or _says_new(old, heard):
            news.hosts.add(host)
        if heard.refused:
            return
        self._note_reads(beat, heard.at)
        before = old.beat.peers if old is not None else {}
        if before.keys() != beat.peers.keys():
            self._watch(host, before, beat)
        self._peers(beat, heard.at, before, doubted, news)

    def _note_reads(self, beat: Beat, at: float) -> None:
        """Who reads a storage again after a pause finds records that stand still as long as that: it has to read on."""
        reads = self._reads.setdefault(beat.host, {})
        for storage, reading in beat.storages.items():
            if reading is not UP:
                reads.pop(storage, None)
            elif storage not in reads:
                reads[storage] = at

    def _peers(
        self, beat: Beat, at: float, before: Mapping[str, object], doubted: Collection[str], news: News
    ) -> None:
        """Nearly all of them say again what they said: that is asked first."""
        for peer, view in beat.peers.items():
            was = before.get(peer)
            if view != was and (peer in doubted or was is None or view.planes != getattr(was, "planes", None)):
                news.hosts.add(peer)
            if view.dump is not None and (was is None or getattr(was, "dump", None) is None):
                news.hosts.add(peer)
            records = self._records.get(peer)
            if records is None:
                records = self._records[peer] = {}
            for storage, read in view.storage.items():
                records[storage] = moved(records.get(storage), read, at)
                if read.still_s >= STANDS_S:
                    news.hosts.add(peer)

    def _watch(self, host: str, before: Mapping[str, object], beat: Beat) -> None:
        for peer in before.keys() - beat.peers.keys():
            self._watchers.get(peer, set()).discard(host)
        for peer in beat.peers:
            self._watchers.setdefault(peer, set()).add(host)

    def _is_back(self, old: HeardBeat | None, heard: HeardBeat) -> bool:
        """Or is heard for the first time, long after others were: then it was silent before we listened."""
        if old is None:
            segment = self._segment_of[heard.beat.host]
            ear = self._ears.get((segment.name, ""))
            listened_s = heard.at - ear.born_at if ear is not None else 0.0
            return heard.beat.host in self._expected and listened_s >= self.policies[segment.name].agent_failed_s
        if old.beat.boot != heard.beat.boot:
            return True
        segment = self._segment_of[heard.beat.host]
        since = self._counts_from(segment, heard.beat.host)
        silent_s = heard.at - max(old.at, since)
        return not (old.beat.leaving or old.refused) and silent_s >= self.policies[segment.name].agent_failed_s

    # Whether anybody is heard.

    def listen(self, segment: Segment, now: float) -> bool:
        """Before its hosts are judged. True if what silence means there is not what it was."""
        self._now = max(self._now, now)
        if not self.sources:
            return False
        self._listen(segment, now)
        was_changed = segment.name in self._changed
        self._changed.discard(segment.name)
        return was_changed

    def _listen(self, segment: Segment, now: float) -> None:
        ear = self._ears.setdefault((segment.name, ""), Ear(now))
        if now < ear.counted_at + COUNT_EVERY_S:
            return
        ear.counted_at = now
        changed = ear.hears(self._is_heard(segment.names, now), now)
        for site, hosts in _sites(segment):
            changed |= self._listen_to_site(segment, site, hosts, now)
        if changed:
            self._changed.add(segment.name)

    def _listen_to_site(self, segment: Segment, site: str, hosts: Sequence[str], now: float) -> bool:
        ear = self._ears.setdefault((segment.name, site), Ear(now))
        changed = ear.hears(self._is_heard(hosts, now), now)
        # An heir may never have heard of it: where agents are to be expected that is no better than silence.
        silent = ear.since == inf and any(host in self.latest or host in self._expected for host in hosts)
        # Whoever saw one of them a moment ago needs a moment to see it no more.
        away = silent and (now < ear.lost_at + FRESH_S or not self._is_seen(hosts, now))
        changed |= away != ear.away
        ear.away = away
        return changed

    def _is_heard(self, hosts: Sequence[str], now: float) -> bool:
        latest = [self.latest[host].at for host in hosts if host in self.latest]
        counted = sorted((at for at in latest if at > max(latest) - COUNTED_S), reverse=True)
        return bool(counted) and now - counted[ceil(HEARD_SHARE * len(counted)) - 1] <= DEAF_S

    def _is_seen(self, hosts: Sequence[str], now: float) -> bool:
        """A witness elsewhere sees something of one of them."""
        for host in hosts:
            for witness in self._witnesses(host, now):
                view = witness.beat.peers[host]
                lives = any(read.still_s < STANDS_S for read in view.storage.values())
                if witness.beat.host not in hosts and (lives or UP in view.planes.values()):
                    return True
        return False

    def _counts_from(self, segment: Segment, host: str) -> float:
        """0.0 where no agent is to be expected."""
        ear = self._ears.get((segment.name, ""))
        if ear is None or (host not in self.latest and host not in self._expected):
            return 0.0
        if ear.since == inf and ear.lost_at == -inf:
            # It may be that nobody has had the time to be heard.
            just_began = self._now < ear.born_at + self.policies[segment.name].agent_failed_s
            return ear.born_at if just_began else inf
        own_site = self._ears.get((segment.name, self._site_of[host]))
        if own_site is None or own_site.since == inf:
            return ear.since
        return max(ear.since, own_site.since)

    def silent_s(self, host: str, now: float) -> float:
        """Since its newest beat, inf where none was heard."""
        heard = self.latest.get(host)
        return now - heard.at if heard is not None and not heard.refused else inf

    # What is known of one host.

    def heed(self, evidence: Evidence) -> Evidence:
        """The evidence with all that the agents say of its host now."""
        segment = self._segment_of.get(evidence.host)
        agent_from = self._counts_from(segment, evidence.host) if segment is not None else 0.0
        if segment is None or not agent_from:
            return evidence
        views = self._views(evidence.host, self._now)
        for signal in views.signals(evidence.seen, self._now):
            if agent_from == inf and signal.channel in OF_PEERS and signal.reading is DOWN:
                # While next to nobody is heard a peer may miss it for the same cause; that one sees it live is a word.
                signal = signal._replace(reading=UNKNOWN)
            evidence = weigh(evidence, signal)
        site = self._ears.get((segment.name, self._site_of[evidence.host]))
        away = site is not None and site.away and agent_from < inf
        return evidence._replace(
            agent_from=agent_from, away=away, peers_until=views.until(), peers_at=views.told_at()
        )

    def _views(self, host: str, now: float) -> Views:
        still_s = self.policies[self._segment_of[host].name].storage_still_s
        witnesses = tuple(self._witnesses(host, now))
        return Views(host, self.latest.get(host), witnesses, self._records.get(host, {}), still_s)

    def _witnesses(self, host: str, now: float) -> Iterator[Witness]:
        for name in sorted(self._watchers.get(host, ())):
            heard = self.latest[name]
            if now - heard.at <= FRESH_S and heard.at - self._steady_from[name] >= STEADY_S and not heard.refused:
                yield Witness(heard.beat, heard.at, self._blind_on(name, heard.beat), self._reads.get(name, {}))

    def _blind_on(self, name: str, beat: Beat) -> frozenset[Plane]:
        kept = self._blind.get(name)
        if kept is None or kept[0] is not beat:
            kept = self._blind[name] = beat, blind_on(beat)
        return kept[1]


def _paused(old: HeardBeat, heard: HeardBeat) -> bool:
    """Between the two it did not beat for a while. One that made beats which nobody read has not paused."""
    made = heard.beat.count - old.beat.count
    apart_s = heard.at - old.at
    return old.beat.run != heard.beat.run or (apart_s > DEAF_S and apart_s > BEATS_APART_S * made)


def _says_new(old: HeardBeat, heard: HeardBeat) -> bool:
    a, b = old.beat, heard.beat
    return (
        a.leaving != b.leaving
        or a.services != b.services
        or a.units != b.units
        or a.storages != b.storages
        or a.hardware != b.hardware
        or a.boot != b.boot
        or old.refused != heard.refused
    )


def _sites(segment: Segment) -> Iterator[tuple[str, list[str]]]:
    """Where hosts are at several sites."""
    sites: dict[str, list[str]] = {}
    for host in segment.hosts:
        sites.setdefault(host.domains.get(SITE, ""), []).append(host.name)
    if len(sites) > 1:
        yield from ((site, hosts) for site, hosts in sorted(sites.items()) if site)
