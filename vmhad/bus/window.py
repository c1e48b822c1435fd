# SPDX-License-Identifier: Apache-2.0
"""Which beats count, and how old they are: values in, a value out.

**Again.** Of one run of an agent only what is newer by count and by uptime counts. Another run counts when it was sent
later than the newest known, by the host's own clock; a run or boot that was followed by another never comes back. What
was sent farther from our wall time than the replay window is passed on as refused: it says nothing of life, and never
takes the place of a run whose clock is right. So what was recorded on the bus can be played as life only to an engine
that has not heard the host since, and only within the replay window; every engine listens from its start on.

**Old.** The boot clocks of two hosts have no common zero. The least of (arrival - uptime) over the last minute stands
for it, so that a beat that waited in the broker is as old as it is, and a step of the host's wall clock changes
nothing. That it is the least of a minute and not of all time is for clocks that are slewed: a rate that is corrected by
hundreds of ppm for weeks, or by percents for seconds, leaves an old least behind, and a host that beats would look
silent. The bound: a beat looks younger than it is by no more than the least lateness among the beats of that minute; a
host's very first one by its own lateness, until the next that comes in time. Neither is more than bus.names.EXPIRES_S,
and what an engine itself stood still with beats already in its hands.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from vmhad.kernel.beat import Beat, HeardBeat

REPLAY_WINDOW_S = 60.0
# The least lateness is kept for the current and the last span of this length.
SPAN_S = 30.0
# No message survives anywhere for so long; after such a silence the least lateness is learnt anew.
FORGET_S = 600.0
# A second copy of one of the newest beats came by another broker, or twice by one.
DOUBLED_COUNTS = 10
RETIRED_MAX = 256
BOOTS_KEPT = 2


class Dropped(StrEnum):
    """Why a beat does not count. DOUBLED happens where brokers are healthy, too."""

    DOUBLED = "it was heard before"
    REPLAYED = "it is older than what was heard before"


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest beat of one run."""

    boot: str
    run: str
    count: int
    uptime_s: float
    sent_at: float

    def is_run_of(self, beat: Beat) -> bool:
        return (self.boot, self.run) == (beat.boot, beat.run)


@dataclass(slots=True)
class _Pace:
    """One boot's least of (arrival - uptime)."""

    least: float
    before: float
    since: float
    heard_at: float

    @classmethod
    def begin(cls, gap: float, arrived: float) -> _Pace:
        return cls(gap, gap, arrived, arrived)

    def take(self, gap: float, arrived: float) -> float:
        """The least now. A span ends only by a beat: the first ones after a silence are held to those before it."""
        if arrived - self.heard_at > FORGET_S:
            self.least = self.before = gap
            self.since = arrived
        elif arrived - self.since > SPAN_S:
            self.before, self.least, self.since = self.least, gap, arrived
        else:
            self.least = min(self.least, gap)
        self.heard_at = arrived
        return min(self.least, self.before)


@dataclass(slots=True)
class _Host:
    """right: the newest of the run whose clock is within the window, its sent_at that of the newest beat within it.
    doubtful: the newest of a run whose clock never was."""

    right: _Newest | None = None
    doubtful: _Newest | None = None
    retired: dict[tuple[str, str], None] = field(default_factory=dict)
    paces: dict[str, _Pace] = field(default_factory=dict)

    def retire(self, old: _Newest, boot: str) -> None:
        self.retired[old.boot, old.run] = None
        if old.boot != boot:
            self.retired[old.boot, ""] = None
        while len(self.retired) > RETIRED_MAX:
            del self.retired[next(iter(self.retired))]

    def is_retired(self, beat: Beat) -> bool:
        return (beat.boot, beat.run) in self.retired or (beat.boot, "") in self.retired

    def pace_of(self, beat: Beat, arrived: float) -> float:
        gap = arrived - beat.uptime_s
        pace = self.paces.get(beat.boot)
        if pace is None:
            pace = self.paces[beat.boot] = _Pace.begin(gap, arrived)
            kept = (beat.boot, self.right.boot if self.right else "")
            for boot in [one for one in self.paces if one not in kept][: len(self.paces) - BOOTS_KEPT]:
                del self.paces[boot]
        return pace.take(gap, arrived)


class Window:
    """One engine's memory of what it heard, per host. The caller bounds the hosts."""

    def __init__(self, replay_window_s: float = REPLAY_WINDOW_S) -> None:
        self._replay_window_s = replay_window_s
        self._hosts: dict[str, _Host] = {}

    def take(self, beat: Beat, arrived: float, wall: float) -> HeardBeat | Dropped:
        """arrived: by the engine's own clock, which never jumps. wall: the engine's Unix time, for the window only."""
        host = self._hosts.setdefault(beat.host, _Host())
        off_s = abs(wall - beat.sent_at)
        is_right = off_s <= self._replay_window_s
        dropped = _against(host, beat)
        if dropped is not None:
            return dropped
        newest, right = _Newest(beat.boot, beat.run, beat.count, beat.uptime_s, beat.sent_at), host.right
        if is_right:
            if right is not None and not right.is_run_of(beat):
                host.retire(right, beat.boot)
            host.right = newest
        elif right is not None and right.is_run_of(beat):
            # A clock that was an hour ahead for a moment must not lock the host's next run out for an hour.
            host.right = replace(newest, sent_at=right.sent_at)
        else:
            host.doubtful = newest
        at = beat.uptime_s + host.pace_of(beat, arrived)
        return HeardBeat(beat, at, "" if is_right else f"its clock is {off_s:.0f} s off ours")


def _against(host: _Host, beat: Beat) -> Dropped | None:
    """Why the beat does not count, None if it does."""
    if host.is_retired(beat):
        return Dropped.REPLAYED
    for known in (host.right, host.doubtful):
        if known is not None and known.is_run_of(beat):
            if beat.count > known.count and beat.uptime_s > known.uptime_s:
                break
            return Dropped.DOUBLED if known.count - beat.count < DOUBLED_COUNTS else Dropped.REPLAYED
    right = host.right
    if right is not None and not right.is_run_of(beat) and beat.sent_at <= right.sent_at:
        return Dropped.REPLAYED
    return None
