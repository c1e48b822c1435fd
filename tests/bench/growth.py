# SPDX-License-Identifier: Apache-2.0
"""How the cost of a tick, and the memory of an engine, grow with the hosts it watches; linear is the promise.

One segment of N hosts in the simulated datacentre, one engine, virtual time. Measured is the engine alone: what its
tick takes of the CPU in calm and while one host of ten VMs is recovered, and what its own modules have allocated.
Ratios are to the case of 100 hosts, from one run, so that the machine they were measured on does not matter.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from vmhad.kernel.incident import State  # noqa: E402
from vmhad.sim.draft import Draft  # noqa: E402
from vmhad.sim.world import World  # noqa: E402

SIZES = (10, 100, 1_000, 10_000)
COMPARED_WITH = 100
VMS_OF_VICTIM = 10
HOSTS_OF_RACK = 20
WARM_UP_S, CALM_S, RECOVERY_MAX_S = 40.0, 30.0, 120.0
ENGINE = tuple(str(ROOT / "vmhad" / folder / "*") for folder in ("engine", "kernel", "guards", "journal"))
Row = dict[str, Any]


def built(hosts: int) -> World:
    draft = Draft()
    draft.add_segment("all", {})
    for number in range(hosts):
        draft.add_host(f"h{number:05}", {"rack": f"r{number // HOSTS_OF_RACK}"})
    for number in range(VMS_OF_VICTIM):
        draft.add_vm(f"vm{number}", "h00001", set(), {})
    return draft.build()


@contextmanager
def timed_ticks(world: World) -> Iterator[list[float]]:
    """Seconds of CPU of every tick of the engine within."""
    engine = world.nodes["e1"].engine
    taken: list[float] = []
    tick: Callable[[], float] = engine.tick

    def timed() -> float:
        began = time.process_time()
        try:
            return tick()
        finally:
            taken.append(time.process_time() - began)

    engine.tick = timed  # type: ignore[method-assign]
    gc.collect()
    gc.disable()
    try:
        yield taken
    finally:
        gc.enable()
        del engine.tick


def ticks_of(hosts: int) -> Row:
    world = built(hosts)
    world.run(WARM_UP_S)
    with timed_ticks(world) as calm:
        world.run(CALM_S)
    world.datacentre.cut("h00001")
    with timed_ticks(world) as recovery:
        world.run_while(lambda: not is_recovered(world), RECOVERY_MAX_S)
    if not is_recovered(world):
        raise RuntimeError(f"the host was not recovered among {hosts}")
    return {
        "hosts": hosts,
        "calm_tick_ms": 1000 * statistics.mean(calm),
        "recovery_tick_ms": 1000 * statistics.mean(recovery),
        "longest_tick_ms": 1000 * max(recovery),
        "recovery_ticks": len(recovery),
    }


def is_recovered(world: World) -> bool:
    book = world.nodes["e1"].engine.books["all"]
    return any(one.state is State.RECOVERED for one in book.open_incidents())


def memory_of(hosts: int) -> Row:
    """KiB that the engine's own modules hold for each host, with one host's incident open."""
    gc.collect()
    tracemalloc.start()
    try:
        world = built(hosts)
        world.run(5.0)
        world.datacentre.cut("h00001")
        world.run(5.0)
        gc.collect()
        kept = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, files) for files in ENGINE])
    finally:
        tracemalloc.stop()
    total = sum(one.size for one in kept.statistics("filename"))
    return {"engine_kib": total / 1024, "kib_per_host": total / 1024 / hosts}


def with_ratios(rows: list[Row]) -> list[Row]:
    base = next((row for row in rows if row["hosts"] == COMPARED_WITH), None)
    for row in rows if base else []:
        for key in ("calm_tick_ms", "recovery_tick_ms", "longest_tick_ms", "engine_kib"):
            row[f"{key}_ratio"] = row[key] / base[key]
    return rows


def show(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("hosts", "calm tick ms", "x", "recovery tick ms", "x", "longest tick ms", "x", "engine KiB", "x",
                  "KiB a host", caption=f"x: times the case of {COMPARED_WITH} hosts")  # fmt: skip
    for row in rows:
        cells = [str(row["hosts"])]
        for key in ("calm_tick_ms", "recovery_tick_ms", "longest_tick_ms", "engine_kib"):
            cells += [f"{row[key]:.3g}", f"{row.get(f'{key}_ratio', float('nan')):.3g}"]
        table.add_row(*cells, f"{row['kib_per_host']:.3g}")
    Console(width=140).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="how many hosts")
    told = parser.parse_args()
    rows = with_ratios([ticks_of(hosts) | memory_of(hosts) for hosts in told.sizes])
    place = ROOT / "lab" / "run" / "growth.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(rows, indent=1) + "\n")
    show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
