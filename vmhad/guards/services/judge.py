# SPDX-License-Identifier: Apache-2.0
"""Did this service of a living host fail, or does somebody want it so? A table; the first row that fits decides, and
says why.

Rules the table keeps: what somebody stopped, masked or disabled is left alone; what nobody can tell is left alone;
systemd gets its chance before us; what runs is restarted only where Nova does not hear it for long, and hears others.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vmhad.guards.services.catalog import BY_NAME
from vmhad.kernel.beat import UnitState
from vmhad.kernel.case import Health
from vmhad.kernel.policy import OnFailure, Policy
from vmhad.kernel.verdict import Judgement


class Said(StrEnum):
    """What its systemd says. DOWN_SHORT, WAITS, FAILED: it ended without having been asked to; the first, not for
    service_down_s yet. WAITS: and systemd is to start it again. KEPT_OFF: it is masked or disabled, or a stop of it was
    ordered."""

    UNTOLD = "untold"
    OTHER = "other"
    KEPT_OFF = "kept off"
    STOPPED = "stopped"
    CHANGING = "changing"
    DOWN_SHORT = "down, not for long"
    WAITS = "waits"
    FAILED = "failed"
    RUNS = "runs"


class Nova(StrEnum):
    """Whether Nova hears it. DEAF: not for service_hung_s, while it ran all the time, and it hears no other either."""

    HEARD = "heard"
    UNHEARD = "unheard"
    DEAF = "deaf"


@dataclass(frozen=True, slots=True)
class Row:
    """An empty set matches everything. SUSPECT: waits until it can be told. wish: that of somebody, which is left."""

    said: frozenset[Said]
    nova: frozenset[Nova]
    judgement: Judgement
    because: str
    wish: bool = False


def _row(said: str, nova: str, judgement: Judgement, because: str, wish: bool = False) -> Row:
    words = frozenset(Said[word] for word in said.split())
    return Row(words, frozenset(Nova[word] for word in nova.split()), judgement, because, wish)


TABLE: tuple[Row, ...] = (
    _row("UNTOLD", "", Judgement.SUSPECT, "the agent of its host does not tell of it"),
    _row("OTHER", "", Judgement.HEALTHY, "its systemd has no such service"),
    _row("KEPT_OFF", "", Judgement.HEALTHY, "somebody wants it off", wish=True),
    _row("STOPPED", "", Judgement.HEALTHY, "somebody stopped it, for it ended clean", wish=True),
    _row("CHANGING", "", Judgement.SUSPECT, "it is just being started or stopped"),
    _row("DOWN_SHORT", "", Judgement.SUSPECT, "it does not run, and its systemd has a moment to start it"),
    _row("WAITS", "", Judgement.FAILED, "it does not run, and its systemd waits too long to start it"),
    _row("FAILED", "", Judgement.FAILED, "it failed, and its systemd gave it up"),
    _row("RUNS", "DEAF", Judgement.HEALTHY, "it runs, and Nova hears no other either: that is no fault of it"),
    _row("RUNS", "UNHEARD", Judgement.FAILED, "it runs, and Nova hears others and has not heard it for long: it hangs"),
    _row("RUNS", "HEARD", Judgement.HEALTHY, "it runs"),
)


def judge(health: Health, service: str, policy: Policy) -> Row:
    return judged(said_of(health, policy), nova_of(health, service, policy))


def judged(said: Said, nova: Nova) -> Row:
    for row in TABLE:
        if said in row.said and (not row.nova or nova in row.nova):
            return row
    raise AssertionError(f"no row for {said.value}, {nova.value}")


def said_of(health: Health, policy: Policy) -> Said:
    unit = health.unit
    if unit is None:
        return Said.UNTOLD
    if unit.state in (UnitState.WAITS, UnitState.FAILED, UnitState.STOPPED) and unit.kept_off:
        return Said.KEPT_OFF
    if unit.state in (UnitState.WAITS, UnitState.FAILED) and health.lasts_s < policy.service_down_s:
        return Said.DOWN_SHORT
    return Said[unit.state.name]


def nova_of(health: Health, service: str, policy: Policy) -> Nova:
    if not BY_NAME[service].reports or min(health.lasts_s, health.nova_down_s) < policy.service_hung_s:
        return Nova.HEARD
    return Nova.UNHEARD if health.fellows_up else Nova.DEAF


def is_worth_asking(health: Health, service: str, policy: Policy) -> bool:
    """It failed and is to be restarted; or somebody wants it off, which is told once. What never ran since its host
    booted is not missed by anybody."""
    row, unit = judge(health, service, policy), health.unit
    if policy.on_service_failure is OnFailure.LEAVE or unit is None or not unit.invocation:
        return False
    return row.judgement is Judgement.FAILED or (row.wish and health.lasts_s >= policy.service_down_s)


def words_of(health: Health) -> str:
    """What its systemd says of it, for whoever asks why."""
    unit = health.unit
    if unit is None:
        return "nothing"
    details = ", ".join(word for word in (unit.detail, unit.kept_off) if word)
    return f"{unit.state.value} ({details})" if details else unit.state.value
