# SPDX-License-Identifier: Apache-2.0
"""The engine's side of the benchmark of beats, a process of its own whose CPU is what is measured.

It is what the engine has to hear: the drivers of beats and nudges with their threads, and a loop that waits and reads
as the engine's does. Ages are told by the machine's boot clock, which the agents of the benchmark share, and not by
what the driver says; how far the driver is off is measured too.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import vmhad.cmd  # noqa: E402, F401  before all else: it chooses threads
from tests.bench.scale_agents import MASTER, boot_s, host_name, segment_name, sent_at  # noqa: E402
from vmhad.bus.transport_url import read_url  # noqa: E402
from vmhad.drivers.beats.agent_beats import AgentBeats  # noqa: E402
from vmhad.drivers.clock import SystemClock  # noqa: E402
from vmhad.drivers.nudges.nova_notifications import NovaNotifications  # noqa: E402
from vmhad.kernel.beat import HeardBeat  # noqa: E402
from vmhad.ports import Beats, Nudges  # noqa: E402

TICK_MAX_S, TICK_MIN_S = 1.0, 0.02
READY = "listening"


@dataclass
class Phase:
    """What was measured between two times of the boot clock."""

    name: str
    begins: float
    ends: float
    cpu_s: float = 0.0
    beats: int = 0
    nudges: int = 0
    wakes: int = 0
    oldest_s: float = 0.0
    oldest_nudge_s: float = 0.0
    age_off_s: float = 0.0
    ages: list[float] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        ages = sorted(self.ages)
        return {
            "phase": self.name,
            "seconds": self.ends - self.begins,
            "beats": self.beats,
            "cpu_s": self.cpu_s,
            "cpu_s_per_1000_beats": 1000 * self.cpu_s / self.beats if self.beats else math.nan,
            "oldest_beat_s": self.oldest_s,
            "median_beat_s": ages[len(ages) // 2] if ages else math.nan,
            "age_off_max_s": self.age_off_s,
            "nudges": self.nudges,
            "oldest_nudge_s": self.oldest_nudge_s,
            "ticks": self.wakes,
        }


class Loop:
    """Ticks as the engine does. counts: the newest count of each host; a beat that is never read is a gap in them."""

    def __init__(self, clock: SystemClock, beats: Beats, nudges: Nudges) -> None:
        self._clock, self._beats, self._nudges = clock, beats, nudges
        self._offset_s = clock.now() - boot_s()
        self.counts: dict[str, int] = {}
        self.first_counts: dict[str, int] = {}
        self.gaps = 0
        self.servers: set[str] = set()

    def run(self, phase: Phase) -> None:
        while boot_s() < phase.begins:
            self._tick(Phase("before", 0.0, 0.0))
            self._clock.wait(TICK_MIN_S)
        cpu_s = time.process_time()
        while boot_s() < phase.ends:
            self._tick(phase)
            time.sleep(TICK_MIN_S)
            self._clock.wait(TICK_MAX_S - TICK_MIN_S)
        phase.cpu_s = time.process_time() - cpu_s

    def _tick(self, phase: Phase) -> None:
        phase.wakes += 1
        heard, nudges, now = list(self._beats.read()), list(self._nudges.read()), boot_s()
        for one in heard:
            self._beat(one, now, phase)
        for nudge in nudges:
            self.servers.add(nudge.server)
            phase.nudges += 1
            phase.oldest_nudge_s = max(phase.oldest_nudge_s, now - sent_at(nudge.server))

    def _beat(self, heard: HeardBeat, now: float, phase: Phase) -> None:
        beat = heard.beat
        assert not heard.refused
        before = self.counts.get(beat.host)
        if before is None:
            self.first_counts[beat.host] = beat.count
        else:
            self.gaps += beat.count - before - 1
        self.counts[beat.host] = beat.count
        age_s = now - beat.uptime_s
        phase.beats += 1
        phase.ages.append(age_s)
        phase.oldest_s = max(phase.oldest_s, age_s)
        phase.age_off_s = max(phase.age_off_s, abs(heard.at - self._offset_s - beat.uptime_s))


def measure(url: str, hosts: int, phases: list[tuple[str, float, float]]) -> dict[str, Any]:
    clock = SystemClock()
    names = [host_name(number) for number in range(hosts)]
    segments = sorted({segment_name(number) for number in range(hosts)})
    beats = AgentBeats([read_url(url)], segments, names, {"k1": MASTER}, clock)
    nudges = NovaNotifications(url, wake=clock.wake)
    beats.start()
    nudges.start()
    try:
        loop = Loop(clock, beats, nudges)
        told = []
        for name, begins, ends in phases:
            phase = Phase(name, begins, ends)
            loop.run(phase)
            told.append(phase.told())
    finally:
        beats.stop()
        nudges.stop()
    coalesced = {
        "hosts_heard": len(loop.counts),
        "counts_not_read": loop.gaps,
        "notifications_heard": len(loop.servers),
    }
    return {"phases": told} | coalesced


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("told", help="the arguments of measure, as JSON")
    print(json.dumps(measure(**json.loads(parser.parse_args().told))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
