# SPDX-License-Identifier: Apache-2.0
"""Is this host dead? A table; the first row that fits decides, and says why.

Two eyes only: what its BMC says of its power, and what Nova says of its nova-compute. Rules the table keeps: UNKNOWN is
never OFF; a bad reading counts when it was read twice, apart; Nova's silence alone is a death only where the segment's
policy says so (silent_means = fence), because with these two eyes a dead nova-compute and a hung host look the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from math import inf

from vmhad.kernel.evidence import Evidence
from vmhad.kernel.policy import Policy, SilentMeans
from vmhad.kernel.signal import Channel, Reading
from vmhad.kernel.verdict import Judgement, Verdict

# Looked up once: a member of an enumeration costs ten times what another name does.
NOVA, POWER = Channel.NOVA, Channel.POWER
ON, OFF, UP, DOWN = Reading.ON, Reading.OFF, Reading.UP, Reading.DOWN
# A time is added up here and subtracted there: this much is left for the difference.
ROUNDING_S = 0.001


class Power(StrEnum):
    ON = "on"
    OFF_ONCE = "off, not borne out"
    OFF = "off"
    UNKNOWN = "unknown"


class Nova(StrEnum):
    UP = "up"
    DOWN_ONCE = "down, read once"
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Row:
    """An empty set matches everything."""

    power: frozenset[Power]
    nova: frozenset[Nova]
    silent_means: frozenset[SilentMeans]
    judgement: Judgement
    because: str
    positive: bool = False


def _row(power: str, nova: str, silent: str, judgement: Judgement, because: str, positive: bool = False) -> Row:
    return Row(
        frozenset(Power[word] for word in power.split()),
        frozenset(Nova[word] for word in nova.split()),
        frozenset(SilentMeans(word) for word in silent.split()),
        judgement,
        because,
        positive,
    )


TABLE: tuple[Row, ...] = (
    _row("OFF", "", "", Judgement.FAILED, "its power was read OFF twice and nothing of it lives since", True),
    _row(
        "OFF_ONCE", "", "", Judgement.SUSPECT, "its power was read OFF, but not twice and borne out yet"
    ),
    _row("ON", "DOWN", "fence", Judgement.FAILED, "nova-compute is silent, power is on, and silent_means = fence"),
    _row(
        "ON",
        "DOWN",
        "hold",
        Judgement.SUSPECT,
        "nova-compute is silent, power is on: dead service or hung host, these eyes cannot tell; silent_means = hold",
    ),
    _row(
        "UNKNOWN",
        "DOWN",
        "fence",
        Judgement.FAILED,
        "nova-compute is silent, its BMC does not say, and silent_means = fence",
    ),
    _row(
        "UNKNOWN",
        "DOWN",
        "hold",
        Judgement.SUSPECT,
        "nova-compute is silent and its BMC does not say whether it is off; silent_means = hold",
    ),
    _row("ON UNKNOWN", "DOWN_ONCE", "", Judgement.SUSPECT, "Nova reads its nova-compute down, once; it is read again"),
    _row("ON", "UP", "", Judgement.HEALTHY, "nova-compute reports and its power is on"),
    _row(
        "UNKNOWN",
        "UP",
        "",
        Judgement.DEGRADED,
        "nova-compute reports, but its BMC does not: a death could not be proven",
    ),
    _row("ON UNKNOWN", "UNKNOWN", "", Judgement.BLIND, "Nova's view of it cannot be read"),
)


# Where nothing is UNKNOWN (another detail is another reason, and a stale reading becomes fresh by being repeated), and
# nothing was read only once.
_OUTLASTING = frozenset(
    number
    for number, row in enumerate(TABLE, start=1)
    if row.power == {Power.OFF} or (row.power == {Power.ON} and row.nova in ({Nova.UP}, {Nova.DOWN}))
)


def judge(evidence: Evidence, policy: Policy, now: float) -> Verdict:
    """The verdict of the first row that fits what was read within policy.channel_stale_s before now."""
    power = _power(evidence, policy, now)
    nova = _nova(evidence, policy, now)
    verdict = _plain(power, nova, policy.silent_means)
    because = verdict.because
    if power is Power.UNKNOWN and nova is not Nova.UP:
        because += f" (power: {evidence.detail(POWER)})"
    if verdict.judgement is Judgement.BLIND:
        because += f" (nova: {evidence.detail(NOVA)})"
    return verdict if because == verdict.because else replace(verdict, because=because)


def stands_until(evidence: Evidence, policy: Policy, now: float) -> float:
    """Until when the verdict of this evidence stands: then a reading becomes stale, or the quiet of a host that is read
    OFF becomes long enough."""
    moments = [seen.at + policy.channel_stale_s for seen in evidence.seen.values()]
    power = evidence.seen.get(POWER)
    if power is not None and power.reading is OFF:
        moments.append(max(evidence.heard_at, evidence.listened_from) + policy.already_off_quiet_s)
    return min((moment for moment in moments if moment > now - ROUNDING_S), default=inf) - ROUNDING_S


def outlasts_repeats(verdict: Verdict) -> bool:
    """It stands as long, too, if all that comes meanwhile says again what was said before and nothing of its host is
    heard: it rests on readings that are fresh, and that were read as often as they had to be."""
    return verdict.row in _OUTLASTING


def first_row(power: Power, nova: Nova, silent_means: SilentMeans) -> tuple[int, Row]:
    for number, row in enumerate(TABLE, start=1):
        if _matches(row, power, nova, silent_means):
            return number, row
    raise AssertionError(f"the table has no row for power {power}, nova {nova}, silent_means {silent_means}")


def _matches(row: Row, power: Power, nova: Nova, silent_means: SilentMeans) -> bool:
    return (
        (not row.power or power in row.power)
        and (not row.nova or nova in row.nova)
        and (not row.silent_means or silent_means in row.silent_means)
    )


@cache
def _plain(power: Power, nova: Nova, silent_means: SilentMeans) -> Verdict:
    """The verdict before the details of what was read are added to its reason."""
    number, row = first_row(power, nova, silent_means)
    return Verdict(row.judgement, row.because, number, row.positive)


def _power(evidence: Evidence, policy: Policy, now: float) -> Power:
    reading = evidence.reading(POWER, now, policy.channel_stale_s)
    if reading is OFF:
        return Power.OFF if _off_counts(evidence, policy, now) else Power.OFF_ONCE
    return Power.ON if reading is ON else Power.UNKNOWN


def _off_counts(evidence: Evidence, policy: Policy, now: float) -> bool:
    """Read twice, apart, with no sign of life since; a BMC that we never read ON, or that lied before, must be borne
    out by Nova's silence or by a long quiet."""
    seen = evidence.seen[POWER]
    if not evidence.is_repeated(POWER, policy.readings_apart_s) or seen.first_at <= evidence.life_at:
        return False
    return is_borne_out(evidence, policy, now)


def is_borne_out(evidence: Evidence, policy: Policy, now: float) -> bool:
    """Whether the OFF of its BMC may be believed as soon as it was read twice."""
    if evidence.bmc_trusted and evidence.quiet_s(now) >= policy.already_off_quiet_s:
        return True
    if evidence.reading(NOVA, now, policy.channel_stale_s) is DOWN:
        return True
    seen = evidence.seen.get(POWER)
    if seen is None or seen.reading is not OFF:
        return False
    return seen.at - max(seen.first_at, evidence.heard_at) >= policy.untrusted_off_quiet_s


def _nova(evidence: Evidence, policy: Policy, now: float) -> Nova:
    reading = evidence.reading(NOVA, now, policy.channel_stale_s)
    if reading is DOWN:
        return Nova.DOWN if evidence.is_repeated(NOVA, policy.readings_apart_s) else Nova.DOWN_ONCE
    return Nova.UP if reading is UP else Nova.UNKNOWN
