# SPDX-License-Identifier: Apache-2.0
"""vmhad-sim noise: how often a host that only pauses or flaps is suspected, and that none is called dead."""

from __future__ import annotations

import argparse
import json
from typing import Any

from vmhad.sim.noise import listen


def add_noise(commands: Any) -> None:
    parser = commands.add_parser("noise", help="ordinary noise for hosts with agents: nobody dies, who is called dead?")
    parser.add_argument("--episodes", type=int, default=1000, metavar="N", help="how many, one after another")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which noise")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="processes at a time")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def noise(options: argparse.Namespace) -> int:
    """1 if somebody was called dead, or the engine's own code failed."""
    heard, cpu_s = listen(options.episodes, options.seed, options.jobs)
    report = {
        "episodes": heard.episodes,
        "false_suspect": heard.false_suspect,
        "false_failed": heard.false_failed,
        "seconds": round(cpu_s, 1),
        "simulated_hours": round(heard.simulated_s / 3600, 2),
        "suspected_by": {kind: f"{heard.by[kind]} of {drawn}" for kind, drawn in sorted(heard.drawn.items())},
        "failed": heard.failed,
        "failures": heard.failures,
    }
    if options.json:
        print(json.dumps(report))
    else:
        print("\n".join(f"{name:<16}{value}" for name, value in report.items() if not isinstance(value, dict)))
        print("\n".join(f"    {kind:<26}{count} episodes" for kind, count in report["suspected_by"].items()))
    return 1 if heard.false_failed or heard.failures else 0
