# SPDX-License-Identifier: Apache-2.0
"""The table of judge.py is total, every row is reached, and no row breaks the rules that no configuration may break."""

from itertools import product

import pytest

from vmhad.guards.hosts.judge import TABLE, Nova, Power, first_row, judge
from vmhad.kernel.evidence import Evidence, weigh
from vmhad.kernel.policy import Policy, SilentMeans
from vmhad.kernel.signal import Channel, Reading, Signal
from vmhad.kernel.verdict import Judgement

EVERY = list(product(Power, Nova, SilentMeans))


def test_every_combination_has_a_row() -> None:
    for power, nova, silent_means in EVERY:
        first_row(power, nova, silent_means)


def test_every_row_decides_something() -> None:
    assert {first_row(*one)[0] for one in EVERY} == set(range(1, len(TABLE) + 1))


@pytest.mark.parametrize(("power", "nova", "silent_means"), EVERY)
def test_failed_needs_seen_death_or_an_explicit_policy(power: Power, nova: Nova, silent_means: SilentMeans) -> None:
    row = first_row(power, nova, silent_means)[1]
    if row.judgement is Judgement.FAILED and power is not Power.OFF:
        assert nova is Nova.DOWN and silent_means is SilentMeans.FENCE
    assert row.positive == (power is Power.OFF)


@pytest.mark.parametrize(("power", "nova", "silent_means"), EVERY)
def test_unknown_alone_is_never_death(power: Power, nova: Nova, silent_means: SilentMeans) -> None:
    if power is Power.UNKNOWN and nova is Nova.UNKNOWN:
        assert first_row(power, nova, silent_means)[1].judgement is Judgement.BLIND


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
