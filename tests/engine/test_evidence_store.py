# SPDX-License-Identifier: Apache-2.0
"""The evidence store saves work; it never answers otherwise than weighing and judging everything anew would."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmhad.drivers.watch.gathered import Gathered
from vmhad.engine.evidence_store import EvidenceStore
from vmhad.guards.hosts.judge import judge
from vmhad.kernel.evidence import Evidence, weigh
from vmhad.kernel.policy import Policy, SilentMeans
from vmhad.kernel.signal import Channel, Reading, Signal
from vmhad.kernel.topology import Host, Segment
from vmhad.kernel.verdict import Judgement

HOSTS = ("h1", "h2", "h3")
SEGMENTS = (Segment("a", (Host("h1"), Host("h2"))), Segment("b", (Host("h3"),)))
START_S = 1_800_000_000.0
# Just before, at and just after what the policy and the evidence count with, and what lies between.
STEPS_S = (0.0, 0.1, 0.3, 0.8, 1.0, 2.0, 5.0, 10.0, 14.9, 14.905, 14.925, 15.0, 15.001, 15.1, 24.9, 25.0, 25.1, 60.0)
SEEN = (
    (Channel.POWER, Reading.ON, True), (Channel.POWER, Reading.ON, True), (Channel.POWER, Reading.ON, False),
    (Channel.POWER, Reading.OFF, False), (Channel.POWER, Reading.UNKNOWN, False),
    (Channel.NOVA, Reading.UP, False), (Channel.NOVA, Reading.UP, False), (Channel.NOVA, Reading.UP, True),
    (Channel.NOVA, Reading.DOWN, False), (Channel.NOVA, Reading.DOWN, True), (Channel.NOVA, Reading.UNKNOWN, False),
)  # fmt: skip
POLICIES = (
    Policy(),
    Policy(silent_means=SilentMeans.FENCE),
    Policy(already_off_quiet_s=12.0, untrusted_off_quiet_s=5.0, readings_apart_s=2.0),
)


@dataclass
class ListedWatch:
    """ports.Watch of one channel whose signals are handed in."""

    gathered: Gathered = field(default_factory=lambda: Gathered(1000))

    def put(self, *signals: Signal) -> None:
        for signal in signals:
            self.gathered.put(signal)

    def read(self) -> Iterable[Signal]:
        return self.gathered.read()

    def latest(self, host: str) -> Signal | None:
        return self.gathered.latest(host)

    def look(self, hosts: Iterable[str]) -> None:
        assert set(hosts) <= set(HOSTS)


# One round: time passes, a few signals began some time before it (so that late ones come too), and segments are judged.
# A calm host is the common case, so a round may say of all hosts that they are well, or that they are heard, too.
SIGNALS = st.lists(
    st.tuples(st.sampled_from(HOSTS), st.sampled_from(SEEN), st.sampled_from((0.0, 0.1, 2.0, 16.0))), max_size=4
)
ALL_ARE = st.sampled_from(("", "well", "heard"))
ROUNDS = st.lists(
    st.tuples(st.sampled_from(STEPS_S), ALL_ARE, SIGNALS, st.sampled_from((SEGMENTS, SEGMENTS[:1], ()))),
    min_size=1,
    max_size=25,
)


@settings(max_examples=400, deadline=None)
@given(rounds=ROUNDS, policy=st.sampled_from(POLICIES))
def test_remembered_verdicts_are_the_plain_ones(rounds: list, policy: Policy) -> None:
    watches = {Channel.NOVA: ListedWatch(), Channel.POWER: ListedWatch()}
    store = EvidenceStore(list(watches.values()), [])
    plain = {name: Evidence(name) for name in HOSTS}
    now = START_S
    for passes_s, all_are, seen, asked in rounds:
        now += passes_s
        signals = [signal for host in HOSTS for signal in well(host, now, all_are == "heard")] if all_are else []
        signals += [Signal(host, channel, reading, now - s, f"{s}", life) for host, (channel, reading, life), s in seen]
        for signal in sorted(signals, key=lambda one: one.channel is Channel.POWER):
            plain[signal.host] = weigh(plain[signal.host], signal)
            watches[signal.channel].put(signal)
        store.gather()
        for segment in asked:
            compare(store, plain, segment, policy, now)
    for segment in SEGMENTS:
        compare(store, plain, segment, policy, now)
    assert {name: store.of(name) for name in HOSTS} == plain


def well(host: str, now: float, heard: bool = False) -> list[Signal]:
    power = Signal(host, Channel.POWER, Reading.ON, now - 0.1, "on", life=True)
    return [power, Signal(host, Channel.NOVA, Reading.UP, now - 0.08, "up", heard)]


def compare(store: EvidenceStore, plain: dict[str, Evidence], segment: Segment, policy: Policy, now: float) -> None:
    judged = store.judged(segment, policy, now)
    verdicts = {name: judge(plain[name], policy, now) for name in segment.names}
    assert judged.verdicts == verdicts
    assert judged.unwell == {name for name, one in verdicts.items() if one.judgement is not Judgement.HEALTHY}
    of_segment = {name: plain[name] for name in segment.names}
    quiet = {name for name, one in of_segment.items() if one.quiet_s(now) > policy.heartbeat_quiet_s}
    quiet |= {name for name, one in of_segment.items() if one.listened_from and not one.heard_at}
    back = {name for name, one in of_segment.items() if now - one.back_at < policy.back_grace_s}
    assert store.quiet(segment, policy, now) == quiet
    assert store.back(segment, policy, now) == back
    if int(now) % 2:
        powers = {name: one.seen[Channel.POWER] for name, one in of_segment.items() if Channel.POWER in one.seen}
        assert store.powers(segment) == powers


def test_a_verdict_in_a_kept_case_stays_as_it_was() -> None:
    power, nova = ListedWatch(), ListedWatch()
    store = EvidenceStore([nova, power], [])
    is_on, is_up = well("h3", START_S)
    power.put(is_on)
    nova.put(is_up)
    store.gather()
    kept = store.judged(SEGMENTS[1], Policy(), START_S).verdicts
    power.put(Signal("h3", Channel.POWER, Reading.OFF, START_S + 1.0))
    store.gather()
    assert store.judged(SEGMENTS[1], Policy(), START_S + 1.0).verdicts["h3"].judgement is Judgement.SUSPECT
    assert kept["h3"].judgement is Judgement.HEALTHY


def test_a_verdict_is_said_when_it_becomes_another(caplog: pytest.LogCaptureFixture) -> None:
    power, nova = ListedWatch(), ListedWatch()
    store = EvidenceStore([nova, power], [])
    is_on, is_up = well("h3", START_S)
    power.put(is_on)
    nova.put(is_up)
    with caplog.at_level(logging.INFO):
        store.gather()
        store.judged(SEGMENTS[1], Policy(), START_S)
        for at in (1.0, 2.0):
            power.put(Signal("h3", Channel.POWER, Reading.UNKNOWN, START_S + at, "no answer"))
            store.gather()
            store.judged(SEGMENTS[1], Policy(), START_S + at)
    assert caplog.messages == [
        "host h3 is HEALTHY: nova-compute reports and its power is on",
        "host h3 is DEGRADED: nova-compute reports, but its BMC does not: a death could not be proven",
    ]
