# SPDX-License-Identifier: Apache-2.0
"""A guest that stands for a host, with a real hardware watchdog in a real kernel, loses its storage and is reset.

Real here: the agent's record, lease and feeding, Linux's driver, QEMU's i6300esb, a disk on a storage that hangs. Not
real: the rest of the agent, and a host of metal. Only what is promised to peers is held against the clock.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from feeding_guest import NUMBERS
from watched_machine import WatchedMachine

from lab.layout import Progress
from lab.qemu import install
from vmhad.agent.record import Record

pytestmark = [pytest.mark.cloud, pytest.mark.chaos]

BOOTS_S = 120.0
# The longest that a feed may hold: without another one the watchdog would have fired.
STEADY_S = 2 * NUMBERS.watchdog_s


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[WatchedMachine]:
    install.ensure(Progress(), "dir")
    install.fetch_watchdog_guest()
    made = WatchedMachine(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        print(made.console.read_text(errors="replace") if made.console.exists() else "nothing was said")


def moved(machine: WatchedMachine, last: Record | None, limit_s: float) -> tuple[Record, float]:
    """The first record that is another one, and when it was read."""
    until = time.monotonic() + limit_s
    while True:
        record, at = machine.record(), time.time()
        if record is not None and record != last:
            return record, at
        assert time.monotonic() < until, f"no other record within {limit_s:g} s than {last}"
        time.sleep(0.1)


def test_a_storage_that_hangs_resets_the_host_before_its_peers_may_count_on_it(machine: WatchedMachine) -> None:
    record, _ = moved(machine, None, BOOTS_S)
    until = time.monotonic() + BOOTS_S
    while not record.self_fence_s:
        assert time.monotonic() < until, "it promises nothing"
        record, _ = moved(machine, record, BOOTS_S)
    assert record.self_fence_s == pytest.approx(NUMBERS.gone_after_s)
    until = time.monotonic() + STEADY_S
    while time.monotonic() < until:
        record, seen_at = moved(machine, record, NUMBERS.lease_s)
    assert machine.events.empty(), machine.events.get()
    machine.hang_storage()
    reset_at = 0.0
    while not reset_at:
        event = next_event(machine, record.self_fence_s + seen_at - time.time())
        if event["event"] == "WATCHDOG":
            assert event["data"] == {"action": "reset"}
            reset_at = event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6
    print(f"seen to move last -> reset {reset_at - seen_at:.1f} s; peers wait for {record.self_fence_s:.1f} s")
    assert NUMBERS.watchdog_s < reset_at - seen_at < record.self_fence_s
    assert machine.said("the lease on the storage is lost")
    after = machine.record()
    assert after is not None and after.count <= record.count + 1


def next_event(machine: WatchedMachine, limit_s: float) -> dict[str, object]:
    try:
        return machine.events.get(timeout=max(limit_s, 0.0))
    except queue.Empty:
        raise AssertionError("it was not reset within what its record promised") from None
