# SPDX-License-Identifier: Apache-2.0
"""What the engine keeps of the agents' word of services, and what a look at one says of a restart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmhad.engine.effects import _probe_unit
from vmhad.engine.units import Told, Units
from vmhad.kernel.beat import Beat, HeardBeat, Unit, UnitState
from vmhad.kernel.case import Health, ServiceCase
from vmhad.kernel.incident import opened_of_service
from vmhad.kernel.policy import Policy
from vmhad.kernel.step import Answer, Step, StepState, Verb

RUNS, FAILED = Unit(UnitState.RUNS, invocation="b"), Unit(UnitState.FAILED, "signal", invocation="a")


def heard(at: float, units: dict[str, Unit], refused: str = "") -> HeardBeat:
    return HeardBeat(Beat("h1", "boot", "run", 1, at, at, units=units), at, refused)


def test_the_newest_word_counts_while_its_agent_is_heard() -> None:
    units = Units()
    units.take(heard(10.0, {"libvirtd": FAILED}))
    assert units.not_running == {"h1"}
    units.take(heard(9.0, {"libvirtd": RUNS}))
    units.take(heard(11.0, {}))
    units.take(heard(12.0, {"libvirtd": RUNS}, "its clock is wrong"))
    assert units.of("h1", 13.9, 4.0) == Told(10.0, 10.0, {"libvirtd": FAILED})
    assert units.of("h1", 14.0, 4.0) is None and units.of("h2", 10.0, 4.0) is None
    units.take(heard(14.0, {"libvirtd": RUNS}))
    assert units.not_running == set()


STEP = Step(
    "i/1/restart_service",
    "i",
    Verb.RESTART_SERVICE,
    "h1/libvirtd",
    {"host": "h1", "service": "libvirtd", "known": "a"},
    StepState.STARTED,
)


@pytest.mark.parametrize(
    ("unit", "answer"),
    [
        (None, Answer.UNKNOWN),
        (FAILED, Answer.NOT_SO),
        (replace(FAILED, state=UnitState.WAITS), Answer.NOT_SO),
        (replace(RUNS, invocation="a"), Answer.NOT_SO),
        (RUNS, Answer.SO),
        (replace(RUNS, state=UnitState.CHANGING), Answer.NOT_YET),
        (replace(FAILED, invocation="b"), Answer.FAILED),
        (replace(FAILED, kept_off="masked"), Answer.FAILED),
        (Unit(UnitState.STOPPED, "success", invocation="a"), Answer.FAILED),
    ],
)
def test_what_a_look_says_of_the_restart(unit: Unit | None, answer: Answer) -> None:
    assert _probe_unit(STEP, (unit, 1.0))[0] is answer


def test_what_voids_a_proof() -> None:
    incident = opened_of_service("h1", "nova-compute", "east", 1.0, "it failed")
    case = ServiceCase(incident, (), Policy(), Health(RUNS, at=7.0, heard_at=3.0))
    assert case.life_at == 7.0, "it runs, as its agent says"
    assert replace(case, health=replace(case.health, unit=FAILED)).life_at == 0.0
    assert replace(case, health=replace(case.health, nova_down_s=99.0)).life_at == 3.0, "it hangs: Nova's word counts"
    assert replace(case, steps=(STEP,)).life_at == 0.0, "another start than the one that failed"
    known = replace(STEP, args={**STEP.args, "known": "b"})
    assert replace(case, steps=(known,)).life_at == 7.0, "the very one that was to be restarted"
    assert replace(case, steps=(replace(known, acts=1),)).life_at == 0.0, "it runs by our act"


def test_the_subject_of_a_service_is_no_host_and_no_server() -> None:
    incident = opened_of_service("h1", "libvirtd", "east", 1.5, "it failed")
    assert (incident.id, incident.subject, incident.is_of_host) == ("h1/libvirtd.1500", "h1/libvirtd", False)
