# SPDX-License-Identifier: Apache-2.0
"""A rehearsal tells an operator what would become of every VM: its answers are held against days that are known."""

# One mistake, one line: a table that is wrapped is not read.
# ruff: noqa: E501
from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vmhad.cmd import sim
from vmhad.cmd.rehearsal import failing
from vmhad.conf.topology import Topology
from vmhad.conf.topology_file import load_topology
from vmhad.kernel.policy import Policy, SilentMeans
from vmhad.sim.day import Failure, Terms, draw
from vmhad.sim.rehearsal import Rehearsal, spoken_s
from vmhad.sim.rehearse import Fate, play

RACKS = Path(__file__).parent / "topologies" / "three_racks.yaml"
CALM = Terms(hours=0.5, noise=0.0)


@pytest.fixture(scope="module")
def racks() -> Topology:
    return load_topology(str(RACKS))


def under(topology: Topology, **changes: Any) -> Topology:
    """The topology under another policy."""
    policy = replace(topology.policy, **changes)
    return replace(topology, policy=policy, policies=dict.fromkeys(topology.policies, policy))


def struck(topology: Topology, fail: str, kind: str = "cut") -> Failure:
    return Failure(failing(topology, fail), kind)


def without_clock(fate: Fate) -> Fate:
    return replace(fate, cpu_s=0.0)


# The drawing.


def test_a_seed_is_a_day_for_ever(racks: Topology) -> None:
    failure, terms = struck(racks, "rack:r1"), Terms(noise=20.0)
    assert draw(7, racks, failure, terms) == draw(7, racks, failure, terms)
    assert len({draw(seed, racks, failure, terms).strike_s for seed in range(20)}) == 20


def test_without_noise_only_the_failure_comes(racks: Topology) -> None:
    day = draw(1, racks, struck(racks, "rack:r1", "switch"), Terms(noise=0.0))
    assert [line for _, line in day.directives] == [f"isolate r1-h{number}" for number in (1, 2, 3, 4)]
    assert {at for at, _ in day.directives} == {day.strike_s}


def test_nothing_small_touches_the_struck_after_the_strike(racks: Topology) -> None:
    """A repair that a small fault had ordered before would mend the great one."""
    failure = struck(racks, "rack:r1")
    later = [
        line
        for seed in range(20)
        for day in (draw(seed, racks, failure, Terms(noise=100.0)),)
        for at, line in day.directives
        if at > day.strike_s
    ]
    assert len(later) > 100 and not [line for line in later if set(line.split()) & set(failure.hosts)]


def test_small_faults_come_as_often_as_is_said(racks: Topology) -> None:
    """Half a silence of nova-api a day: 200 days have about a hundred."""
    days = [draw(seed, racks, Failure(()), Terms()) for seed in range(200)]
    silences = sum(line.startswith("nova down") for day in days for _, line in day.directives)
    assert 70 <= silences <= 130


# What becomes of the VMs.


def test_a_rack_without_power_runs_again_on_the_others(racks: Topology) -> None:
    fate = play(1, racks, struck(racks, "rack:r1"), CALM)
    assert (fate.struck, fate.recovered, fate.opted_out) == (28, 27, 1)
    assert not fate.held and not fate.stuck and not fate.bystanders and not fate.false_fences and not fate.breaches
    assert "vm-004" not in fate.after_s, "it opted out"
    assert "vm-005" not in fate.after_s, "it was stopped: nobody missed it"
    assert len(fate.after_s) == 26 and all(2.0 < after_s < 600.0 for after_s in fate.after_s.values())


def test_the_same_seed_is_the_same_day(racks: Topology) -> None:
    failure, terms = struck(racks, "rack:r1"), Terms(hours=2.0, noise=20.0)
    assert without_clock(play(3, racks, failure, terms)) == without_clock(play(3, racks, failure, terms))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("kind", ["cut", "hang"])
def test_passing_over_the_calm_changes_no_end(racks: Topology, seed: int, kind: str) -> None:
    failure, terms = struck(racks, "host:r1-h2,host:r2-h1", kind), Terms(hours=1.0, noise=24.0)
    passed = play(seed, racks, failure, terms)
    whole = play(seed, racks, failure, replace(terms, whole=True))
    assert passed.stepped_s < whole.stepped_s == 3600.0
    for name in ("struck", "recovered", "held", "stuck", "ran_on", "opted_out", "bystanders", "false_fences"):
        assert getattr(passed, name) == getattr(whole, name), name


def test_a_hung_host_is_fenced_only_where_silence_means_death(racks: Topology) -> None:
    failure = struck(racks, "host:r1-h2", "hang")
    fenced = play(1, racks, failure, CALM)
    assert (fenced.recovered, fenced.fences, fenced.false_fences) == (7, 1, [])
    held = play(1, under(racks, silent_means=SilentMeans.HOLD), failure, CALM)
    assert (held.recovered, held.fences, len(held.held)) == (0, 0, 7)
    assert all("silent_means = hold" in why for why in held.held.values())


def test_a_fence_of_a_host_that_ran_its_guests_is_called_false(racks: Topology) -> None:
    """One silenced host of one rack: to fence it is what the policy says, and it was wrong."""
    fate = play(1, racks, struck(racks, "host:r1-h2", "switch"), CALM)
    assert (fate.false_fences, fate.silenced, fate.recovered) == (["r1-h2"], 1, 7)


def test_a_dead_switch_takes_no_vm(racks: Topology) -> None:
    fate = play(1, racks, struck(racks, "rack:r2", "switch"), CALM)
    assert (fate.ran_on, fate.recovered, fate.fences) == (28, 0, 0)
    assert not fate.held and not fate.stuck, "nothing was lost, so nothing is missed"


def test_what_finds_no_room_says_so_without_names(racks: Topology) -> None:
    small = {name: replace(one, vcpus=28) for name, one in racks.inventories.items()}
    fate = play(1, replace(racks, inventories=small), struck(racks, "rack:r1"), CALM)
    assert len(fate.stuck) == 27 and set(fate.stuck.values()) == {"no host of the segment is up with room for it"}


def test_a_vm_that_needs_a_trait_ends_on_a_host_that_has_it(racks: Topology) -> None:
    fate = play(1, racks, struck(racks, "host:r1-h1"), CALM)
    arrived = [line for line in fate.said if re.search(r"vm app-003 EVACUATE DONE", line)]
    assert len(arrived) == 1 and re.search(r"on r[23]-h1$", arrived[0]), arrived


# Many days together.


def test_figures_add_up(racks: Topology) -> None:
    failure = struck(racks, "rack:r1")
    rehearsal = Rehearsal(racks, "rack:r1", failure, CALM)
    rehearsal.add(Fate(0, struck=3, recovered=3, after_s={"a": 10.0, "b": 20.0, "c": 30.0}, fences=1))
    rehearsal.add(Fate(1, struck=3, recovered=1, held={"b": "wait"}, stuck={"c": "no room"}, after_s={"a": 99.0}))
    rehearsal.add(Fate(2, struck=3, recovered=1, held={"b": "wait", "c": "wait"}, after_s={"a": 20.0}))
    figures = rehearsal.figures()
    assert (figures["seeds"], figures["vms_struck"], figures["recovered"]) == (3, 9, 5)
    assert (figures["held"], figures["stuck"], figures["runs_without_loss"]) == (3, 1, 1)
    assert figures["reasons"]["held"] == [{"because": "wait", "vms": 3, "runs": 2, "seed": 1}]
    assert figures["time_to_recover_s"] == {"p50": 20.0, "p90": 99.0, "p99": 99.0, "max": 99.0}
    assert rehearsal.sentence() == "In 2 of 3 runs VMs stayed down, 44 % of all, most of them because: wait."


def test_a_broken_rule_is_the_sentence(racks: Topology) -> None:
    rehearsal = Rehearsal(racks, "rack:r1", struck(racks, "rack:r1"), CALM)
    rehearsal.add(Fate(4, struck=1, recovered=1, breaches=["vm a: two writers on one disk: h1, h2"]))
    assert "seed 4" in rehearsal.sentence() and "two writers" in "\n".join(rehearsal.report())


@pytest.mark.parametrize(("seconds", "spoken"), [(9.96, "10.0 s"), (245, "4 min 5 s"), (7380, "2 h 3 min")])
def test_times_are_spoken(seconds: float, spoken: str) -> None:
    assert spoken_s(seconds) == spoken


# The command.


def rehearse(*words: str) -> int:
    return sim.main(["rehearse", "--topology", str(RACKS), *words])


def test_json_is_one_object_and_the_same_for_any_number_of_processes(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--fail", "rack:r1", "--seeds", "4", "--hours", "1", "--json")
    figures = []
    for jobs in ("1", "2"):
        assert rehearse(*words, "--jobs", jobs) == 0
        figures.append(json.loads(capsys.readouterr().out))
        del figures[-1]["cpu_seconds"]
    assert figures[0] == figures[1]
    assert figures[0]["seeds"] == 4 and figures[0]["simulated_hours"] == 4.0 and figures[0]["violations"] == []
    assert figures[0]["recovered"] + figures[0]["opted_out"] == figures[0]["vms_struck"] == 4 * 28


def test_report_ends_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert rehearse("--fail", "host:r3-h4,host:r1-h2", "--seeds", "1", "--hours", "2", "--timeline") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"^\+\d+\.\ds  -> cut r3-h4$", "\n".join(lines), re.MULTILINE), "the day is told"
    assert "Rehearsed: 2 hosts of host:r3-h4,host:r1-h2: no power" in lines
    assert "Policy of general: silent_means=fence" in lines
    assert lines[-1].startswith("In 1 of 1 run every protected VM ran in the end; ") and lines[-1].endswith(".")


def test_another_policy_can_be_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.yaml").write_text("silent_means: hold\nretry_backoff_s: 5\n")
    words = ("--fail", "host:r1-h2", "--kind", "hang", "--seeds", "2", "--hours", "1", "--noise", "0")
    assert rehearse(*words, "--policy", str(tmp_path / "policy.yaml")) == 0
    said = capsys.readouterr().out
    assert "Policy of general: retry_backoff_s=5.0" in said
    assert re.search(r"^ +held +14 +100\.00 %$", said, re.MULTILINE)


def test_servers_can_be_assumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "segments.yaml"
    path.write_text("segments: [{name: s, hosts: [{name: h1}, {name: h2}, {name: h3}]}]\n")
    words = ["rehearse", "--topology", str(path), "--fail", "host:h1", "--seeds", "1", "--hours", "0.5", "--json"]
    assert sim.main([*words, "--vms-per-host", "5"]) == 0
    assert json.loads(capsys.readouterr().out)["recovered"] == 5
    assert sim.main(words) == 2
    assert "segments.yaml has no servers" in capsys.readouterr().err


MISTAKES: list[tuple[tuple[str, ...], str]] = [
    (("--fail", "rack:r9"), "--fail rack:r9: there is no rack 'r9'; there are r1, r2, r3."),
    (("--fail", "row:1"), "--fail row:1: no host has a row; there are host, power, rack, segment."),
    (("--fail", "r1"), "--fail: 'r1' must be KIND:NAME, such as rack:r1 or host:h3."),
    (("--fail", "rack:r1", "--hours", "0"), "--hours must be from 0.1 to 10000."),
    (("--fail", "rack:r1", "--seeds", "0"), "--seeds must be at least 1."),
    (
        ("--fail", "rack:r1", "--spawn-s", "9-3"),
        "--spawn-s: '9-3' must be within 0 and 3600 seconds, the lesser first.",
    ),
    (("--fail", "rack:r1", "--spawn-s", "soon"), "--spawn-s: 'soon' must be LEAST-MOST in seconds, such as 1-20."),
    (("--fail", "rack:r1", "--policy", "absent.yaml"), "--policy: there is no file absent.yaml."),
    (("--fail", "rack:r1", "--policy", "absent.conf"), "--policy: there is no file absent.conf."),
    (("--fail", "rack:r1", "--topology", "absent.yaml"), "--topology: there is no file absent.yaml."),
    (("--fail", "rack:r1", "--timeline"), "--timeline tells one run: say --seeds 1, and which by --start."),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES)
def test_a_mistake_is_one_sentence(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rehearse(*words) == 2
    captured = capsys.readouterr()
    assert captured.err == f"vmhad-sim: {said}\n" and captured.out == ""


def test_hosts_that_fail_are_named_once(racks: Topology) -> None:
    assert failing(racks, "host:r1-h1, power:feed-a") == tuple(
        sorted({"r1-h1", *(name for name in racks.segments[0].names if name.endswith(("h2", "h4")))})
    )
    assert failing(racks, "segment:general") == tuple(sorted(racks.segments[0].names))


def test_policy_is_told_where_it_is_not_as_shipped(racks: Topology) -> None:
    lines = list(Rehearsal(under(racks, **vars_of(Policy())), "rack:r1", Failure(()), CALM).report())
    assert "Policy of general: as shipped" in lines


def vars_of(policy: Policy) -> dict[str, Any]:
    return {name: getattr(policy, name) for name in policy.__slots__}
