# SPDX-License-Identifier: Apache-2.0
"""The soft half of what is known: evidence of every watched host, gathered from the watches, judged on demand."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from vmhad.engine.listening import Listening
from vmhad.guards.hosts.judge import ROUNDING_S, judge, outlasts_repeats, stands_until
from vmhad.kernel.evidence import Evidence, Seen, goes_on, repeats, weigh
from vmhad.kernel.policy import Policy
from vmhad.kernel.signal import Channel, Signal
from vmhad.kernel.topology import Segment
from vmhad.kernel.verdict import Judgement, Verdict
from vmhad.ports import Nudge, Nudges, Watch

LOG = logging.getLogger(__name__)
# Looked up once: a member of an enumeration costs ten times what another name does.
HEALTHY, SUSPECT = Judgement.HEALTHY, Judgement.SUSPECT
# A host under suspicion is looked at again this often, instead of at the watch's own pace.
LOOK_EVERY_S = 0.9
# The notification that a server was switched off, by its user or by Nova itself.
POWERED_OFF = "instance.power_off.end"
ABOUT_HOSTS = ("service.", "libvirt.")
# A host is heard again before its nova-compute has looked for its guests, and the notification of those it found gone
# may be lost: so it is asked about them this long after its return.
FALLEN_LOOKS_S = (0.0, 10.0, 30.0, 90.0)
ASKED_AGAIN_S = 2.0


@dataclass
class Judged:
    """A segment's verdicts as they stand. unwell: the hosts whose verdict is not HEALTHY. suspects: those of them that
    are SUSPECT or FAILED. fragile: those whose verdict any reading may change, judged anew every time.

    good_until: until then every verdict but those stands, unless another reading comes. rests_on: host -> the evidence
    that was judged, and until when its verdict stands. look_at: when a silence of an agent, or of its peers, may mean
    something else than now. verdicts is replaced, never changed: it is kept in cases.
    """

    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    unwell: set[str] = field(default_factory=set)
    suspects: set[str] = field(default_factory=set)
    fragile: set[str] = field(default_factory=set)
    good_until: float = -inf
    rests_on: dict[str, tuple[Evidence, float]] = field(default_factory=dict)
    look_at: float = inf


@dataclass
class EvidenceStore:
    """hosts: ask of(), not this: what only says again what was said before is weighed when somebody asks, the newest
    for all before it. An engine that holds no segment asks for nobody. _waiting: what came of a host that goes on."""

    watches: Sequence[Watch]
    nudges: Sequence[Nudges]
    listening: Listening = field(default_factory=lambda: Listening((), (), {}))
    hosts: dict[str, Evidence] = field(default_factory=dict)
    _waiting: dict[str, tuple[Signal, ...]] = field(default_factory=dict)
    _up_to_date: set[str] = field(default_factory=set)
    _judged: dict[str, Judged] = field(default_factory=dict)
    _news: set[str] = field(default_factory=set)
    _quiet: dict[str, tuple[frozenset[str], float]] = field(default_factory=dict)
    _back: set[str] = field(default_factory=set)
    _fallen_hints: set[str] = field(default_factory=set)
    _fallen_looks: list[tuple[float, str]] = field(default_factory=list)
    _looked_at: dict[str, float] = field(default_factory=dict)

    def gather(self, now: float = 0.0) -> tuple[Nudge, ...]:
        """Takes in every signal, beat and nudge that came; answers with the nudges that somebody should look into."""
        # All are read before any is taken: latest() may not tell what came after something that is not taken yet.
        signals = [signal for watch in self.watches for signal in watch.read()]
        self._up_to_date.clear()
        for signal in signals:
            self._take(signal)
        if self.listening.sources:
            self._listen(now)
        nudged = [nudge for source in self.nudges for nudge in source.read() if nudge.host]
        worth = tuple(nudge for nudge in nudged if nudge.why == POWERED_OFF or nudge.why.startswith(ABOUT_HOSTS))
        self.nudged(worth)
        return worth

    def nudged(self, nudged: Iterable[Nudge]) -> None:
        """A nudge about a host makes the watches look at once; what is told of single VMs says nothing of their host,
        and comes by the dozen in every recovery."""
        nudged = tuple(nudged)
        self._fallen_hints |= {nudge.host for nudge in nudged if nudge.why == POWERED_OFF}
        of_hosts = {nudge.host for nudge in nudged if nudge.why.startswith(ABOUT_HOSTS)}
        if of_hosts:
            self.look(sorted(of_hosts))

    def _listen(self, now: float) -> None:
        """What the agents say is weighed when somebody asks; only what they say anew is judged for its own sake."""
        unwell = {host for judged in self._judged.values() for host in judged.unwell}
        news = self.listening.gather(unwell, now)
        self._news |= news.hosts
        for host, at in news.back.items():
            if host in self.hosts:
                self.hosts[host] = self._caught_up(host)._replace(back_at=at)
                self._back.add(host)
                self.returned(host, at)

    def _take(self, signal: Signal) -> None:
        """What waits of the other eyes need not be weighed first: none of it is a heartbeat or an OFF."""
        host = signal.host
        doubted = self._is_doubted(host)
        if not doubted and self._waits(signal):
            return
        old = self._caught_up(host)
        self.hosts[host] = new = weigh(old, signal)
        if not repeats(old, signal) or (doubted and signal.life):
            self._news.add(host)
        if new.heard_at > old.heard_at or new.listened_from != old.listened_from:
            self._heard(host, is_first=not old.listened_from)
        if new.back_at > old.back_at:
            self._back.add(host)
            self.returned(host, new.back_at)

    def _waits(self, signal: Signal) -> bool:
        """Puts it beside the evidence, in place of what it makes needless there; False where it has to be weighed."""
        evidence, waiting = self.hosts.get(signal.host), self._waiting.get(signal.host, ())
        if evidence is None or not goes_on(evidence, signal) or (waiting and signal.at < waiting[-1].at):
            return False
        beat = waiting[:1] if waiting and waiting[0].life and not signal.life else ()
        self._waiting[signal.host] = (*beat, signal)
        return True

    def _is_doubted(self, host: str) -> bool:
        """Each heartbeat of it may change what is thought of it."""
        unwell = any(host in judged.unwell for judged in self._judged.values())
        return unwell or any(host in hosts for hosts, _ in self._quiet.values())

    def _caught_up(self, host: str) -> Evidence:
        evidence = self.hosts.get(host) or Evidence(host)
        if waiting := self._waiting.pop(host, ()):
            for signal in waiting:
                evidence = weigh(evidence, signal)
            self.hosts[host] = evidence
        return evidence

    def _heard(self, host: str, is_first: bool) -> None:
        """What is quiet is counted anew only if this host counted as quiet, or was not counted yet."""
        if is_first or any(host in hosts for hosts, _ in self._quiet.values()):
            self._quiet.clear()

    def returned(self, host: str, at: float) -> None:
        """It is heard again: whatever ran there may be missing."""
        self._fallen_looks.extend((at + after_s, host) for after_s in FALLEN_LOOKS_S)

    def was_back_since(self, host: str, since: float) -> bool:
        """It was heard again so lately that its nova-compute may have looked for its guests after that time."""
        return self.of(host).back_at > since - FALLEN_LOOKS_S[-1]

    def suspect_fallen(self, hosts: Iterable[str]) -> None:
        """Something stopped there; whether its user did it is to be asked."""
        self._fallen_hints.update(hosts)

    def ask_again(self, host: str, now: float) -> None:
        """It was asked for its missing guests, and did not answer for them."""
        self._fallen_looks.append((now + ASKED_AGAIN_S, host))

    def take_fallen_hints(self, segment: Segment, now: float) -> tuple[str, ...]:
        """The hosts where a guest may be gone: one was switched off there, or the host is back from a silence."""
        if self._fallen_looks:
            self._fallen_hints |= {host for at, host in self._fallen_looks if at <= now}
            self._fallen_looks = [one for one in self._fallen_looks if one[0] > now]
        if not self._fallen_hints:
            return ()
        hints = self._fallen_hints & set(segment.names)
        self._fallen_hints -= hints
        return tuple(sorted(hints))

    def of(self, host: str) -> Evidence:
        evidence = self._caught_up(host)
        if host not in self._up_to_date:
            self._up_to_date.add(host)
            for watch in self.watches:
                if (signal := watch.latest(host)) is not None:
                    self.hosts[host] = evidence = weigh(evidence, signal)
            if self.listening.sources:
                self.hosts[host] = evidence = self.listening.heed(evidence)
        return evidence

    def judged(self, segment: Segment, policy: Policy, now: float) -> Judged:
        """Every host's verdict; suspects are looked at anew, so that suspicion ends soon one way or the other.

        Costs what changed: most verdicts are made again only when another reading came or one may be stale.
        """
        judged = self._judged.setdefault(segment.name, Judged())
        if self.listening.listen(segment, now) or now > judged.good_until:
            self._judge(judged, segment.names, policy, now, inf)
        else:
            news = self._news & judged.verdicts.keys() if self._news else set()
            self._judge(judged, judged.fragile | news, policy, now, judged.good_until)
        doubtful = [name for name in sorted(judged.suspects) if judged.verdicts[name].judgement is SUSPECT]
        due = [name for name in doubtful if now >= self._looked_at.get(name, 0.0) + LOOK_EVERY_S]
        if due:
            self._looked_at.update(dict.fromkeys(due, now))
            self.look(due)
        return judged

    def verdicts(self, segment: Segment) -> Mapping[str, Verdict]:
        """As they were judged last."""
        return self._judged[segment.name].verdicts if segment.name in self._judged else {}

    def _judge(self, judged: Judged, hosts: Collection[str], policy: Policy, now: float, good_until: float) -> None:
        self._news.difference_update(hosts)
        changed = {}
        judged.look_at = inf
        for name in hosts:
            evidence = self.of(name)
            known, until = judged.rests_on.get(name, (None, -inf))
            if evidence is not known or now > until:
                verdict, until = judge(evidence, policy, now), stands_until(evidence, policy, now)
                judged.rests_on[name] = evidence, until
                if verdict != judged.verdicts.get(name):
                    changed[name] = verdict
            else:
                verdict = judged.verdicts[name]
            if outlasts_repeats(verdict):
                good_until = min(good_until, until)
            elif evidence.agent_from:
                judged.look_at = min(judged.look_at, until + ROUNDING_S)
        judged.good_until = good_until
        if self.listening.sources:
            judged.look_at = min(judged.look_at, good_until + ROUNDING_S)
        if changed:
            _say_changes(judged.verdicts, changed)
            judged.verdicts = {**judged.verdicts, **changed}
            judged.unwell = {
                name for name in judged.unwell | changed.keys()
                if judged.verdicts[name].judgement is not HEALTHY
            }
            judged.fragile = {
                name for name in judged.fragile | changed.keys() if not outlasts_repeats(judged.verdicts[name])
            }
            judged.suspects = {
                name for name in judged.unwell
                if judged.verdicts[name].judgement in (Judgement.SUSPECT, Judgement.FAILED)
            }

    def quiet(self, segment: Segment, policy: Policy, now: float) -> frozenset[str]:
        """The hosts whose nova-compute was not heard for a while, whatever Nova calls them yet; and those not heard at
        all yet, for a new engine cannot know for how long they have been silent."""
        quiet, until = self._quiet.get(segment.name, (frozenset(), -inf))
        if now > until:
            quiet, until = self._quiet[segment.name] = self._quiet_now(segment, policy, now)
        return self._by_agents(quiet, segment, policy, now) if self.listening.sources else quiet

    def _by_agents(self, quiet: frozenset[str], segment: Segment, policy: Policy, now: float) -> frozenset[str]:
        """Whose agent is heard is not quiet; whose agent is silent is, and none of those is HEALTHY."""
        judged = self._judged.get(segment.name, Judged())
        known = [judged.rests_on[name][0] for name in judged.unwell]
        silent = {
            one.host for one in known
            if one.agent_from and not one.away and one.agent_silent_s(now) >= policy.agent_suspect_s
        }
        heard = {name for name in quiet if self.listening.silent_s(name, now) < policy.agent_suspect_s}
        return quiet - heard | silent

    def _quiet_now(self, segment: Segment, policy: Policy, now: float) -> tuple[frozenset[str], float]:
        """And until when no other host can become quiet."""
        known = [self._caught_up(name) for name in segment.names if name in self.hosts]
        quiet_s = policy.heartbeat_quiet_s
        unheard = {one.host for one in known if one.listened_from and not one.heard_at}
        silent_s = {one.host: one.quiet_s(now) for one in known}
        quiet = frozenset(unheard | {host for host, seconds in silent_s.items() if seconds > quiet_s})
        longest_s = max((seconds for host, seconds in silent_s.items() if host not in quiet), default=0.0)
        return quiet, now + quiet_s - longest_s - ROUNDING_S

    def back(self, segment: Segment, policy: Policy, now: float) -> frozenset[str]:
        """The hosts that were silent and were heard again a short while ago."""
        back = {name for name in self._back if now - self.hosts[name].back_at < policy.back_grace_s}
        return frozenset(back.intersection(segment.names) if back else ())

    def powers(self, segment: Segment) -> Mapping[str, Seen]:
        """Host -> what its BMC said last, and since when."""
        seen = {name: self.of(name).seen.get(Channel.POWER) for name in segment.names}
        return {name: power for name, power in seen.items() if power is not None}

    def look_at_all(self, segment: Segment, now: float) -> None:
        """While a fence is under way: does another host go with it?"""
        due = [name for name in segment.names if now >= self._looked_at.get(name, 0.0) + LOOK_EVERY_S]
        self._looked_at.update(dict.fromkeys(due, now))
        self.look(due)

    def look(self, hosts: Iterable[str]) -> None:
        names = tuple(hosts)
        for watch in self.watches:
            watch.look(names)


def _say_changes(old: Mapping[str, Verdict], changed: Mapping[str, Verdict]) -> None:
    """Most verdicts open no incident, so nothing else would tell an operator of a host that is DEGRADED."""
    for name, verdict in sorted(changed.items()):
        if name not in old or old[name].row != verdict.row:
            LOG.info("host %s is %s: %s", name, verdict.judgement.name, verdict.because)
