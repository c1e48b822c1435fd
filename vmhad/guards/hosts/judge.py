# SPDX-License-Identifier: Apache-2.0
"""Is this host dead? A table; the first row that fits decides, and says why.

The columns stand in columns.py. Rules the table keeps, whatever the policy: UNKNOWN is never OFF; a host whose storage
beat moves, or that a peer sees, is never called dead for its silence (of one that writes a dump of its panicked kernel
they see the kernel that writes it); where only nova-compute is silent and another eye sees life, the service is
repaired and no VM is touched, and once that eye is shut the silence of nova-compute tells no more than before; where
Nova and the BMC are the only eyes, or its peers watch one plane and no record, silence alone is a death only where the
segment's policy says so (silent_means = fence), for a dead service, a host that is cut off and one that hangs look the
same; a site of which nothing is seen is not judged at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from math import inf

from vmhad.guards.hosts.columns import (
    Agent,
    Dump,
    Lasts,
    Nova,
    Own,
    Peers,
    Power,
    Storage,
    changes_at,
    columns,
)
from vmhad.kernel.evidence import Evidence
from vmhad.kernel.policy import Policy, SilentMeans
from vmhad.kernel.signal import Channel, Reading
from vmhad.kernel.verdict import Ailment, Judgement, Verdict

# Looked up once: a member of an enumeration costs ten times what another name does.
NOVA, POWER, DISKS, HARDWARE = Channel.NOVA, Channel.POWER, Channel.DISKS, Channel.HARDWARE
OFF = Reading.OFF
# A time is added up here and subtracted there: this much is left for the difference.
ROUNDING_S = 0.001
OF_COLUMN = (Power, Nova, Agent, Storage, Peers, Own, Lasts, Dump, SilentMeans)
NAMES = ("power", "nova", "agent", "storage", "peers", "own", "lasts", "dump", "silent")


@dataclass(frozen=True, slots=True)
class Row:
    """fits: the words of each column that fit, in the order of OF_COLUMN; an empty set matches everything."""

    fits: tuple[frozenset[StrEnum], ...]
    judgement: Judgement
    because: str
    positive: bool = False
    unfit: bool = False
    ailment: Ailment | None = None
    lives: bool = False

    @property
    def power(self) -> frozenset[StrEnum]:
        return self.fits[0]

    @property
    def nova(self) -> frozenset[StrEnum]:
        return self.fits[1]


def _row(judgement: str, because: str, *flags: str, **words: str) -> Row:
    """words: column -> the words that fit."""
    fits = tuple(
        frozenset(kind[word.upper()] for word in words.get(name, "").split())
        for name, kind in zip(NAMES, OF_COLUMN, strict=True)
    )
    ailment = next((one for one in Ailment if one.value in flags), None)
    is_heard = words.get("agent") == "UP"
    return Row(fits, Judgement(judgement), because, "positive" in flags, "unfit" in flags, ailment, is_heard)


# Its peers reach it on the management plane.
REACHED = "SEEN NO_STORAGE NO_TENANT"
NOWHERE = "UNSEEN ALONE_UNSEEN"
ON_OR_UNKNOWN = "ON UNKNOWN"

DEAD: tuple[Row, ...] = (
    _row("failed", "its power was read OFF twice and nothing of it lives since", "positive", power="OFF"),
    _row(
        "failed",
        "its agent is silent, its storage beat has stopped, and its peers see it on no plane",
        "positive", nova="UP DOWN_ONCE DOWN UNKNOWN", agent="SILENT", storage="STILL", peers=NOWHERE,
    ),
    _row(
        "failed",
        "its agent is silent and its peers see it on no plane; it has no record on a shared storage",
        nova="UP DOWN_ONCE DOWN UNKNOWN", agent="SILENT", storage="NONE", peers="UNSEEN",
    ),
    _row(
        "failed",
        "its agent is silent, its peers do not see it on the only plane that they watch, and silent_means = fence",
        nova="UP DOWN_ONCE DOWN UNKNOWN", agent="SILENT", storage="NONE", peers="ALONE_UNSEEN", silent="FENCE",
    ),
    _row("suspect", "its power was read OFF, but not twice and borne out yet", power="OFF_ONCE"),
    _row("blind", "its whole site is silent, nobody elsewhere sees anything of it: nothing is touched", agent="AWAY"),
    _row(
        "failed",
        "its kernel panicked: its crash kernel says that it writes a dump",
        nova="UP DOWN_ONCE DOWN UNKNOWN", agent="LATE SILENT", storage="NONE STILL", dump="SAID",
    ),
)  # fmt: skip

# Its agent is heard: it lives. What of it does not work, the worst first.
HEARD: tuple[Row, ...] = (
    _row(
        "failed",
        "it alone does not reach the storage of its VMs, for longer than isolated_after_s, and storage_lost = fence",
        agent="UP", own="NO_DISKS", storage="STILL", lasts="FENCE",
    ),
    _row(
        "suspect",
        "it alone does not reach the storage of its VMs, for longer than isolated_after_s; storage_lost = leave",
        agent="UP", own="NO_DISKS", storage="STILL", lasts="LEAVE",
    ),
    _row(
        "suspect",
        "it alone does not reach the storage of its VMs: if that lasts, storage_lost decides",
        agent="UP", own="NO_DISKS", storage="STILL",
    ),
    _row("degraded", "it does not reach a shared storage", "unfit", agent="UP", own="NO_DISKS"),
    _row(
        "degraded",
        "its libvirtd does not run: its guests go on, and none can be started",
        "unfit", agent="UP", own="NO_LIBVIRTD",
    ),
    _row(
        "degraded",
        "its tenant plane is lost: it is to be drained by live migration, not fenced",
        "unfit", "tenant_plane", agent="UP", peers="NO_TENANT",
    ),
    _row(
        "degraded",
        "nova-compute alone is silent, its agent is heard: the service is to be repaired, no VM is touched",
        "unfit", agent="UP", nova="DOWN_ONCE DOWN ALONE",
    ),
    _row(
        "degraded",
        "its agent says that nova-compute does not run: the service is to be repaired, no VM is touched",
        "unfit", agent="UP", own="NO_COMPUTE",
    ),
    _row(
        "degraded",
        "its agent is heard; its hardware complains",
        "unfit", "hardware", agent="UP", own="COMPLAINS",
    ),
    _row(
        "degraded",
        "its agent is heard, but its record on the shared storage does not move",
        "unfit", agent="UP", storage="STILL",
    ),
    _row(
        "degraded",
        "its agent is heard, but its peers do not see it on every plane",
        "unfit", agent="UP", peers=f"NO_STORAGE NO_MANAGEMENT UNSURE {NOWHERE}",
    ),
    _row("degraded", "its agent is heard; Nova's view of it cannot be read", agent="UP", nova="UNKNOWN"),
)  # fmt: skip

# Its agent is not heard, though others are. Is it the agent, its way to us, or the host?
SILENT: tuple[Row, ...] = (
    _row(
        "degraded",
        "its agent alone is silent: its peers see the host, and its nova-compute does not read down",
        agent="LATE SILENT", nova="UP HEARD UNKNOWN", peers=REACHED,
    ),
    _row("degraded", "its agent is silent, and its nova-compute was heard since", agent="LATE SILENT", nova="HEARD"),
    _row("suspect", "its agent is silent: every other eye looks now", agent="LATE"),
    _row("blind", "its agent was not heard yet: it is listened for first", agent="EARLY", nova="UP UNKNOWN"),
    _row("suspect", "nova-compute is silent; its agent was not heard yet and is listened for first", agent="EARLY"),
    _row(
        "degraded",
        "its agent is not heard, but it beats on the storage and its peers see the host: its way to the bus is lost",
        agent="SILENT", storage="MOVES", peers=REACHED,
    ),
    _row(
        "failed",
        "its kernel answers its peers, and nothing else of it, for longer than isolated_after_s; isolated = fence",
        agent="SILENT", peers=REACHED, lasts="FENCE",
    ),
    _row(
        "suspect",
        "its kernel answers its peers, and nothing else of it, for longer than isolated_after_s; isolated = leave",
        agent="SILENT", peers=REACHED, lasts="LEAVE",
    ),
    _row(
        "suspect",
        "its kernel answers its peers, but neither its agent nor its nova-compute is heard: it hangs",
        agent="SILENT", peers=REACHED,
    ),
    _row(
        "failed",
        "it lives, cut off from management for longer than isolated_after_s, and isolated = fence",
        agent="SILENT", peers="ELSEWHERE NO_MANAGEMENT", lasts="FENCE",
    ),
    _row(
        "failed",
        "it beats on the storage, cut off from everything else for longer than isolated_after_s; isolated = fence",
        agent="SILENT", storage="MOVES", lasts="FENCE",
    ),
    _row(
        "suspect",
        "it lives, cut off from management for longer than isolated_after_s; isolated = leave",
        agent="SILENT", peers="ELSEWHERE NO_MANAGEMENT", lasts="LEAVE",
    ),
    _row(
        "suspect",
        "it beats on the storage, cut off from everything else for longer than isolated_after_s; isolated = leave",
        agent="SILENT", storage="MOVES", lasts="LEAVE",
    ),
    _row(
        "suspect",
        "it is cut off from management and lives: its peers see it on another plane",
        agent="SILENT", peers="ELSEWHERE NO_MANAGEMENT",
    ),
    _row("suspect", "it is cut off and lives: it beats on the storage", agent="SILENT", storage="MOVES"),
    _row(
        "suspect",
        "its agent is silent, its peers do not see it on the only plane that they watch: dead and cut off look the "
        "same there; silent_means = hold",
        agent="SILENT", storage="NONE", peers="ALONE_UNSEEN",
    ),
    _row(
        "suspect",
        "its agent is silent, and nobody can tell whether it lives",
        agent="SILENT", nova="UP UNKNOWN",
    ),
)  # fmt: skip

# What Nova and the BMC say, where no agent does.
PLAIN: tuple[Row, ...] = (
    _row(
        "degraded",
        "nova-compute is silent, but it beats on the storage: the service is to be repaired, no VM is touched",
        nova="DOWN_ONCE DOWN ALONE", storage="MOVES",
    ),
    _row(
        "degraded",
        "nova-compute is silent, but its peers see the host: the service is to be repaired, no VM is touched",
        nova="DOWN_ONCE DOWN ALONE", peers=f"{REACHED} ELSEWHERE NO_MANAGEMENT",
    ),
    _row(
        "failed",
        "its agent had left, its nova-compute is silent, and its peers see it on no plane",
        nova="DOWN ALONE", agent="UNKNOWN", storage="NONE STILL", peers="UNSEEN",
    ),
    _row(
        "failed",
        "its agent had left, its nova-compute is silent, its record has stopped, and its peers do not see it",
        nova="DOWN ALONE", agent="UNKNOWN", storage="STILL", peers="ALONE_UNSEEN",
    ),
    _row(
        "suspect",
        "nova-compute was silent alone before its agent could be heard no more: nobody can tell whether it lives",
        power=ON_OR_UNKNOWN, nova="ALONE",
    ),
    _row(
        "failed",
        "nova-compute is silent, power is on, and silent_means = fence",
        power="ON", nova="DOWN", silent="FENCE",
    ),
    _row(
        "suspect",
        "nova-compute is silent, power is on: dead service or hung host, these eyes cannot tell; silent_means = hold",
        power="ON", nova="DOWN", silent="HOLD",
    ),
    _row(
        "failed",
        "nova-compute is silent, its BMC does not say, and silent_means = fence",
        power="UNKNOWN", nova="DOWN", silent="FENCE",
    ),
    _row(
        "suspect",
        "nova-compute is silent and its BMC does not say whether it is off; silent_means = hold",
        power="UNKNOWN", nova="DOWN", silent="HOLD",
    ),
    _row(
        "suspect", "Nova reads its nova-compute down, once; it is read again",
        power=ON_OR_UNKNOWN, nova="DOWN_ONCE",
    ),
    _row("healthy", "nova-compute reports and its power is on", power="ON", nova="UP HEARD"),
    _row(
        "degraded",
        "nova-compute reports, but its BMC does not: a death could not be proven",
        power="UNKNOWN", nova="UP HEARD",
    ),
    _row("blind", "Nova's view of it cannot be read", power=ON_OR_UNKNOWN, nova="UNKNOWN"),
)  # fmt: skip

TABLE: tuple[Row, ...] = (*DEAD, *HEARD, *SILENT, *PLAIN)

# Where nothing is UNKNOWN (another detail is another reason, and a stale reading becomes fresh by being repeated),
# nothing was read only once. Another word of a peer is another reading.
_OUTLASTING = frozenset(
    number
    for number, row in enumerate(TABLE, start=1)
    if row.power == {Power.OFF} or (row in PLAIN and row.power == {Power.ON} and Nova.UNKNOWN not in row.nova)
)


def judge(evidence: Evidence, policy: Policy, now: float) -> Verdict:
    """The verdict of the first row that fits what was read within policy.channel_stale_s before now."""
    words = columns(evidence, policy, now)
    verdict = _plain(*words, policy.silent_means)
    because = verdict.because
    if words[0] is Power.UNKNOWN and words[1] is not Nova.UP:
        because += f" (power: {evidence.detail(POWER)})"
    if verdict.judgement is Judgement.BLIND and words[2] not in (Agent.AWAY, Agent.EARLY):
        because += f" (nova: {evidence.detail(NOVA)})"
    if words[5] is Own.NO_DISKS:
        because += f" ({evidence.detail(DISKS)})"
    if words[5] is Own.COMPLAINS:
        because += f": {evidence.detail(HARDWARE)}"
    return verdict if because == verdict.because else replace(verdict, because=because)


def stands_until(evidence: Evidence, policy: Policy, now: float) -> float:
    """Until when the verdict of this evidence stands: then a reading becomes stale, the quiet of a host that is read
    OFF becomes long enough, or a silence of its agent or its peers."""
    moments = [
        seen.at + policy.channel_stale_s
        for channel, seen in evidence.seen.items()
        if channel is NOVA or channel is POWER
    ]
    power = evidence.seen.get(POWER)
    if power is not None and power.reading is OFF:
        moments.append(max(evidence.heard_at, evidence.listened_from) + policy.already_off_quiet_s)
    if evidence.agent_from:
        moments += changes_at(evidence, policy)
    return min((moment for moment in moments if moment > now - ROUNDING_S), default=inf) - ROUNDING_S


def outlasts_repeats(verdict: Verdict) -> bool:
    """It stands as long, too, if all that comes meanwhile says again what was said before and nothing of its host is
    heard: it rests on readings that are fresh, and that were read as often as they had to be."""
    return verdict.row in _OUTLASTING


def first_row(words: Sequence[StrEnum]) -> tuple[int, Row]:
    """words: one of each column, in the order of OF_COLUMN."""
    for number, row in enumerate(TABLE, start=1):
        if all(not fits or word in fits for fits, word in zip(row.fits, words, strict=True)):
            return number, row
    raise AssertionError(f"the table has no row for {dict(zip(NAMES, words, strict=True))}")


@cache
def _plain(*words: StrEnum) -> Verdict:
    """The verdict before the details of what was read are added to its reason."""
    number, row = first_row(words)
    is_off = row.power == {Power.OFF}
    return Verdict(row.judgement, row.because, number, row.positive, is_off, row.unfit, row.ailment, row.lives)
