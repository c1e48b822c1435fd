# SPDX-License-Identifier: Apache-2.0
"""The guards of when something was, and whose it was: what an heir counts was stamped by another clock, a look has a
time only for when it began, and an OFF may be another host's. Each with the way to switch it off."""

from __future__ import annotations

from typing import Any

from vmhad.engine.cases import Cases
from vmhad.engine.eras import Eras
from vmhad.guards.hosts import power_off
from vmhad.kernel.incident import Incident
from vmhad.kernel.step import Step
from vmhad.sim.cuts import Cut, always
from vmhad.sim.mutant import Mutant


def as_stamped(was: Any) -> Any:
    def call(eras: Eras, step: Step, incident: Incident | None) -> Step:
        return step

    return call


def opened_as_stamped(was: Any) -> Any:
    def call(eras: Eras, incident: Incident) -> float:
        return incident.opened_at

    return call


def old_by_its_age(was: Any) -> Any:
    def call(cases: Cases, incident: Incident) -> bool:
        return cases.now - cases.book.eras.opened_at(incident) > cases.policy.storm_window_s

    return call


OF_CLOCKS: tuple[Mutant, ...] = (
    Mutant(
        "restarts_by_another_clock",
        "an heir counts what was restarted",
        (Cut(Eras, "placed", as_stamped),),
        story="heir_counts_restarts_by_a_clock_behind",
    ),
    Mutant(
        "storms_by_another_clock",
        "an heir counts who failed lately",
        (Cut(Eras, "opened_at", opened_as_stamped),),
        story="heir_counts_a_storm_by_a_clock_behind",
    ),
    Mutant(
        "held_long_is_over",
        "what is being fenced counts in a storm",
        (Cut(Cases, "_is_old", old_by_its_age),),
        story="suspects_held_longer_than_a_storm_window",
    ),
    Mutant(
        "one_moment_excused",
        "who is excused had power when the other was off",
        (Cut(power_off, "_surely_off_at", always(0.0)),),
        story="hosts_that_fall_in_one_moment_prove_nothing",
    ),
    Mutant(
        "hit_is_forgotten",
        "a BMC that hit another host is not believed again for the asking",
        (Cut(power_off, "_was_on", always(True)),),
        story="order_retries_a_bmc_of_another_host",
    ),
)
