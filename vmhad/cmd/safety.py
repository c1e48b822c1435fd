# SPDX-License-Identifier: Apache-2.0
"""vmhad-sim mutants and vmhad-sim sweep: whether the simulator would see a guard that is off, and a death at any call.

One JSON object with --json; without it a line for each, and the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmhad.sim.mutants import NASTY, figures, hunt_all, named
from vmhad.sim.mutants_list import MUTANTS
from vmhad.sim.sweep import sweep_all

STORIES = Path("tests/stories")


def add_mutants(commands: Any) -> None:
    parser = commands.add_parser(
        "mutants", help="switch each guard of the core off in turn, and see that seeds find it"
    )
    parser.add_argument("--seeds", type=int, default=400, metavar="N", help="how many to try beside the one on record")
    parser.add_argument("--start", type=int, default=0, metavar="S", help="the first of them")
    parser.add_argument(
        "--stories", type=Path, default=STORIES, metavar="DIR", help="where the stories are that some are found by"
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="this mutant; may be given several times")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="processes at a time")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def mutants(options: argparse.Namespace) -> int:
    """0 if every mutant was found, 1 if one survived, 2 if there is none of that name, or not its story."""
    known = [one.name for one in MUTANTS]
    for name in options.only or []:
        if name not in known:
            print(f"vmhad-sim: --only {name}: there is no such mutant; there are {', '.join(known)}.", file=sys.stderr)
            return 2
    verdicts = []
    chosen = [named(name) for name in options.only or known]
    missing = sorted({one.story for one in chosen if one.story and not (options.stories / f"{one.story}.txt").exists()})
    if missing:
        where = f"vmhad-sim: --stories {options.stories}:"
        print(f"{where} there is no {missing[0]}.txt; it is tests/stories of vmhad's sources.", file=sys.stderr)
        return 2
    seeds = range(options.start, options.start + options.seeds)
    for verdict in hunt_all(chosen, seeds, options.jobs, options.stories):
        verdicts.append(verdict)
        if not options.json:
            by = f"story {verdict.story}" if verdict.story else f"seed {verdict.seed}"
            fate = f"{by}: {verdict.why}" if verdict.is_killed else "SURVIVES"
            print(f"{verdict.name:<26} {fate}", flush=True)
    report = {**figures(verdicts), "hosts": NASTY.hosts, "hours": NASTY.hours}
    _print(report, options.json, without=("by",))
    return 1 if report["survivors"] else 0


def add_sweep(commands: Any) -> None:
    parser = commands.add_parser("sweep", help="run stories again, the engine killed at each port call in turn")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every n-th call")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="processes at a time")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def sweeps(options: argparse.Namespace) -> int:
    """0 if no death did harm, 1 if one did."""
    swept = []
    for one in sweep_all(options.files, options.every, options.jobs):
        swept.append(one)
        if not options.json:
            for fall in one.falls:
                print(f"{one.story}: killed {fall.death.when} call {fall.death.call}: {fall.why}")
            print(f"{one.story}: {f'{len(one.falls)} deaths did harm' if one.falls else 'ok'}", flush=True)
    falls = [
        {"story": one.story, "call": fall.death.call, "when": fall.death.when, "why": fall.why}
        for one in swept
        for fall in one.falls
    ]
    report = {
        "stories": len(swept),
        "crash_points": sum(one.points for one in swept),
        "failures": len(falls),
        "alike_only_after_mending": sum(one.healed for one in swept),
        "cpu_seconds": round(sum(one.cpu_s for one in swept), 2),
        "failed": falls,
    }
    _print(report, options.json, without=("failed",))
    return 1 if falls else 0


def _print(report: Mapping[str, Any], as_json: bool, without: tuple[str, ...]) -> None:
    if as_json:
        print(json.dumps(report))
    else:
        print("\n".join(f"{name:<22}{value}" for name, value in report.items() if name not in without))
