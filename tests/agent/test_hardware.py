# SPDX-License-Identifier: Apache-2.0
"""Complaints of the hardware, as the kernel writes them; a machine that can be made to fail is not to be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmhad.agent.hardware import (
    ALARM_LASTS_S,
    COMPLAINTS_MAX,
    CORRECTED_MAX,
    CORRECTED_WITHIN_S,
    DAMAGED_MIN,
    DAMAGED_TOLD_S,
    DAMAGED_WITHIN_S,
    INTERVAL_S,
    LINK_LOST_S,
    Hardware,
)


class Machine:
    """A host's /sys and /proc, and its clock."""

    def __init__(self, root: Path, links: tuple[str, ...] = ()) -> None:
        self.root, self.now = root, 100.0
        self.eye = Hardware(links, root, lambda: self.now)

    def has(self, **files: object) -> None:
        for name, text in files.items():
            path = self.root / PLACES[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    def after(self, seconds: float) -> tuple[str, ...]:
        self.now += seconds
        self.eye._look()
        return self.eye.tell(self.now).hardware


PLACES = {
    "lost": "sys/devices/system/edac/mc/mc0/ue_count",
    "corrected": "sys/devices/system/edac/mc/mc0/ce_count",
    "interrupts": "proc/interrupts",
    "chip": "sys/class/hwmon/hwmon0/name",
    "critical": "sys/class/hwmon/hwmon0/temp1_crit_alarm",
    "hot": "sys/class/hwmon/hwmon0/temp1_max_alarm",
    "fan": "sys/class/hwmon/hwmon0/fan1_fault",
    "carrier": "sys/class/net/eno1/carrier",
    "damaged": "sys/class/net/eno1/statistics/rx_crc_errors",
    "arrived": "sys/class/net/eno1/statistics/rx_packets",
}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def linked(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path, ("eno1",))
    machine.has(carrier=1, damaged=0, arrived=0)
    return machine


def test_one_uncorrectable_error_is_one_too_many(machine: Machine) -> None:
    machine.has(lost=0)
    assert machine.after(0) == ()
    machine.has(lost=1)
    assert machine.after(INTERVAL_S) == ("memory controller mc0: 1 uncorrectable errors since the host booted",)


def test_corrected_errors_count_by_the_thousand_within_an_hour(machine: Machine) -> None:
    """Those of the time before the agent began are nobody's guess, and do not count."""
    machine.has(corrected=5000)
    assert machine.after(0) == ()
    machine.has(corrected=5000 + CORRECTED_MAX - 1)
    assert machine.after(CORRECTED_WITHIN_S) == ()
    machine.has(corrected=5000 + CORRECTED_MAX)
    assert machine.after(0) == ("memory controller mc0: more than 1000 corrected errors within an hour",)
    assert machine.after(CORRECTED_WITHIN_S + 1) == ()


def test_a_counter_that_was_set_back_begins_anew(machine: Machine) -> None:
    machine.has(corrected=900)
    machine.after(0)
    machine.has(corrected=0)
    assert machine.after(INTERVAL_S) == ()
    machine.has(corrected=CORRECTED_MAX)
    assert len(machine.after(INTERVAL_S)) == 1


@pytest.mark.parametrize(("line", "complaints"), [
    ("MCE:  0  0  Machine check exceptions", 0),
    ("MCP:  7  7  Machine check polls", 0),
    ("MCE:  0  1  Machine check exceptions", 1),
])  # fmt: skip
def test_machine_checks(machine: Machine, line: str, complaints: int) -> None:
    machine.has(interrupts=f"           CPU0       CPU1\n  0:   12   0  IO-APIC timer\n{line}")
    assert len(machine.after(0)) == complaints


def test_a_critical_alarm_that_lasts(machine: Machine) -> None:
    machine.has(chip="coretemp", critical=1)
    assert machine.after(0) == machine.after(ALARM_LASTS_S - 0.1) == ()
    assert machine.after(0.1) == ("sensor temp1 of coretemp: beyond its critical limit",)
    machine.has(critical=0)
    assert machine.after(INTERVAL_S) == ()


def test_what_a_busy_day_or_an_empty_slot_raises_is_no_complaint(machine: Machine) -> None:
    machine.has(chip="nct6775", hot=1, fan=1)
    assert machine.after(0) == machine.after(10 * ALARM_LASTS_S) == ()


def test_a_link_without_carrier_and_one_that_flaps(linked: Machine) -> None:
    assert linked.after(0) == ()
    linked.has(carrier=0)
    assert linked.after(INTERVAL_S) == linked.after(LINK_LOST_S - 0.1) == ()
    linked.has(carrier=1)
    assert linked.after(0.1) == ()
    linked.has(carrier=0)
    linked.after(INTERVAL_S)
    assert linked.after(LINK_LOST_S) == ("link eno1: no carrier",)


def test_a_link_that_is_not_there(tmp_path: Path) -> None:
    machine = Machine(tmp_path, ("eno9",))
    assert machine.after(0) == ()
    assert machine.after(LINK_LOST_S) == ("link eno9: there is none of that name",)


def test_frames_that_arrive_damaged(linked: Machine) -> None:
    """One of a hundred, and a hundred within the minute; told for ten minutes after the last such one."""
    linked.after(0)
    linked.has(damaged=DAMAGED_MIN - 1, arrived=100)
    assert linked.after(INTERVAL_S) == ()
    linked.has(damaged=DAMAGED_MIN, arrived=1_000_000)
    assert linked.after(INTERVAL_S) == ()
    linked.after(DAMAGED_WITHIN_S + INTERVAL_S)
    linked.has(damaged=2 * DAMAGED_MIN, arrived=1_000_000 + 99 * DAMAGED_MIN)
    assert linked.after(INTERVAL_S) == ("link eno1: more than one of a hundred frames arrives damaged",)
    for _ in range(int(DAMAGED_WITHIN_S / INTERVAL_S)):
        linked.after(INTERVAL_S)
    assert len(linked.after(DAMAGED_TOLD_S - 2 * INTERVAL_S)) == 1
    assert linked.after(INTERVAL_S + DAMAGED_WITHIN_S) == ()


def test_a_host_without_sensors_complains_of_nothing(machine: Machine) -> None:
    assert machine.after(0) == ()


def test_this_very_machine_can_be_read() -> None:
    """Whatever it is: nothing of it makes the eye fail."""
    eye = Hardware(["lo"])
    eye._look()
    assert all(isinstance(one, str) and one for one in eye.tell(0.0).hardware)


def test_a_beat_stays_small(machine: Machine) -> None:
    for number in range(99):
        path = machine.root / f"sys/devices/system/edac/mc/mc{number}/ue_count"
        path.parent.mkdir(parents=True)
        path.write_text("1\n")
    assert len(machine.after(0)) == COMPLAINTS_MAX
