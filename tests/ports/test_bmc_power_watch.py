# SPDX-License-Identifier: Apache-2.0
"""The power watch in its threads: its pace, and what hung BMCs may cost the others. The contract of the port is
test_power_watch_contract.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from eyes import all_told
from ipmi_sim import IpmiSim, present
from rack import Rack, RackReader

from vmhad.drivers.clock import SystemClock
from vmhad.drivers.power.ipmi import Ipmi
from vmhad.drivers.watch.bmc_power import BmcPowerWatch
from vmhad.kernel.signal import Channel, Reading, Signal

ON, OFF, UNKNOWN = Reading.ON, Reading.OFF, Reading.UNKNOWN


class Watched:
    """A running watch and all it has said."""

    def __init__(self, watch: BmcPowerWatch, clock: SystemClock, hosts: Sequence[str]) -> None:
        self.watch, self.clock, self.hosts = watch, clock, hosts
        self.said: list[Signal] = []

    def gather(self) -> list[Signal]:
        self.said.extend(all_told(self.watch, self.hosts))
        return self.said

    def of(self, host: str, reading: Reading | None = None) -> list[Signal]:
        return [s for s in self.gather() if s.host == host and reading in (None, s.reading)]

    def until(self, seen: Callable[[], bool], limit_s: float = 5.0) -> None:
        deadline = time.monotonic() + limit_s
        while not seen():
            assert time.monotonic() < deadline, "not seen in time"
            time.sleep(0.005)


Start = Callable[..., Watched]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[tuple[BmcPowerWatch, Rack]] = []

    def go(rack: Rack, **options: float) -> Watched:
        clock = SystemClock()
        watch = BmcPowerWatch(rack.open, tuple(rack.power), clock, **options)  # type: ignore[arg-type]
        running.append((watch, rack))
        watch.start()
        return Watched(watch, clock, tuple(rack.power))

    yield go
    for watch, rack in running:
        rack.release.set()
        watch.stop()


def gaps(moments: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in zip(moments, moments[1:], strict=False)]


def test_every_host_is_read_at_the_pace(start: Start) -> None:
    rack = Rack([f"h{n}" for n in range(10)])
    seen = start(rack, interval_s=0.2, workers=4)
    seen.until(lambda: all(len(seen.of(host)) >= 4 for host in rack.power))
    for host, moments in rack.began.items():
        assert min(gaps(moments)) > 0.19, host
        assert max(gaps(moments)) < 0.5, host
    one = seen.of("h3")[0]
    assert (one.channel, one.reading, one.life, one.detail) == (Channel.POWER, ON, True, "power on")
    assert not rack.doubled and rack.most <= 4


def test_off_after_on_is_read_again_soon_each_time_it_begins(start: Start) -> None:
    rack = Rack(["h"])
    seen = start(rack, interval_s=0.5, again_s=0.1)
    for _ in range(2):
        seen.until(lambda: bool(seen.of("h", ON)))
        seen.said.clear()
        rack.power["h"] = OFF
        seen.until(lambda: len(seen.of("h", OFF)) >= 3)
        first, second, third = seen.of("h", OFF)[:3]
        assert second.at - first.at < 0.3 and third.at - second.at > 0.4
        rack.power["h"] = ON
        seen.said.clear()


def test_look_jumps_the_queue_and_reads_once_more(start: Start) -> None:
    rack = Rack(["a", "b"])
    seen = start(rack, interval_s=30.0, again_s=0.3)
    seen.watch.look(["b", "unknown"])
    seen.until(lambda: len(seen.of("b")) >= 2, 2.0)
    first, second = seen.of("b")[:2]
    assert 0.25 <= second.at - first.at <= 0.6
    seen.said.clear()
    time.sleep(0.5)
    assert not seen.of("b"), "twice, and then at its own pace again"


def test_hung_bmcs_do_not_delay_the_others(start: Start) -> None:
    hosts = [f"h{n}" for n in range(24)]
    rack = Rack(hosts)
    for host in hosts[:12]:
        rack.hung[host] = True
    seen = start(rack, interval_s=0.3, workers=8)
    seen.until(lambda: all(len(rack.began[host]) >= 2 for host in hosts[:12]), 20.0)
    settled = time.monotonic()
    marks = {host: len(rack.began[host]) for host in hosts}
    seen.until(lambda: time.monotonic() > settled + 2.5, 5.0)
    for host in hosts[12:]:
        assert max(gaps(rack.began[host][marks[host] - 1 :])) < 0.6, f"{host} waited for hung ones"
    assert all(len(rack.began[host]) >= 2 for host in hosts[:12]), "the hung ones are still tried"
    assert not rack.doubled and rack.most <= 8


def test_many_hosts_stay_within_the_allowed_reads(start: Start) -> None:
    rack = Rack([f"h{n}" for n in range(200)])
    seen = start(rack, interval_s=0.1, reads_per_s_max=200.0)
    began = time.monotonic()
    seen.watch.look(list(rack.power))
    time.sleep(1.5)
    count = sum(map(len, rack.began.values()))
    assert count <= 200 * (time.monotonic() - began) + 10
    assert count >= 200, "and the allowance is used"


def test_a_thousand_hosts_take_turns(start: Start) -> None:
    """Two rounds take 4 s of a machine that is not busy; whatever they take, nobody is read twice before all were."""
    rack = Rack([f"h{n}" for n in range(1000)])
    seen = start(rack)
    seen.until(lambda: all(len(moments) >= 2 for moments in rack.began.values()), 60.0)
    first_round_ends = max(moments[0] for moments in rack.began.values())
    assert sum(moments[1] < first_round_ends for moments in rack.began.values()) == 0
    assert max(len(moments) for moments in rack.began.values()) <= 3


def test_news_and_every_off_wake_the_clock(start: Start) -> None:
    rack = Rack(["h"])
    seen = start(rack, interval_s=0.1, again_s=0.1)
    seen.until(lambda: len(seen.of("h", ON)) >= 2)
    seen.clock.wait(0.0)

    def woken_within(limit_s: float) -> bool:
        began = time.monotonic()
        seen.clock.wait(limit_s)
        return time.monotonic() - began < limit_s * 0.9

    assert not woken_within(0.5), "nothing new"
    rack.power["h"] = OFF
    assert woken_within(1.0) and woken_within(1.0) and woken_within(1.0)
    assert seen.of("h", OFF)
    rack.power["h"] = ON
    seen.until(lambda: seen.of("h")[-1].reading is ON)
    seen.clock.wait(0.0)
    assert not woken_within(0.5)


def test_a_reader_that_raises_is_unknown(start: Start) -> None:
    class Broken(Rack):
        def open(self, host: str) -> RackReader:
            raise ValueError("secret")

    seen = start(Broken(["h"]), interval_s=0.1)
    seen.until(lambda: len(seen.of("h", UNKNOWN)) >= 2)
    assert "secret" not in seen.of("h")[0].detail


def test_stop_ends_threads_and_closes_readers(start: Start) -> None:
    rack = Rack(["a", "b", "c"])
    seen = start(rack, interval_s=0.05)
    seen.until(lambda: all(rack.began.values()))
    seen.watch.stop()
    count = sum(map(len, rack.began.values()))
    assert rack.closed == 3
    time.sleep(0.2)
    assert sum(map(len, rack.began.values())) == count


@pytest.mark.skipif(not present(), reason="ipmi_sim is not installed")
def test_against_real_bmcs(tmp_path: Path) -> None:
    sims: Mapping[str, IpmiSim] = {name: IpmiSim(tmp_path / name, name) for name in ("a", "b")}
    clock = SystemClock()
    try:
        for sim in sims.values():
            sim.start()
        power = Ipmi({name: sim.bmc() for name, sim in sims.items()})
        watch = BmcPowerWatch(power.poll_session, tuple(sims), clock, interval_s=0.2)
        watch.start()
        seen = Watched(watch, clock, tuple(sims))
        seen.until(lambda: bool(seen.of("a", ON) and seen.of("b", ON)))
        sims["a"].set_power(False)
        sims["b"].hang()
        seen.until(lambda: len(seen.of("a", OFF)) >= 2, 3.0)
        first, second = seen.of("a", OFF)[:2]
        assert second.at - first.at >= 0.8
        seen.until(lambda: bool(seen.of("b", UNKNOWN)), 5.0)
        assert not seen.of("b", OFF)
        sims["b"].resume()
        seen.said.clear()
        seen.until(lambda: bool(seen.of("b", ON)), 5.0)
        watch.stop()
    finally:
        for sim in sims.values():
            sim.stop()
