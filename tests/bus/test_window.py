# SPDX-License-Identifier: Apache-2.0
"""Which beats count, and how old they are: with an engine's clock, a host's clock and a broker that the test sets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from beats import busy_beat
from hypothesis import given, settings
from hypothesis import strategies as st

from vmhad.bus.window import BOOTS_KEPT, RETIRED_MAX, Dropped, Window
from vmhad.kernel.beat import Beat, HeardBeat

WALL = 1_800_000_000.0


@dataclass
class Bus:
    """now: the engine's clock, and with WALL its Unix time. off_s: how far the host's Unix time is ahead of that.
    booted: when the host's boot clock was 0, by the engine's."""

    now: float = 1000.0
    off_s: float = 0.0
    booted: float = 400.0
    boot: str = "b1"
    run: str = "r1"
    count: int = 0
    window: Window = field(default_factory=Window)

    def make(self, **changes: object) -> Beat:
        self.count += 1
        beat = Beat("h1", self.boot, self.run, self.count, self.now - self.booted, WALL + self.now + self.off_s)
        return replace(beat, **changes)  # type: ignore[arg-type]

    def take(self, beat: Beat, late_s: float = 0.0) -> HeardBeat | Dropped:
        return self.window.take(beat, self.now + late_s, WALL + self.now + late_s)

    def beat(self, late_s: float = 0.0) -> HeardBeat:
        """One made now, that arrives so much later; then a second passes."""
        heard = self.take(self.make(), late_s)
        assert isinstance(heard, HeardBeat)
        self.now += 1.0
        return heard

    def restart(self, boot: str = "") -> None:
        if boot:
            self.boot, self.booted = boot, self.now
            self.now += 5.0
        self.run += "+"
        self.count = 0


def age(bus: Bus, heard: HeardBeat) -> float:
    """How much older it is told to be than it is."""
    made = heard.beat.uptime_s + bus.booted
    return made - heard.at


# Again.


def test_only_newer_ones_of_a_run() -> None:
    bus = Bus()
    first, second = bus.beat().beat, bus.beat().beat
    assert bus.take(second) is Dropped.DOUBLED
    assert bus.take(first) is Dropped.DOUBLED
    for _ in range(10):
        bus.beat()
    assert bus.take(first) is Dropped.REPLAYED
    assert bus.beat().refused == ""


def test_a_count_that_grows_while_the_boot_clock_stands() -> None:
    bus = Bus()
    last = bus.beat().beat
    assert isinstance(bus.take(replace(last, count=last.count + 1)), Dropped)
    assert isinstance(bus.take(replace(last, uptime_s=last.uptime_s + 1)), Dropped)


def test_a_new_run_takes_over_and_the_old_one_never_comes_back() -> None:
    bus = Bus()
    bus.beat()
    unheard = bus.make()
    bus.now += 1.0
    bus.restart()
    bus.beat()
    assert bus.take(unheard) is Dropped.REPLAYED
    # Not even sent later: two agents of one host would else take turns.
    assert bus.take(replace(unheard, count=99, sent_at=WALL + bus.now, uptime_s=9999.0)) is Dropped.REPLAYED
    assert bus.beat().beat.run == "r1+"


def test_no_run_of_an_old_boot_comes_back() -> None:
    bus = Bus()
    old = bus.beat().beat
    bus.restart("b2")
    bus.beat()
    late = replace(old, run="another", count=5, uptime_s=9999.0, sent_at=WALL + bus.now)
    assert bus.take(late) is Dropped.REPLAYED


def test_a_run_that_was_sent_before_the_newest() -> None:
    """Recorded from a run that this engine never heard."""
    bus = Bus()
    recorded = replace(bus.make(), run="of yesterday", sent_at=WALL + bus.now - 30)
    bus.beat()
    assert bus.take(recorded) is Dropped.REPLAYED


@pytest.mark.parametrize("off_s, said", [(59.0, ""), (-59.0, ""), (61.0, "its clock is 61 s off ours"),
                                         (-3600.0, "its clock is 3600 s off ours")])  # fmt: skip
def test_the_window(off_s: float, said: str) -> None:
    bus = Bus(off_s=off_s)
    assert bus.beat().refused == said
    assert bus.beat().refused == said


def test_a_narrower_window() -> None:
    assert Bus(off_s=6.0, window=Window(5.0)).beat().refused == "its clock is 6 s off ours"


def test_what_is_refused_is_held_to_the_same_order() -> None:
    bus = Bus(off_s=-100.0)
    first, second = bus.beat().beat, bus.beat().beat
    assert isinstance(bus.take(first), Dropped) and isinstance(bus.take(second), Dropped)
    bus = Bus()
    bus.beat()
    assert bus.take(replace(bus.make(), run="recorded", sent_at=WALL + bus.now - 100)) is Dropped.REPLAYED


def test_a_clock_that_steps_in_a_run() -> None:
    """The host stays alive all the while it is refused, and is believed again at once."""
    bus = Bus()
    said = []
    for off_s in (0.0, 3600.0, -3600.0, 20.0, -20.0, 0.0):
        bus.off_s = off_s
        said.append(bus.beat().refused)
    assert said == ["", "its clock is 3600 s off ours", "its clock is 3600 s off ours", "", "", ""]


def test_a_clock_that_was_ahead_locks_no_run_out() -> None:
    bus = Bus()
    bus.beat()
    bus.off_s = 3600.0
    assert bus.beat().refused
    bus.off_s = 0.0
    bus.restart()
    assert bus.beat().refused == ""


def test_a_recording_from_a_clock_that_was_ahead_locks_nobody_out() -> None:
    bus = Bus()
    bus.beat()
    recorded = replace(bus.make(), boot="b0", run="r0", sent_at=WALL + bus.now + 86_400)
    taken = bus.take(recorded)
    assert isinstance(taken, HeardBeat) and taken.refused
    assert bus.beat().refused == ""
    bus.restart()
    assert bus.beat().refused == ""
    # And to an engine that has heard nothing yet:
    fresh = Bus()
    assert isinstance(fresh.take(recorded), HeardBeat)
    assert fresh.beat().refused == ""


def test_a_boot_with_a_clock_ahead_is_believed_once_it_is_set() -> None:
    bus = Bus()
    bus.beat()
    bus.restart("b2")
    bus.off_s = 7200.0
    assert bus.beat().refused
    bus.off_s = 0.0
    assert bus.beat().refused == ""
    assert bus.beat().refused == ""


def test_an_engine_whose_own_clock_is_wrong_believes_nobody_and_forgets_nobody() -> None:
    bus = Bus()
    bus.beat()
    heard = bus.window.take(bus.make(), bus.now, WALL + bus.now + 900.0)
    assert isinstance(heard, HeardBeat) and heard.refused == "its clock is 900 s off ours"
    bus.now += 1.0
    assert bus.beat().refused == ""


def test_hosts_are_apart() -> None:
    window = Window()
    for host in ("h1", "h2"):
        beat = replace(busy_beat(host), sent_at=WALL)
        assert isinstance(window.take(beat, 5.0, WALL), HeardBeat)
        assert window.take(beat, 5.0, WALL) is Dropped.DOUBLED


def test_what_is_remembered_is_bounded() -> None:
    bus = Bus()
    for number in range(2 * RETIRED_MAX):
        bus.beat()
        bus.restart(f"boot-{number}" if number % 2 else "")
    host = bus.window._hosts["h1"]
    assert len(host.retired) == RETIRED_MAX
    assert len(host.paces) == BOOTS_KEPT


# Old.


def test_a_beat_that_waited_is_as_old_as_it_is() -> None:
    bus = Bus()
    for _ in range(10):
        bus.beat(late_s=0.01)
    assert abs(age(bus, bus.beat(late_s=2.5))) <= 0.011
    assert abs(age(bus, bus.beat(late_s=0.01))) <= 0.011


def test_a_late_first_beat_looks_younger_until_the_next_one() -> None:
    bus = Bus()
    assert age(bus, bus.beat(late_s=3.0)) == pytest.approx(-3.0)
    assert age(bus, bus.beat(late_s=0.5)) == pytest.approx(-0.5)
    assert age(bus, bus.beat(late_s=3.0)) == pytest.approx(-0.5)


def test_a_burst_after_a_silence_is_held_to_what_was_before_it() -> None:
    """A partition that heals: what the socket kept comes out at once, and the last of it may be all that there was."""
    bus = Bus()
    for _ in range(100):
        bus.beat()
    kept = []
    for _ in range(50):
        kept.append(bus.make())
        bus.now += 1.0
    bus.now += 5.0
    taken = [bus.take(beat) for beat in kept]
    assert all(isinstance(heard, HeardBeat) and abs(age(bus, heard)) < 0.01 for heard in taken)


def test_a_step_of_the_hosts_wall_clock_changes_no_age() -> None:
    bus = Bus()
    for off_s in (0.0, 30.0, -30.0, 3600.0):
        bus.off_s = off_s
        assert age(bus, bus.beat()) == pytest.approx(0.0)


@pytest.mark.parametrize("ppm", [500, -500, 20])
def test_clocks_that_drift_for_weeks(ppm: float) -> None:
    """Every beat a minute stands for the sixty: the least lateness is kept for spans of time, not of beats."""
    bus, worst = Bus(), 0.0
    for _ in range(3 * 7 * 24 * 60):
        bus.now += 59.0
        bus.booted += 60.0 * ppm * 1e-6
        worst = max(worst, abs(age(bus, bus.beat())))
    assert worst < 0.1


def test_a_clock_that_is_slewed_by_percents() -> None:
    """chrony takes five seconds back in one minute: as far as a minute's slew is old, and no longer than a minute."""
    bus = Bus()
    for _ in range(60):
        bus.beat()
    ages = []
    for second in range(180):
        if second < 60:
            bus.booted += 5.0 / 60
        ages.append(age(bus, bus.beat()))
    assert max(ages) <= 5.01
    assert all(abs(one) < 0.01 for one in ages[125:])


def test_another_boot_has_another_zero() -> None:
    bus = Bus()
    bus.beat()
    bus.restart("b2")
    assert age(bus, bus.beat()) == pytest.approx(0.0)


def test_after_a_long_silence_the_least_lateness_is_learnt_anew() -> None:
    bus = Bus()
    bus.beat()
    bus.now += 8 * 3600
    bus.booted += 3.0
    assert age(bus, bus.beat()) == pytest.approx(0.0)


LATE = st.lists(st.floats(0.0, 5.0), min_size=1, max_size=80)


@given(LATE)
@settings(max_examples=200, deadline=None)
def test_no_beat_is_told_older_than_it_is_nor_younger_than_the_least_late_one_of_late(late: list[float]) -> None:
    bus = Bus()
    for number, late_s in enumerate(late):
        told = age(bus, bus.beat(late_s))
        # A span of the past and the current one: never fewer than the last 30 beats, if there are so many.
        assert -min(late[max(0, number - 29) : number + 1]) - 1e-6 <= told <= 1e-6
