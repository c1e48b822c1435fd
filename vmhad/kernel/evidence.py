# SPDX-License-Identifier: Apache-2.0
"""What is known now of one host. Soft: kept in memory, read anew by every new owner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vmhad.kernel.signal import Channel, Reading, Signal

# Two heartbeats of a nova-compute are 10 s apart by default; this long without one is a silence.
SILENCE_S = 25.0
# A new engine hears every living nova-compute within a heartbeat and a reading or two: what it hears for the first time
# later than that was silent before, and Nova's DOWN is a silence whoever listened.
FIRST_HEARD_S = 15.0


@dataclass(frozen=True, slots=True)
class Seen:
    """An unbroken run of one reading on one channel. first_at, at: when its first and its newest reading began."""

    reading: Reading
    first_at: float
    at: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """life_at: the newest sign of life on any channel, 0.0 if none was seen yet.

    bmc_trusted: its BMC was read ON by us, and no heartbeat has belied an OFF of it since. heard_at: the newest
    heartbeat of its nova-compute that we saw move, 0.0 if none yet; listened_from: when we began to listen. back_at:
    the newest heartbeat that ended a silence, 0.0 if none did.
    """

    host: str
    seen: Mapping[Channel, Seen] = field(default_factory=dict)
    life_at: float = 0.0
    bmc_trusted: bool = False
    heard_at: float = 0.0
    listened_from: float = 0.0
    back_at: float = 0.0

    def quiet_s(self, now: float) -> float:
        """How long its nova-compute was not heard, as far as we listened; 0.0 where we never did."""
        since = max(self.heard_at, self.listened_from)
        return now - since if since else 0.0

    def reading(self, channel: Channel, now: float, stale_s: float) -> Reading:
        """The channel's reading; UNKNOWN where it was never read, or not for stale_s."""
        seen = self.seen.get(channel)
        if seen is None or now - seen.at > stale_s:
            return Reading.UNKNOWN
        return seen.reading

    def is_repeated(self, channel: Channel, apart_s: float) -> bool:
        """The newest run holds two readings at least apart_s apart."""
        seen = self.seen.get(channel)
        return seen is not None and seen.at - seen.first_at >= apart_s

    def detail(self, channel: Channel) -> str:
        seen = self.seen.get(channel)
        return seen.detail if seen else "never read"


def repeats(evidence: Evidence, signal: Signal) -> bool:
    """The signal says of its channel what was said before."""
    old = evidence.seen.get(signal.channel)
    return old is not None and old.reading is signal.reading


def weigh(evidence: Evidence, signal: Signal) -> Evidence:
    """The evidence after one signal. A late signal changes no reading, but a sign of life counts whenever it comes.

    A sign of life breaks the run of OFF readings that began before it: what is read after it must stand on its own.
    """
    seen = evidence.seen
    old = seen.get(signal.channel)
    trusted = (evidence.bmc_trusted or signal.reading is Reading.ON) and not _belies(evidence, signal)
    if old is None or signal.at >= old.at:
        first_at = old.first_at if old is not None and old.reading is signal.reading else signal.at
        seen = {**seen, signal.channel: Seen(signal.reading, first_at, signal.at, signal.detail)}
    life_at = max(evidence.life_at, signal.at) if signal.life else evidence.life_at
    power = seen.get(Channel.POWER)
    if power is not None and power.reading is Reading.OFF and power.first_at <= life_at:
        seen = {**seen, Channel.POWER: replace(power, first_at=power.at)}
    heard_at, listened_from, back_at = evidence.heard_at, evidence.listened_from, evidence.back_at
    if signal.channel is Channel.NOVA:
        listened_from = listened_from or signal.at
        if signal.life and signal.at > heard_at:
            was_down = old is not None and old.reading is Reading.DOWN
            enough_s = SILENCE_S if heard_at else FIRST_HEARD_S
            back_at = signal.at if was_down or evidence.quiet_s(signal.at) >= enough_s else back_at
            heard_at = signal.at
    return Evidence(evidence.host, seen, life_at, trusted, heard_at, listened_from, back_at)


def _belies(evidence: Evidence, signal: Signal) -> bool:
    """A heartbeat sent after its BMC said OFF: already the read before this one was later than that OFF."""
    if not signal.life or signal.channel is not Channel.NOVA:
        return False
    power, nova = evidence.seen.get(Channel.POWER), evidence.seen.get(Channel.NOVA)
    return power is not None and power.reading is Reading.OFF and nova is not None and nova.at > power.first_at
