# SPDX-License-Identifier: Apache-2.0
"""The table of judge.py is total, every row is reached, and no row breaks the rules that no configuration may break."""

from itertools import product

import pytest

from vmhad.guards.hosts.columns import SEEN, Agent, Dump, Lasts, Nova, Own, Peers, Power, Storage
from vmhad.guards.hosts.judge import TABLE, Row, first_row, judge
from vmhad.kernel.evidence import Evidence, weigh
from vmhad.kernel.policy import CutOff, Policy, SilentMeans
from vmhad.kernel.signal import Channel, Reading, Signal
from vmhad.kernel.verdict import Judgement

EVERY = list(product(Power, Nova, Agent, Storage, Peers, Own, Lasts, Dump, SilentMeans))
REPAIRED = (Judgement.DEGRADED, Judgement.HEALTHY)


@pytest.fixture(scope="module")
def decided() -> list[tuple[tuple, int, Row]]:
    return [(one, *first_row(one)) for one in EVERY]


def test_every_combination_has_a_row_and_every_row_decides_something(decided: list) -> None:
    assert {number for _, number, _ in decided} == set(range(1, len(TABLE) + 1))


def test_failed_needs_seen_death_or_an_explicit_policy(decided: list) -> None:
    for (power, nova, agent, storage, peers, _, lasts, dump, silent_means), _, row in decided:
        if row.judgement is Judgement.FAILED and power is not Power.OFF:
            by_nova = nova is Nova.DOWN and silent_means is SilentMeans.FENCE
            unseen = peers is Peers.UNSEEN and storage in (Storage.STILL, Storage.NONE)
            # One plane and no record are one eye: its silence is a death only where the policy says so.
            unseen |= peers is Peers.ALONE_UNSEEN and storage is Storage.STILL
            unseen |= peers is Peers.ALONE_UNSEEN and storage is Storage.NONE and silent_means is SilentMeans.FENCE
            by_all = agent is Agent.SILENT and unseen
            after_it_left = agent is Agent.UNKNOWN and nova in (Nova.DOWN, Nova.ALONE) and unseen
            panicked = dump is Dump.SAID and agent in (Agent.LATE, Agent.SILENT) and storage is not Storage.MOVES
            assert by_nova or by_all or after_it_left or panicked or lasts is Lasts.FENCE
        assert not row.positive or power is Power.OFF or storage is Storage.STILL


def test_a_host_that_beats_on_the_storage_or_is_seen_is_not_dead_for_its_silence(decided: list) -> None:
    for (power, _, _, storage, peers, _, lasts, dump, _), _, row in decided:
        # The crash kernel that writes a dump answers the peers, too.
        lives = storage is Storage.MOVES or (peers in SEEN and dump is Dump.NONE)
        if power is not Power.OFF and lasts is not Lasts.FENCE and lives:
            assert row.judgement is not Judgement.FAILED


def test_nova_compute_alone_silent_is_a_service_to_be_repaired(decided: list) -> None:
    for (power, nova, agent, storage, peers, own, *_), _, row in decided:
        lives = agent is Agent.UP or agent is Agent.UNKNOWN and (storage is Storage.MOVES or peers in SEEN)
        if lives and nova in (Nova.DOWN, Nova.DOWN_ONCE, Nova.ALONE) and power in (Power.ON, Power.UNKNOWN):
            assert row.judgement in REPAIRED or own is Own.NO_DISKS


def test_a_site_of_which_nothing_is_seen_is_not_judged(decided: list) -> None:
    for (power, _, agent, *_), _, row in decided:
        if agent is Agent.AWAY and power not in (Power.OFF, Power.OFF_ONCE):
            assert row.judgement is Judgement.BLIND


def test_unknown_alone_is_never_death(decided: list) -> None:
    for (power, nova, agent, storage, peers, own, *_), _, row in decided:
        eyes = (power, nova, agent, storage, peers, own)
        none = (Power.UNKNOWN, Nova.UNKNOWN, Agent.UNKNOWN, Storage.UNKNOWN, Peers.NONE, Own.FINE)
        if eyes == none:
            assert row.judgement is Judgement.BLIND


def test_clouds_without_agents_are_judged_by_the_rows_that_name_none(decided: list) -> None:
    for (_, _, agent, storage, peers, own, lasts, dump, _), _, row in decided:
        without = (Agent.NONE, Storage.NONE, Peers.NONE, Own.FINE, Lasts.SHORT, Dump.NONE)
        if (agent, storage, peers, own, lasts, dump) == without:
            assert not any(row.fits[2:8])


def test_a_dump_alone_makes_nobody_dead_whose_agent_is_heard_or_whose_silence_means_nothing(decided: list) -> None:
    silent = (Agent.LATE, Agent.SILENT)
    without = {one: row for one, _, row in decided if one[7] is Dump.NONE}
    for one, _, row in decided:
        if one[2] not in silent or one[3] is Storage.MOVES:
            assert row is without[(*one[:7], Dump.NONE, one[8])]


def seen(*signals: Signal) -> Evidence:
    evidence = Evidence("h")
    for signal in signals:
        evidence = weigh(evidence, signal)
    return evidence


def power(reading: Reading, at: float) -> Signal:
    return Signal("h", Channel.POWER, reading, at, life=reading is Reading.ON)


def nova(reading: Reading, at: float, life: bool = False) -> Signal:
    return Signal("h", Channel.NOVA, reading, at, life=life)


ALIVE = (power(Reading.ON, 100), nova(Reading.UP, 100, life=True))


def verdict_at(now: float, *signals: Signal) -> Judgement:
    return judge(seen(*ALIVE, *signals), Policy(), now).judgement


def test_off_counts_when_read_twice_apart() -> None:
    assert verdict_at(102, power(Reading.OFF, 102)) is Judgement.SUSPECT
    assert verdict_at(102.7, power(Reading.OFF, 102), power(Reading.OFF, 102.7)) is Judgement.SUSPECT
    assert verdict_at(102.9, power(Reading.OFF, 102), power(Reading.OFF, 102.9)) is Judgement.FAILED


def test_a_heartbeat_after_off_vetoes_it() -> None:
    offs = [power(Reading.OFF, 102), power(Reading.OFF, 103)]
    assert verdict_at(104, *offs, nova(Reading.UP, 104, life=True)) is Judgement.SUSPECT


def test_a_bmc_that_was_caught_lying_needs_a_long_quiet() -> None:
    signals = [power(Reading.OFF, 102), nova(Reading.UP, 103), nova(Reading.UP, 105, life=True)]
    signals += [power(Reading.OFF, 106), power(Reading.OFF, 108), nova(Reading.UP, 108)]
    assert verdict_at(108, *signals) is Judgement.SUSPECT
    later = [power(Reading.OFF, at) for at in range(110, 134, 2)]
    assert verdict_at(132, *signals, *later) is Judgement.FAILED


def test_stale_channels_are_unknown_not_their_last_value() -> None:
    assert verdict_at(200) is Judgement.BLIND
    assert verdict_at(200, power(Reading.OFF, 102), power(Reading.OFF, 104)) is Judgement.BLIND


# With an agent.

PLANES = (Channel.MANAGEMENT, Channel.STORAGE_PLANE, Channel.TENANT)


def with_agent(now: float, last_beat: float, *signals: Signal, policy: Policy = Policy()) -> Judgement:  # noqa: B008
    """The verdict of a host whose agent was heard last at a time, and of which these signals came after it."""
    fresh = (power(Reading.ON, now), nova(Reading.UP, now))
    evidence = seen(*ALIVE, said(Channel.AGENT, Reading.UP, last_beat), *fresh, *signals)
    return judge(evidence._replace(agent_from=90.0), policy, now).judgement


def said(channel: Channel, reading: Reading, at: float) -> Signal:
    return Signal("h", channel, reading, at, life=reading is Reading.UP)


def unseen(at: float) -> list[Signal]:
    return [said(plane, Reading.DOWN, at) for plane in PLANES]


def stopped(at: float) -> Signal:
    return said(Channel.STORAGE, Reading.DOWN, at)


@pytest.mark.parametrize(
    ("silent_s", "judgement"),
    [
        (3.9, Judgement.DEGRADED), (4.0, Judgement.SUSPECT), (4.1, Judgement.SUSPECT),
        (7.9, Judgement.SUSPECT), (8.0, Judgement.FAILED), (8.1, Judgement.FAILED),
    ],
)  # fmt: skip
def test_suspect_and_failed_at_their_moments(silent_s: float, judgement: Judgement) -> None:
    now = 110.0
    assert with_agent(now, now - silent_s, *unseen(now), stopped(now)) is judgement


def test_one_plane_that_nobody_can_tell_of_is_not_unseen() -> None:
    assert with_agent(110, 100, *unseen(109)[:2], said(Channel.TENANT, Reading.UNKNOWN, 109)) is Judgement.SUSPECT


def test_a_moving_record_and_then_a_stopped_one() -> None:
    moves = said(Channel.STORAGE, Reading.UP, 109)
    assert with_agent(110, 100, *unseen(110), moves) is Judgement.SUSPECT
    assert with_agent(110, 100, *unseen(110), moves, stopped(110)) is Judgement.FAILED


@pytest.mark.parametrize(("cut_off_s", "means", "judgement"), [
    (119.9, CutOff.FENCE, Judgement.SUSPECT), (120.0, CutOff.FENCE, Judgement.FAILED),
    (120.1, CutOff.FENCE, Judgement.FAILED), (500.0, CutOff.LEAVE, Judgement.SUSPECT),
])  # fmt: skip
def test_a_host_cut_off_is_given_up_at_its_moment(cut_off_s: float, means: CutOff, judgement: Judgement) -> None:
    now = 700.0
    moves = said(Channel.STORAGE, Reading.UP, now - 1)
    assert with_agent(now, now - cut_off_s, moves, policy=Policy(isolated=means)) is judgement


def test_a_beat_after_its_proof_is_a_sign_of_life_and_a_late_one_is_not() -> None:
    off = seen(*ALIVE, power(Reading.OFF, 102), power(Reading.OFF, 103))
    assert weigh(off, said(Channel.AGENT, Reading.UP, 104)).life_at == 104
    assert weigh(off, said(Channel.STORAGE, Reading.UP, 104)).life_at == 104
    assert weigh(off, said(Channel.AGENT, Reading.UP, 101)).life_at < 102


def test_a_bmc_that_a_beat_belies_is_not_trusted() -> None:
    off = seen(*ALIVE, power(Reading.OFF, 102))
    assert weigh(off, said(Channel.AGENT, Reading.UP, 104.0)).bmc_trusted
    assert not weigh(off, said(Channel.AGENT, Reading.UP, 104.1)).bmc_trusted


# Messages of its crash kernel.


def dump(first: float, newest: float) -> list[Signal]:
    return [Signal("h", Channel.DUMP, Reading.UP, at) for at in (first, newest)]


@pytest.mark.parametrize(
    ("first", "newest", "judgement"),
    [
        # Its agent was heard last at 105.
        (107.1, 107.1, Judgement.FAILED), (107.0, 109.0, Judgement.DEGRADED), (100.0, 109.0, Judgement.DEGRADED),
    ],
)  # fmt: skip
def test_a_dump_that_began_after_its_last_beat_is_death(first: float, newest: float, judgement: Judgement) -> None:
    seen_by_peers = [said(plane, Reading.UP, 109)._replace(life=False) for plane in PLANES[:1]]
    assert with_agent(110, 105, stopped(109), *seen_by_peers, *dump(first, newest)) is judgement


@pytest.mark.parametrize(("old_s", "judgement"), [(59.9, Judgement.FAILED), (60.0, Judgement.DEGRADED)])
def test_a_panic_is_known_for_a_while_after_the_newest_message(old_s: float, judgement: Judgement) -> None:
    now = 200.0
    assert with_agent(now, 105, said(Channel.MANAGEMENT, Reading.UP, 199), *dump(120, now - old_s)) is judgement


def test_a_message_of_a_host_whose_agent_is_heard_changes_nothing() -> None:
    assert with_agent(110, 109, *dump(80, 110)) is with_agent(110, 109)
    assert with_agent(110, 106.1, *dump(109, 110)) is with_agent(110, 106.1)


def test_a_heartbeat_or_a_record_after_the_first_message_belies_it() -> None:
    beaten = nova(Reading.UP, 109.5, life=True)
    assert with_agent(110, 105, stopped(109), *dump(108, 110)) is Judgement.FAILED
    assert with_agent(110, 105, stopped(109), *dump(108, 110), beaten) is not Judgement.FAILED
    assert with_agent(110, 105, said(Channel.STORAGE, Reading.UP, 107), *dump(108, 110)) is not Judgement.FAILED
