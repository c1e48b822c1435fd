# SPDX-License-Identifier: Apache-2.0
"""vmhad-sim plans: what is recovered, and by which rules, beside what Nova's scheduler makes of it alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from vmhad.sim.plans import HARD, SOFT, Compared, Outcome, compare_all


def add_plans(commands: Any) -> None:
    parser = commands.add_parser("plans", help="the same losses with vmhad, and with Nova's scheduler alone")
    parser.add_argument("--clouds", type=int, default=200, metavar="N", help="how many clouds are drawn")
    parser.add_argument("--start", type=int, default=0, metavar="S", help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="processes at a time")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def plans(options: argparse.Namespace) -> int:
    """1 if any plan is worse, or breaks a rule that no recovery may break."""
    told = list(compare_all(range(options.start, options.start + options.clouds), options.jobs))
    worse = [one.seed for one in told if one.is_worse]
    sides = {"nova": _side([one.nova for one in told]), "vmhad": _side([one.vmhad for one in told])}
    report = {
        "clouds": len(told),
        "vms": sum(one.vmhad.vms for one in told),
        **sides,
        "better": sum(one.is_better for one in told),
        "worse": len(worse),
        "worse_clouds": worse,
        "cpu_seconds": round(sum(one.cpu_s for one in told), 2),
    }
    print(json.dumps(report) if options.json else "\n".join(_table(report, told)))
    return 1 if worse or any(one.vmhad.hard for one in told) else 0


def _side(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "recovered": sum(one.recovered for one in outcomes),
        "error": sum(one.error for one in outcomes),
        "broken": {rule: sum(one.broken[rule] for one in outcomes) for rule in (*HARD, *SOFT)},
    }


def _table(report: dict[str, Any], told: Sequence[Compared]) -> list[str]:
    nova, ours = report["nova"], report["vmhad"]
    rows = [("of VMs lost", report["vms"], report["vms"])]
    rows += [(name, nova[name], ours[name]) for name in ("recovered", "error")]
    rows += [(f"broken: {rule}", nova["broken"][rule], ours["broken"][rule]) for rule in (*HARD, *SOFT)]
    lines = [f"{'':<28}{'Nova alone':>12}{'vmhad':>12}"]
    lines += [f"{name:<28}{theirs:>12}{mine:>12}" for name, theirs, mine in rows]
    lines += [f"of {len(told)} clouds {report['better']} better, {report['worse']} worse: {report['worse_clouds']}"]
    return lines
