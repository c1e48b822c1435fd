# SPDX-License-Identifier: Apache-2.0
"""The soft half of what is known: evidence of every watched host, gathered from the watches, judged on demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vmhad.guards.hosts.judge import judge
from vmhad.kernel.evidence import Evidence, Seen, weigh
from vmhad.kernel.policy import Policy
from vmhad.kernel.signal import Channel
from vmhad.kernel.topology import Segment
from vmhad.kernel.verdict import Judgement, Verdict
from vmhad.ports import Nudges, Watch

# A host under suspicion is looked at again this often, instead of at the watch's own pace.
LOOK_EVERY_S = 0.9
# The notification that a server was switched off, by its user or by Nova itself.
POWERED_OFF = "instance.power_off.end"
ABOUT_HOSTS = ("service.", "libvirt.")


@dataclass
class EvidenceStore:
    watches: Sequence[Watch]
    nudges: Sequence[Nudges]
    hosts: dict[str, Evidence] = field(default_factory=dict)
    _fallen_hints: set[str] = field(default_factory=set)
    _looked_at: dict[str, float] = field(default_factory=dict)

    def gather(self) -> None:
        """Takes in every signal that came. A nudge about a host makes the watches look at once; what is told of single
        VMs says nothing of their host, and comes by the dozen in every recovery."""
        for watch in self.watches:
            for signal in watch.read():
                old = self.of(signal.host)
                self.hosts[signal.host] = new = weigh(old, signal)
                if new.back_at > old.back_at:
                    self._fallen_hints.add(signal.host)
        nudged = [nudge for source in self.nudges for nudge in source.read() if nudge.host]
        self._fallen_hints |= {nudge.host for nudge in nudged if nudge.why == POWERED_OFF}
        of_hosts = {nudge.host for nudge in nudged if nudge.why.startswith(ABOUT_HOSTS)}
        if of_hosts:
            self.look(sorted(of_hosts))

    def take_fallen_hints(self, segment: Segment) -> tuple[str, ...]:
        """The hosts where a guest may be gone: one was switched off there, or the host is back from a silence."""
        hints = self._fallen_hints & set(segment.names)
        self._fallen_hints -= hints
        return tuple(sorted(hints))

    def of(self, host: str) -> Evidence:
        return self.hosts.get(host) or Evidence(host)

    def verdicts(self, segment: Segment, policy: Policy, now: float) -> Mapping[str, Verdict]:
        """Every host's verdict; suspects are looked at anew, so that suspicion ends soon one way or the other."""
        verdicts = {name: judge(self.of(name), policy, now) for name in segment.names}
        doubtful = [name for name in sorted(verdicts) if verdicts[name].judgement is Judgement.SUSPECT]
        due = [name for name in doubtful if now >= self._looked_at.get(name, 0.0) + LOOK_EVERY_S]
        if due:
            self._looked_at.update(dict.fromkeys(due, now))
            self.look(due)
        return verdicts

    def quiet(self, segment: Segment, policy: Policy, now: float) -> frozenset[str]:
        """The hosts whose nova-compute was not heard for a while, whatever Nova calls them yet."""
        return frozenset(name for name in segment.names if self.of(name).quiet_s(now) > policy.heartbeat_quiet_s)

    def back(self, segment: Segment, policy: Policy, now: float) -> frozenset[str]:
        """The hosts that were silent and were heard again a short while ago."""
        return frozenset(name for name in segment.names if now - self.of(name).back_at < policy.back_grace_s)

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
