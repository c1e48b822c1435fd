# SPDX-License-Identifier: Apache-2.0
"""The table of services is total, every row is reached, and whoever wants one off comes first in all of it."""

from itertools import product

import pytest

from vmhad.guards.services.catalog import BY_NAME, CATALOG, broken
from vmhad.guards.services.judge import TABLE, Nova, Said, is_worth_asking, judge, judged, nova_of, said_of
from vmhad.kernel.beat import Unit, UnitState
from vmhad.kernel.case import Health
from vmhad.kernel.policy import OnFailure, Policy
from vmhad.kernel.verdict import Judgement

POLICY = Policy()
EVERY = list(product(Said, Nova))
LONG_S = 1000.0


def of(state: UnitState, lasts_s: float = LONG_S, kept_off: str = "", invocation: str = "1a", **more: float) -> Health:
    return Health(Unit(state, "", kept_off, invocation), 5.0, lasts_s, **more)  # type: ignore[arg-type]


def test_every_combination_has_a_row() -> None:
    assert {id(judged(*one)) for one in EVERY} == {id(row) for row in TABLE}


@pytest.mark.parametrize(("said", "nova"), EVERY)
def test_only_what_ended_unasked_or_hangs_is_restarted(said: Said, nova: Nova) -> None:
    failed = judged(said, nova).judgement is Judgement.FAILED
    assert failed == (said in (Said.WAITS, Said.FAILED) or (said is Said.RUNS and nova is Nova.UNHEARD))


@pytest.mark.parametrize("state", [UnitState.WAITS, UnitState.FAILED, UnitState.STOPPED])
def test_what_is_kept_off_is_nobodys_failure(state: UnitState) -> None:
    for word in ("masked", "disabled", "a stop was ordered"):
        row = judge(of(state, kept_off=word), "nova-compute", POLICY)
        assert (row.judgement, row.wish) == (Judgement.HEALTHY, True)


@pytest.mark.parametrize("state", UnitState)
def test_every_state_of_a_unit_means_something(state: UnitState) -> None:
    assert said_of(of(state), POLICY) is Said[state.name]


@pytest.mark.parametrize("state", [UnitState.WAITS, UnitState.FAILED])
@pytest.mark.parametrize(("lasts_s", "worth"), [(0.0, False), (9.99, False), (10.0, True), (10.01, True)])
def test_systemd_has_its_chance(state: UnitState, lasts_s: float, worth: bool) -> None:
    assert is_worth_asking(of(state, lasts_s), "libvirtd", POLICY) == worth
    assert (said_of(of(state, lasts_s), POLICY) is Said.DOWN_SHORT) != worth


@pytest.mark.parametrize(
    ("ran_s", "down_s", "fellows_up", "means"),
    [
        (89.9, 500.0, True, Nova.HEARD),
        (500.0, 89.9, True, Nova.HEARD),
        (90.0, 90.0, True, Nova.UNHEARD),
        (90.0, 90.0, False, Nova.DEAF),
        (500.0, 0.0, True, Nova.HEARD),
    ],
)
def test_when_it_hangs(ran_s: float, down_s: float, fellows_up: bool, means: Nova) -> None:
    health = of(UnitState.RUNS, ran_s, nova_down_s=down_s, fellows_up=fellows_up)
    assert nova_of(health, "nova-compute", POLICY) is means
    assert nova_of(health, "libvirtd", POLICY) is Nova.HEARD, "Nova hears no libvirtd"
    assert is_worth_asking(health, "nova-compute", POLICY) == (means is Nova.UNHEARD)


def test_what_is_worth_an_incident() -> None:
    assert is_worth_asking(of(UnitState.STOPPED), "libvirtd", POLICY), "that it is wanted off is told"
    assert not is_worth_asking(of(UnitState.STOPPED, 9.0), "libvirtd", POLICY)
    assert not is_worth_asking(of(UnitState.STOPPED, invocation=""), "libvirtd", POLICY), "nobody misses it"
    assert not is_worth_asking(Health(), "libvirtd", POLICY)
    leave = Policy(on_service_failure=OnFailure.LEAVE)
    assert not is_worth_asking(of(UnitState.FAILED), "libvirtd", leave)


def test_what_is_needed_stands_before_what_needs_it() -> None:
    names = [one.name for one in CATALOG]
    assert all(names.index(need) < names.index(one.name) for one in CATALOG for need in one.needs)
    assert set(BY_NAME) == set(names)


@pytest.mark.parametrize("state", UnitState)
def test_what_its_need_broke(state: UnitState) -> None:
    units = {"libvirtd": Unit(state), "nova-compute": Unit(UnitState.FAILED)}
    runs = state in (UnitState.RUNS, UnitState.OTHER)
    assert broken("nova-compute", units) == ("" if runs else "libvirtd")
    assert broken("libvirtd", units) == "" == broken("nova-compute", {"nova-compute": Unit(UnitState.FAILED)})
