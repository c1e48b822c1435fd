# SPDX-License-Identifier: Apache-2.0
"""Whether one engine keeps up with the beats of a thousand agents, and a burst of Nova's notifications beside them.

One real RabbitMQ, the agents and a Nova as processes of their own, and the engine's ears in another (scale_engine.py).
First the engine is without agents, then come beats alone, then notifications at their usual rate beside them, then ten
times as many of these. CPU is the engine process's own, of all its threads; what a beat costs is what it takes more
than without agents. The age of a beat is from its making to its reading by the engine's tick. One host dies at the
usual rate and one in the burst: how long after its last beat it is suspected, and to be fenced.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.scale_agents import boot_s  # noqa: E402
from tests.broker import Broker, is_installed  # noqa: E402

START_S, WARM_UP_S, SETTLE_S = 12.0, 8.0, 6.0
Row = dict[str, Any]


def process(script: str, *words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "bench" / script), *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def result(one: subprocess.Popen[str]) -> Row:
    text, _ = one.communicate(timeout=600)
    if one.returncode != 0:
        raise RuntimeError(f"{one.args!r} ended with {one.returncode}")
    told: Row = json.loads(text)
    return told


def measured(broker: Broker, told: argparse.Namespace) -> Row:
    began = boot_s() + START_S
    heard = began + told.idle_seconds
    alone = heard + WARM_UP_S
    usual = alone + told.seconds
    burst = usual + told.usual_seconds
    over = burst + told.burst_seconds
    end = over + SETTLE_S
    phases = [("no agents", began, heard), ("beats alone", alone, usual), ("usual", usual, burst),
              ("burst", burst, over), ("after", over, end)]  # fmt: skip
    deaths = [(1, usual + 1.0), (told.hosts // 2, burst + 1.0)]
    engine_told = {"url": broker.url, "hosts": told.hosts, "phases": phases, "deaths": deaths}
    beats_told = {"url": broker.url, "hosts": told.hosts, "guests": told.guests, "connections": told.connections,
                  "until": end, "deaths": deaths}  # fmt: skip
    nova_told = {"url": broker.url, "hosts": told.hosts, "usual_per_s": told.usual, "times": told.times,
                 "begins": usual, "burst_from": burst, "burst_until": over, "until": end - 1.0}  # fmt: skip
    started: list[subprocess.Popen[str]] = []
    try:
        started.append(process("scale_engine.py", json.dumps(engine_told)))
        # The queue of notifications is Nova's and vmhad's: either end makes it. Here the engine does.
        broker_cpu_s = broker.cpu_s()
        wait_until(heard)
        started.append(process("scale_agents.py", "beats", json.dumps(beats_told)))
        started.append(process("scale_agents.py", "notifications", json.dumps(nova_told)))
        engine, agents, nova = (result(one) for one in started)
    finally:
        for one in started:
            if one.poll() is None:
                one.kill()
                one.wait()
    return summary(told, engine, agents, nova) | {"broker_cpu_s": broker.cpu_s() - broker_cpu_s}


def wait_until(at: float) -> None:
    while (left_s := at - boot_s()) > 0:
        time.sleep(left_s)


def summary(told: argparse.Namespace, engine: Row, agents: Row, nova: Row) -> Row:
    idle, alone, usual, burst, after = engine["phases"]
    idle_cpu_per_s = idle["cpu_s"] / idle["seconds"]
    for phase in engine["phases"][1:]:
        phase["cpu_s_per_1000_beats"] = 1000 * (phase["cpu_s"] - idle_cpu_per_s * phase["seconds"]) / phase["beats"]
    deaths = [verdict_of(host, made_at, engine["verdicts"]) for host, made_at in sorted(agents["last_beats"].items())]
    return {
        "hosts": told.hosts,
        "guests_per_host": told.guests,
        "bytes_per_beat": agents["bytes"],
        "cpus": os.cpu_count(),
        "cpu_s_per_1000_beats": alone["cpu_s_per_1000_beats"],
        "cpu_s_per_s_without_agents": idle_cpu_per_s,
        "oldest_beat_at_judge_s": max(phase["oldest_beat_s"] for phase in engine["phases"]),
        "usual_to_suspected_s": deaths[0]["SUSPECTED"],
        "burst_to_suspected_s": deaths[1]["SUSPECTED"],
        "usual_to_fencing_s": deaths[0]["FENCING"],
        "burst_to_fencing_s": deaths[1]["FENCING"],
        "burst_delays_beats_by_s": max(
            0.0, max(burst["oldest_beat_s"], after["oldest_beat_s"]) - alone["oldest_beat_s"]
        ),
        # Not max(), which may pass over what is not a number.
        "burst_delays_suspected_by_s": deaths[1]["SUSPECTED"] - deaths[0]["SUSPECTED"],
        "burst_delays_fencing_by_s": deaths[1]["FENCING"] - deaths[0]["FENCING"],
        "oldest_nudge_usual_s": usual["oldest_nudge_s"],
        "oldest_nudge_burst_s": max(burst["oldest_nudge_s"], after["oldest_nudge_s"]),
        "beats_sent": agents["sent"],
        "beats_not_read": engine["counts_not_read"],
        "hosts_heard": engine["hosts_heard"],
        "notifications_sent": nova["sent"],
        "notifications_heard": engine["notifications_heard"],
        "notifications_lost": nova["sent"] - engine["notifications_heard"],
        "usual_notifications_per_s": told.usual,
        "burst_notifications_per_s": told.usual * told.times,
        "agents_cpu_s": agents["cpu_s"],
        "phases": engine["phases"],
        "verdicts": engine["verdicts"],
    }


def verdict_of(host: str, made_at: float, verdicts: Sequence[Sequence[Any]]) -> dict[str, float]:
    """How long after its last beat the host came to each state first; NaN where it did not."""
    found: dict[str, float] = dict.fromkeys(("SUSPECTED", "FENCING"), math.nan)
    for subject, word, at, _ in reversed(verdicts):
        if subject == f"host {host}":
            found[word] = at - made_at
    return found


def show(row: Row) -> None:
    from rich.console import Console
    from rich.table import Table

    keys = ("seconds", "cpu_s", "beats", "cpu_s_per_1000_beats", "oldest_beat_s", "median_beat_s", "age_off_max_s",
            "nudges", "oldest_nudge_s", "ticks", "longest_tick_s")  # fmt: skip
    table = Table("phase", "s", "CPU s", "beats", "CPU s per 1000", "oldest beat s", "median s", "age off by s",
                  "nudges", "oldest nudge s", "ticks", "longest tick s")  # fmt: skip
    for phase in row["phases"]:
        cells = [phase.get(key, math.nan) for key in keys]
        table.add_row(phase["phase"], *(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells))
    Console(width=170).print(table)
    for key, value in row.items():
        if key not in ("phases", "verdicts"):
            print(f"{key:<28} {value:.3f}" if isinstance(value, float) else f"{key:<28} {value}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--guests", type=int, default=50, help="of each host, all of them in every beat")
    parser.add_argument("--idle-seconds", type=float, default=20.0, help="without agents")
    parser.add_argument("--seconds", type=float, default=40.0, help="of beats alone")
    parser.add_argument("--usual-seconds", type=float, default=15.0)
    parser.add_argument("--burst-seconds", type=float, default=20.0)
    parser.add_argument("--usual", type=float, default=30.0, help="notifications a second")
    parser.add_argument("--times", type=float, default=10.0, help="so many times as often in the burst")
    parser.add_argument("--connections", type=int, default=50, help="that the agents share")
    told = parser.parse_args()
    if not is_installed():
        print("scale: RabbitMQ is not installed; «make packages» does it.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="vmhad-scale-") as where:
        broker = Broker(Path(where))
        broker.start()
        try:
            row = measured(broker, told)
        finally:
            broker.end()
    place = ROOT / "lab" / "run" / "scale.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(row, indent=1) + "\n")
    show(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
