# SPDX-License-Identifier: Apache-2.0
"""The simulator itself: time goes forward, checkers cry when they must, processes freeze and die whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmhad.cmd import sim
from vmhad.kernel.signal import Reading
from vmhad.ports import Refused, Unanswered
from vmhad.sim.checkers import Checkers
from vmhad.sim.clock import Agenda, SimClock
from vmhad.sim.compute import Post
from vmhad.sim.datacentre import Bmc, Datacentre, SimHost
from vmhad.sim.draft import StoryError
from vmhad.sim.life import Killed, Life
from vmhad.sim.nova import ServerRow, SimNova
from vmhad.sim.power import SimPower
from vmhad.sim.story import parse, tell
from vmhad.sim.workers import SimWorkers

STORY = "# Nothing happens, and nobody does anything.\nsegment east\nhost h1 h2\nrun 5s\nshow hosts\n----\n"


def two_hosts() -> tuple[Agenda, Datacentre, SimNova]:
    agenda = Agenda()
    datacentre = Datacentre(agenda)
    nova = SimNova(datacentre)
    nova.add_host(SimHost("h1"))
    nova.add_host(SimHost("h2"))
    nova.add_server(ServerRow("vm", "vm", "h1"))
    return agenda, datacentre, nova


def test_ties_go_to_the_first_and_cancelled_tickets_never_run() -> None:
    agenda, ran = Agenda(), []
    for name in "abc":
        agenda.after(1.0, lambda name=name: ran.append(name))
    agenda.after(1.0, lambda: ran.append("never")).cancel()
    while agenda.step(agenda.start_s + 2.0):
        pass
    assert ran == ["a", "b", "c"]
    assert agenda.elapsed_s == 2.0


def test_a_second_writer_is_a_breach_and_told_once() -> None:
    _, datacentre, nova = two_hosts()
    told: list[str] = []
    checkers = Checkers(datacentre, nova, lambda subject, sentence: told.append(sentence))
    checkers.after_event()
    assert told == []
    datacentre.vms["vm"].guests.add("h2")
    checkers.after_event()
    checkers.after_event()
    assert told == ["two writers on one disk: h1, h2"]


def test_an_evacuation_of_a_powered_host_is_a_breach_and_of_a_dead_one_is_not() -> None:
    _, datacentre, nova = two_hosts()
    checkers = Checkers(datacentre, nova, lambda subject, sentence: None)
    datacentre.crash("h1")
    checkers.on_evacuate(Post(0.0, "e1", "vm", "h2", False))
    assert checkers.breaches == ["vm vm: evacuated to h2 while h1 has power"]
    datacentre.cut("h1")
    checkers.on_evacuate(Post(0.0, "e1", "vm", "h2", False))
    assert len(checkers.breaches) == 1


@pytest.mark.parametrize(
    ("bmc", "powered", "reading", "refusal"),
    [
        (Bmc.OK, True, Reading.ON, None),
        (Bmc.OK, False, Reading.OFF, None),
        (Bmc.DEAD, True, Reading.UNKNOWN, Unanswered),
        (Bmc.DEAD, False, Reading.UNKNOWN, Unanswered),
        (Bmc.WRONG_PASSWORD, False, Reading.UNKNOWN, Refused),
        (Bmc.LIES, True, Reading.OFF, None),
        (Bmc.STUCK, True, Reading.ON, None),
    ],
)
def test_bmc(bmc: Bmc, powered: bool, reading: Reading, refusal: type[Exception] | None) -> None:
    agenda, datacentre, _ = two_hosts()
    power = SimPower(datacentre, Life(agenda, "e1"), SimClock(agenda), 3.0, lambda order: None)
    datacentre.hosts["h1"].powered, datacentre.hosts["h1"].bmc = powered, bmc
    assert power.read("h1")[0] is reading
    if refusal:
        with pytest.raises(refusal):
            power.off("h1")
    else:
        power.off("h1")


def test_a_power_off_takes_a_moment_and_takes_the_guests() -> None:
    agenda, datacentre, _ = two_hosts()
    datacentre.power_off("h1")
    assert datacentre.hosts["h1"].powered
    agenda.step(agenda.now + 0.9)
    assert not datacentre.hosts["h1"].powered
    assert datacentre.vms["vm"].guests == set()


def test_a_hung_host_goes_on_with_its_guests_unless_it_was_powered_off() -> None:
    agenda, datacentre, _ = two_hosts()
    datacentre.hang("h1", 10.0)
    assert not datacentre.hosts["h1"].serves
    while agenda.step(agenda.start_s + 11.0):
        pass
    assert datacentre.hosts["h1"].serves and datacentre.vms["vm"].guests == {"h1"}


def test_workers_give_results_after_the_time_the_call_took() -> None:
    agenda = Agenda()
    clock, life = SimClock(agenda), Life(agenda, "e1")
    workers = SimWorkers(life, clock)

    def slow() -> float:
        clock.spend(2.0)
        return clock.now() - agenda.start_s

    assert workers.submit("slow", slow)
    assert not workers.submit("slow", slow), "one of that name still runs"
    while agenda.step(agenda.start_s + 1.9):
        pass
    assert workers.finished() == []
    while agenda.step(agenda.start_s + 2.1):
        pass
    assert workers.finished() == [("slow", pytest.approx(2.002))]
    assert clock.spent_s == 0.0


def test_a_frozen_process_does_nothing_until_it_goes_on_and_a_dead_one_never() -> None:
    agenda, ran = Agenda(), []
    frozen, dead = Life(agenda, "e1"), Life(agenda, "e2")
    frozen.freeze(10.0)
    frozen.after(1.0, lambda: ran.append(agenda.elapsed_s))
    dead.after(1.0, lambda: ran.append(-1.0))
    dead.kill()
    while agenda.step(agenda.start_s + 20.0):
        pass
    assert ran == [10.0]
    with pytest.raises(Killed):
        dead.count_call()


def test_a_story_without_a_reason_or_with_an_unknown_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoryError, match="why"):
        parse("segment east\n")
    path = tmp_path / "story.txt"
    path.write_text("# Why.\nsegment east\nhost h1\nrun 1s\nexplode h1\n----\n")
    with pytest.raises(StoryError, match="story.txt:5.*explode"):
        tell(path)


def test_a_missing_expectation_fails_until_it_is_rewritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "story.txt"
    path.write_text(STORY.replace("----\n", ""))
    assert sim.main(["story", str(path)]) == 1
    assert sim.main(["story", str(path), "--rewrite"]) == 0
    assert "+h1" in capsys.readouterr().out
    assert sim.main(["story", str(path)]) == 0
    path.write_text(path.read_text().replace("up, enabled", "down"))
    assert sim.main(["story", str(path)]) == 1


def test_a_story_runs_the_same_way_every_time() -> None:
    path = Path(__file__).parents[1] / "stories" / "engine_frozen_past_its_lease.txt"
    assert tell(path).after == tell(path).after
