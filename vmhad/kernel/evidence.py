# SPDX-License-Identifier: Apache-2.0
"""What is known now of one host. Soft: kept in memory, read anew by every new owner."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import NamedTuple

from vmhad.kernel.signal import Channel, Reading, Signal

# Looked up once: a member of an enumeration costs ten times what another name does, and these are asked all the time.
NOVA, POWER, AGENT, STORAGE = Channel.NOVA, Channel.POWER, Channel.AGENT, Channel.STORAGE
ON, OFF, UP, DOWN, UNKNOWN = Reading.ON, Reading.OFF, Reading.UP, Reading.DOWN, Reading.UNKNOWN
# Two heartbeats of a nova-compute are 10 s apart by default; this long without one is a silence.
SILENCE_S = 25.0
# A new engine hears every living nova-compute within a heartbeat and a reading or two: what it hears for the first time
# later than that was silent before, and Nova's DOWN is a silence whoever listened.
FIRST_HEARD_S = 15.0
# A beat, or a record that a peer saw move, belies an OFF when it came this much later: its time is not exact.
BELIES_AFTER_S = 2.0


class Seen(NamedTuple):
    """An unbroken run of one reading on one channel. first_at, at: when its first and its newest reading began. Like
    Evidence a tuple: every reading that counts makes both anew."""

    reading: Reading
    first_at: float
    at: float
    detail: str = ""


class Evidence(NamedTuple):
    """life_at: the newest sign of life on any channel, 0.0 if none was seen yet. beat_at: the newest that its system
    gave, whatever its BMC says of its power.

    bmc_trusted: its BMC was read ON by us, and no heartbeat has belied an OFF of it since. heard_at: the newest
    heartbeat of its nova-compute that we saw move, 0.0 if none yet; listened_from: when we began to listen. back_at:
    the newest heartbeat that ended a silence, 0.0 if none did.

    agent_from: from when on the silence of its agent counts, 0.0 where no agent is to be expected, inf while next to
    none is heard: then it is the bus. away: its whole site is silent, and nobody elsewhere sees anything of it.
    peers_until: until when what its peers see of it stands, if none of them beats again; peers_at: when the newest of
    them spoke. off_from: when its BMC began to say OFF, whatever was heard since; 0.0 if it does not.
    """

    host: str
    seen: Mapping[Channel, Seen] = MappingProxyType({})
    life_at: float = 0.0
    bmc_trusted: bool = False
    heard_at: float = 0.0
    listened_from: float = 0.0
    back_at: float = 0.0
    agent_from: float = 0.0
    away: bool = False
    peers_until: float = inf
    peers_at: float = 0.0
    off_from: float = 0.0
    beat_at: float = 0.0

    def quiet_s(self, now: float) -> float:
        """How long its nova-compute was not heard, as far as we listened; 0.0 where we never did."""
        since = max(self.heard_at, self.listened_from)
        return now - since if since else 0.0

    def agent_silent_s(self, now: float) -> float:
        """How long its agent was not heard, as far as its silence counts; below 0.0 while it does not."""
        seen = self.seen.get(AGENT)
        return now - max(seen.at if seen else 0.0, self.agent_from)

    def reading(self, channel: Channel, now: float, stale_s: float) -> Reading:
        """The channel's reading; UNKNOWN where it was never read, or not for stale_s."""
        seen = self.seen.get(channel)
        if seen is None or now - seen.at > stale_s:
            return UNKNOWN
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


def goes_on(evidence: Evidence, signal: Signal) -> bool:
    """The host is up as before: of a row of such signals that end less than SILENCE_S after the heartbeat in the
    evidence, only the newest heartbeat and what was read after it make a difference. Heartbeats of a host that is read
    OFF count one by one: each may belie its BMC."""
    nova, power = evidence.seen.get(NOVA), evidence.seen.get(POWER)
    return (
        signal.channel is NOVA
        and signal.reading is UP
        and nova is not None
        and nova.reading is UP
        and nova.at <= signal.at < evidence.heard_at + SILENCE_S
        and (power is None or power.reading is not OFF)
    )


def weigh(evidence: Evidence, signal: Signal) -> Evidence:
    """The evidence after one signal. A late signal changes no reading, but a sign of life counts whenever it comes.

    A sign of life breaks the run of OFF readings that began before it: what is read after it must stand on its own.
    """
    seen = evidence.seen
    old = seen.get(signal.channel)
    beats = signal.life and signal.channel is NOVA
    is_belied = (beats and _belies(evidence)) or (signal.life and _is_belied_by_beat(evidence, signal))
    trusted = (evidence.bmc_trusted or signal.reading is ON) and not is_belied
    if old is None or signal.at >= old.at:
        first_at = old.first_at if old is not None and old.reading is signal.reading else signal.at
        seen = {**seen, signal.channel: Seen(signal.reading, first_at, signal.at, signal.detail)}
    life_at = max(evidence.life_at, signal.at) if signal.life else evidence.life_at
    beat_at = max(evidence.beat_at, signal.at) if signal.life and signal.channel is not POWER else evidence.beat_at
    power = seen.get(POWER)
    if power is not None and power.reading is OFF and power.first_at <= life_at:
        seen = {**seen, POWER: power._replace(first_at=power.at)}
    heard_at, listened_from, back_at = evidence.heard_at, evidence.listened_from, evidence.back_at
    if signal.channel is NOVA:
        listened_from = listened_from or signal.at
        if beats and signal.at > heard_at:
            was_down = old is not None and old.reading is DOWN
            enough_s = SILENCE_S if heard_at else FIRST_HEARD_S
            back_at = signal.at if was_down or evidence.quiet_s(signal.at) >= enough_s else back_at
            heard_at = signal.at
    return Evidence(
        evidence.host, seen, life_at, trusted, heard_at, listened_from, back_at,
        evidence.agent_from, evidence.away, evidence.peers_until, evidence.peers_at, _off_from(evidence, power),
        beat_at,
    )  # fmt: skip


def _belies(evidence: Evidence) -> bool:
    """A heartbeat sent after its BMC said OFF: already the read before this one was later than that OFF."""
    power, nova = evidence.seen.get(POWER), evidence.seen.get(NOVA)
    return power is not None and power.reading is OFF and nova is not None and nova.at > power.first_at


def _is_belied_by_beat(evidence: Evidence, signal: Signal) -> bool:
    """A beat, on the bus or on a storage, that was made well after its BMC said OFF."""
    power = evidence.seen.get(POWER)
    of_agent = signal.channel is AGENT or signal.channel is STORAGE
    is_off = power is not None and power.reading is OFF
    return of_agent and is_off and signal.at > evidence.off_from + BELIES_AFTER_S


def _off_from(evidence: Evidence, power: Seen | None) -> float:
    if power is None or power.reading is not OFF:
        return 0.0
    return evidence.off_from or power.first_at
