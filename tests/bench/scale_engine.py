# SPDX-License-Identifier: Apache-2.0
"""The engine's side of the benchmark of beats, a process of its own whose CPU is what is measured.

The engine that is shipped, with the real drivers of beats and nudges, a journal in a file and all segments its own.
What it asks Nova and the BMCs is answered in the process: every nova-compute up, every chassis on, no VM anywhere. Ages
are told by the machine's boot clock, which the agents of the benchmark share, and not by what the driver says; how far
the driver is off is measured too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
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
from vmhad.drivers.store.sqlite import SqliteStore  # noqa: E402
from vmhad.drivers.watch.bmc_power import BmcPowerWatch  # noqa: E402
from vmhad.drivers.watch.nova_services import NovaServicesWatch  # noqa: E402
from vmhad.drivers.workers import ThreadWorkers  # noqa: E402
from vmhad.engine.loop import Engine  # noqa: E402
from vmhad.engine.timeline import Line  # noqa: E402
from vmhad.kernel.beat import HeardBeat, Plane  # noqa: E402
from vmhad.kernel.cloud import ComputeService  # noqa: E402
from vmhad.kernel.policy import Policy  # noqa: E402
from vmhad.kernel.signal import Reading  # noqa: E402
from vmhad.kernel.topology import Host, Segment  # noqa: E402
from vmhad.ports import Beats, Nudge, Nudges, Refused  # noqa: E402

LEASE_S = 15.0


@dataclass
class Phase:
    """What was measured between two times of the boot clock."""

    name: str
    begins: float
    ends: float
    cpu_s: float = 0.0
    beats: int = 0
    nudges: int = 0
    ticks: int = 0
    longest_tick_s: float = 0.0
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
            "oldest_beat_s": ages[-1] if ages else 0.0,
            "median_beat_s": ages[len(ages) // 2] if ages else 0.0,
            "age_off_max_s": self.age_off_s,
            "nudges": self.nudges,
            "oldest_nudge_s": self.oldest_nudge_s,
            "ticks": self.ticks,
            "longest_tick_s": self.longest_tick_s,
        }


@dataclass
class Scale:
    """Where the engine reads beats and nudges, what comes is measured and passed on. counts: the newest of each host; a
    beat that is never read, for a newer one came before the next tick or it was lost, is a gap in them."""

    beats: Beats
    nudges: Nudges
    offset_s: float
    phase: Phase = field(default_factory=lambda: Phase("before", 0.0, 0.0))
    counts: dict[str, int] = field(default_factory=dict)
    gaps: int = 0
    servers: set[str] = field(default_factory=set)

    def read_beats(self) -> Iterable[HeardBeat]:
        heard, now = list(self.beats.read()), boot_s()
        for one in heard:
            beat, age_s = one.beat, now - one.beat.uptime_s
            self.gaps += beat.count - self.counts.get(beat.host, beat.count - 1) - 1
            self.counts[beat.host] = beat.count
            self.phase.beats += 1
            self.phase.ages.append(age_s)
            self.phase.age_off_s = max(self.phase.age_off_s, abs(one.at - self.offset_s - beat.uptime_s))
        return heard

    def read_nudges(self) -> Iterable[Nudge]:
        nudges, now = list(self.nudges.read()), boot_s()
        for nudge in nudges:
            self.servers.add(nudge.server)
            self.phase.nudges += 1
            self.phase.oldest_nudge_s = max(self.phase.oldest_nudge_s, now - sent_at(nudge.server))
        return nudges


class Port:
    """One of the two that the engine reads."""

    def __init__(self, read: Any) -> None:
        self.read = read


class CalmNova:
    """Every nova-compute is up and beats every ten seconds, but for those of the hosts that died: they are up and beat
    no more. No VM is anywhere, and nothing may be changed. deaths: host -> when, by the boot clock."""

    def __init__(self, hosts: Sequence[str], deaths: Mapping[str, float]) -> None:
        self._hosts, self._deaths = hosts, deaths

    def services(self) -> tuple[ComputeService, ...]:
        now = boot_s()
        moved = {host: str(int(min(now, self._deaths.get(host, now)) / 10.0)) for host in self._hosts}
        return tuple(ComputeService(host, True, True, "", False, moved[host]) for host in self._hosts)

    def fallen(self, host: str) -> tuple[()]:
        return ()

    def stopped_lately(self, within_s: float) -> tuple[()]:
        return ()

    def __getattr__(self, name: str) -> Any:
        def refuse(*args: object) -> None:
            raise Refused(f"{name} is not answered here")

        return refuse


class CalmPower:
    """Every chassis is on, and stays so."""

    def read(self, host: str = "") -> tuple[Reading, str]:
        return Reading.ON, "on"

    def close(self) -> None:
        """As a session of a BMC's; there is none."""

    def off(self, host: str) -> None:
        raise Refused("no host is switched off here")

    on = off


class Alone:
    """The only engine there is."""

    def beat(self) -> None:
        """To nobody."""

    def should_own(self, segment: str) -> bool:
        return True


def segments(hosts: int) -> list[Segment]:
    members: dict[str, list[Host]] = {}
    for number in range(hosts):
        planes = {plane: f"192.0.2.{number % 250}" for plane in Plane}
        members.setdefault(segment_name(number), []).append(Host(host_name(number), {"rack": "r"}, planes))
    return [Segment(name, tuple(some)) for name, some in sorted(members.items())]


def run(engine: Engine, clock: SystemClock, scale: Scale, phase: Phase) -> None:
    """As vmhad-engine does."""
    while boot_s() < phase.begins:
        clock.wait(min(engine.tick(), max(0.0, phase.begins - boot_s())))
    scale.phase, cpu_s = phase, time.process_time()
    while boot_s() < phase.ends:
        began = boot_s()
        wait_s = engine.tick()
        phase.ticks += 1
        phase.longest_tick_s = max(phase.longest_tick_s, boot_s() - began)
        clock.wait(min(wait_s, max(0.0, phase.ends - boot_s())))
    phase.cpu_s = time.process_time() - cpu_s


def measure(
    url: str, hosts: int, phases: list[tuple[str, float, float]], deaths: list[tuple[int, float]]
) -> dict[str, Any]:
    clock, here, lines = SystemClock(), segments(hosts), list[Line]()
    names = [host for segment in here for host in segment.names]
    beats = AgentBeats([read_url(url)], [one.name for one in here], names, {"k1": MASTER}, clock)
    nudges = NovaNotifications(url, wake=clock.wake)
    scale = Scale(beats, nudges, clock.now() - boot_s())
    nova, power, workers = (
        CalmNova(names, {host_name(number): at for number, at in deaths}),
        CalmPower(),
        ThreadWorkers(32, clock),
    )
    watches = [NovaServicesWatch(nova, names, clock), BmcPowerWatch(lambda host: power, names, clock)]
    done = []
    with tempfile.TemporaryDirectory() as where:
        engine = Engine(
            segments=here,
            policies={one.name: Policy() for one in here},
            store=SqliteStore(f"{where}/journal.sqlite"),
            clock=clock,
            workers=workers,
            watches=watches,
            beats=[Port(scale.read_beats)],
            nudges=[Port(scale.read_nudges)],
            compute=nova,
            power=power,
            membership=Alone(),
            me="bench",
            lease_s=LEASE_S,
            call_timeout_s=5.0,
            timeline=lines.append,
        )
        started = [*watches, beats, nudges]
        try:
            for one in started:
                one.start()
            for name, begins, ends in phases:
                run(engine, clock, scale, phase := Phase(name, begins, ends))
                done.append(phase.told())
        finally:
            for one in started:
                one.stop()
            workers.stop()
    verdicts = [(line.subject, line.word, line.at - scale.offset_s, line.text) for line in lines]
    return {
        "phases": done,
        "hosts_heard": len(scale.counts),
        "counts_not_read": scale.gaps,
        "notifications_heard": len(scale.servers),
        "verdicts": verdicts,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("told", help="the arguments of measure, as JSON")
    print(json.dumps(measure(**json.loads(parser.parse_args().told))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
