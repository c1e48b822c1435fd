# SPDX-License-Identifier: Apache-2.0
"""How BMCs behave while the host of theirs is fenced, and what has to come of it: the rows of the matrix."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.ports.redfish_sim import VIEWER

KINDS = ("ipmi", "redfish")
PROVEN, NOT_PROVEN, VOID = "proven", "not proven", "proven, void at the first ON"


@dataclass
class Chassis:
    """One host's power, and the BMC in front of it. stop, start, hang: of the BMC."""

    is_on: Callable[[], bool]
    press: Callable[[bool], None]
    was_told: Callable[[], bool]
    stop: Callable[[], None]
    start: Callable[[], None]
    hang: Callable[[], None]


# What befalls a row's host once it is settled, beside that it hangs; ends when the event is set.
Play = Callable[[Chassis, threading.Event], None]


def nothing(chassis: Chassis, over: threading.Event) -> None:
    """It hangs, and its BMC is as it is."""


def goes_off(chassis: Chassis, over: threading.Event) -> None:
    chassis.press(False)


def hangs(chassis: Chassis, over: threading.Event) -> None:
    chassis.hang()


def flaps(chassis: Chassis, over: threading.Event) -> None:
    if _told(chassis, over):
        for on in (True, False):
            over.wait(0.4)
            chassis.press(on)


def reboots(chassis: Chassis, over: threading.Event) -> None:
    if _told(chassis, over):
        chassis.stop()
        over.wait(3.0)
        chassis.start()


def loses_power(chassis: Chassis, over: threading.Event) -> None:
    chassis.press(False)
    chassis.stop()
    over.wait(5.0)
    chassis.press(True)
    chassis.start()


def comes_back(chassis: Chassis, over: threading.Event) -> None:
    if _told(chassis, over):
        over.wait(8.0)
        chassis.press(True)


def _told(chassis: Chassis, over: threading.Event) -> bool:
    """Waits until the fence has switched it off."""
    while not over.is_set():
        if chassis.was_told() and not chassis.is_on():
            return True
        over.wait(0.01)
    return False


@dataclass(frozen=True)
class Row:
    """changes: of the BMC's access, by kind. own: needs a process of its own. verdict: what has to come of it."""

    name: str
    words: str
    verdict: str
    play: Play = nothing
    changes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    own: bool = False
    slow_s: float = 0.0
    kinds: Sequence[str] = KINDS


PASSWORD = {kind: {"password": "another"} for kind in KINDS}
ROWS = (
    Row("off", "answers, and does what it is told", PROVEN),
    Row("already off", "answers; the host went off before", PROVEN, goes_off),
    Row("hangs", "is silent", NOT_PROVEN, hangs),
    Row("refuses", "shows the power, declines to switch it", NOT_PROVEN,
        changes={"ipmi": {"privilege": "user"}, "redfish": {"user": VIEWER}}),
    Row("wrong password", "does not know the password", NOT_PROVEN, changes=PASSWORD),
    Row("wrong certificate", "shows a certificate that is not trusted", NOT_PROVEN,
        changes={"redfish": {"ca_file": "another"}}, kinds=("redfish",)),
    Row("slow", "takes 8 s for each answer, with [power] timeout_s = 2.5", NOT_PROVEN, slow_s=8.0),
    Row("off, on, off", "goes off, on after 0.4 s and off after 0.8 s", PROVEN, flaps),
    Row("reboots", "restarts itself for 3 s just after the host went off", PROVEN, reboots, own=True),
    Row("power lost", "loses its power together with the host; both are back after 5 s, the host on by its power "
        "restore policy «always on»", PROVEN, loses_power, own=True),
    Row("always on", "the host is on again 8 s after it went off, whoever did that", VOID, comes_back),
)  # fmt: skip


def host_of(row: Row, kind: str) -> str:
    return f"{kind}-{row.name.replace(', ', '-').replace(' ', '-')}"
