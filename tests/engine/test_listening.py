# SPDX-License-Identifier: Apache-2.0
"""The ear of the engine: what silence means while others are heard or not, and that no verdict is ever out of date."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.test_evidence_store import ListedWatch, well
from vmhad.engine.evidence_store import EvidenceStore
from vmhad.engine.listening import Listening
from vmhad.guards.hosts.judge import judge
from vmhad.kernel.beat import Beat, HeardBeat, PeerView, Plane, StorageBeat
from vmhad.kernel.policy import CutOff, Policy, SilentMeans
from vmhad.kernel.signal import Channel, Reading
from vmhad.kernel.topology import Host, Segment
from vmhad.kernel.verdict import Verdict

HOSTS = ("h1", "h2", "h3", "h4")
PLANES = {plane.value: "an address" for plane in Plane}
SEGMENT = Segment("a", tuple(Host(name, {"site": "s1" if name < "h3" else "s2"}, PLANES) for name in HOSTS))
START_S = 1_800_000_000.0
UP, DOWN, UNKNOWN = Reading.UP, Reading.DOWN, Reading.UNKNOWN


class AnyWatch(ListedWatch):
    def look(self, hosts: Iterable[str]) -> None:
        assert set(hosts) <= set(HOSTS)


@dataclass
class ListedBeats:
    """ports.Beats of which the beats are handed in."""

    coming: list[HeardBeat] = field(default_factory=list)

    def read(self) -> Iterable[HeardBeat]:
        came, self.coming = self.coming, []
        return came


@dataclass
class Bench:
    """One store with all its eyes, and what each agent says of its peers."""

    policy: Policy = Policy()
    nova: AnyWatch = field(default_factory=AnyWatch)
    power: AnyWatch = field(default_factory=AnyWatch)
    beats: ListedBeats = field(default_factory=ListedBeats)
    now: float = START_S
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        listening = Listening((self.beats,), (SEGMENT,), {"a": self.policy})
        self.store = EvidenceStore([self.nova, self.power], [], listening)

    def say(self, host: str, planes: Reading = UP, still: Iterable[str] = (), **of: object) -> None:
        """still: the peers whose records it has seen stand still for ten seconds."""
        self.counts[host] = self.counts.get(host, 0) + 1
        views = {}
        for peer in HOSTS:
            if peer != host:
                read = StorageBeat("boot", 1, 10.0) if peer in still else StorageBeat("boot", self.counts[host], 0.3)
                seen = DOWN if peer in still else planes
                views[peer] = PeerView(dict.fromkeys(Plane, seen), {"ceph": read})
        said = Beat(host, "boot", "run", self.counts[host], self.now, self.now, peers=views,
                    storages={"ceph": UP}, **of)  # type: ignore[arg-type]
        self.beats.coming.append(HeardBeat(said, self.now))

    def eyes(self) -> None:
        for host in HOSTS:
            on, up = well(host, self.now)
            self.power.put(on)
            self.nova.put(up)

    def judged(self) -> dict[str, Verdict]:
        self.store.gather(self.now)
        return dict(self.store.judged(SEGMENT, self.policy, self.now).verdicts)

    def passes(self, seconds: int, silent: Iterable[str] = ()) -> dict[str, Verdict]:
        """Second by second; the others say that the silent are seen nowhere."""
        verdicts: dict[str, Verdict] = {}
        for _ in range(seconds):
            self.now += 1.0
            self.eyes()
            for host in HOSTS:
                if host not in silent:
                    self.say(host, still=silent)
            verdicts = self.judged()
        return verdicts


def judgements(verdicts: dict[str, Verdict]) -> list[str]:
    return [verdicts[host].judgement.value for host in HOSTS]


def test_one_silent_host_dies_in_eight_seconds() -> None:
    bench = Bench()
    assert judgements(bench.passes(10)) == ["healthy"] * 4
    said = [judgements(bench.passes(1, silent=["h1"])) for _ in range(8)]
    assert [of_h1 for of_h1, *_ in said] == [*["degraded"] * 3, *["suspect"] * 4, "failed"]
    assert {one for _, *others in said for one in others} == {"healthy"}


def test_when_nobody_is_heard_it_is_the_bus() -> None:
    bench = Bench()
    bench.passes(10)
    assert judgements(bench.passes(30, silent=HOSTS)) == ["healthy"] * 4
    assert judgements(bench.passes(1, silent=["h1"])) == ["blind", "healthy", "healthy", "healthy"]
    assert judgements(bench.passes(4, silent=["h1"]))[0] == "suspect"


def test_a_silent_site_of_which_nothing_is_seen_is_not_judged() -> None:
    bench = Bench()
    bench.passes(10)
    for _ in range(20):
        assert judgements(bench.passes(1, silent=["h3", "h4"]))[2:] != ["failed", "failed"]
    assert judgements(bench.passes(1, silent=["h3", "h4"])) == ["healthy", "healthy", "blind", "blind"]


def test_a_witness_that_paused_is_heard_again_first() -> None:
    """Its first words are of a time that it missed: its peers seem lost. Said steadily it is what it sees."""
    bench = Bench()
    bench.passes(10)
    bench.passes(5, silent=["h1", "h2"])
    for after_s in (1, 2, 3, 4):
        bench.now += 1.0
        bench.eyes()
        bench.say("h1", still=["h3", "h4"])
        bench.say("h2", still=["h3", "h4"])
        bench.say("h3", planes=UNKNOWN)
        bench.say("h4", planes=UNKNOWN)
        assert (judgements(bench.judged())[2:] == ["healthy", "healthy"]) == (after_s < 3)


# One round: time passes, some hosts beat, each with a word on its peers, and the segment is judged.
WORDS = st.tuples(st.sampled_from(HOSTS), st.sampled_from((UP, UP, DOWN, UNKNOWN)), st.sets(st.sampled_from(HOSTS)),
                  st.sampled_from(({}, {}, {"leaving": True}, {"services": {"nova-compute": DOWN}})))  # fmt: skip
ROUNDS = st.lists(
    st.tuples(st.sampled_from((0.1, 0.5, 1.0, 1.0, 1.0, 2.5, 4.0, 9.0)), st.booleans(), st.booleans(),
              st.lists(WORDS, max_size=3)),
    min_size=1, max_size=30,
)  # fmt: skip
POLICIES = (
    Policy(),
    Policy(silent_means=SilentMeans.FENCE, isolated=CutOff.FENCE, isolated_after_s=10.0, storage_lost=CutOff.FENCE),
)


@settings(max_examples=200, deadline=None)
@given(rounds=ROUNDS, policy=st.sampled_from(POLICIES))
def test_what_was_spared_is_judged_as_anew(rounds: list, policy: Policy) -> None:
    """Judging only where a beat said something new, or a time has come, misses nothing."""
    bench = Bench(policy)
    for passes_s, eyes_look, all_beat, words in rounds:
        bench.now += passes_s
        if eyes_look:
            bench.eyes()
        for host in HOSTS if all_beat else ():
            bench.say(host)
        for host, planes, still, of in words:
            bench.say(host, planes, still, **of)
        spared = bench.judged()
        anew = {host: judge(bench.store.listening.heed(bench.store.of(host)), policy, bench.now) for host in HOSTS}
        assert spared == anew
        looks_at = bench.store.judged(SEGMENT, policy, bench.now).look_at
        assert looks_at >= bench.now


def test_beats_that_say_nothing_new_cost_no_judgement_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a calm minute there are far fewer judgements than beats."""
    bench = Bench()
    bench.passes(10)
    counted = []
    monkeypatch.setattr("vmhad.engine.evidence_store.judge", lambda *of: counted.append(of) or judge(*of))
    bench.passes(60)
    assert len(counted) <= 60 * len(HOSTS) / 2
    assert Channel.AGENT in bench.store.of("h1").seen
