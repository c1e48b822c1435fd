# SPDX-License-Identifier: Apache-2.0
"""vmhad-sim: the shipped core in a simulated datacentre, in virtual time.

    vmhad-sim story FILE... [--rewrite]
    vmhad-sim sweep FILE... [--every N] [--jobs J] [--json]
    vmhad-sim mutants [--seeds N] [--start S] [--only NAME] [--stories DIR] [--jobs J] [--json]
    vmhad-sim seeds --count N [--start S] [SHAPE] [--jobs J] [--json]
    vmhad-sim seeds --replay SEED [SHAPE] [--write DIR]
    vmhad-sim explore --depth N [--opening cut|hang] [--cpu-limit S] [--json]
    vmhad-sim noise --episodes N [--seed S] [--jobs J] [--json]
    vmhad-sim plans --clouds N [--start S] [--jobs J] [--json]
    vmhad-sim rehearse --topology FILE --fail rack:r1 [--policy FILE] [--hours H] [--seeds N] [--json]

SHAPE: [--hosts H] [--hours X] [--agents] [--lonely] [--drains] [--storages] [--rules]

Rewriting replaces what a story expects by what it does now. Read the diff; keep it only if you know what caused it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from vmhad.cmd.noise import add_noise, noise
from vmhad.cmd.plans import add_plans, plans
from vmhad.cmd.rehearsal import add_rehearse, rehearse
from vmhad.cmd.safety import add_mutants, add_sweep, mutants, sweeps
from vmhad.sim.arena import OPENINGS
from vmhad.sim.draft import StoryError
from vmhad.sim.explore import explore
from vmhad.sim.seeds import Played, play, replay_command, sow, timeline
from vmhad.sim.shrink import shrink, story_of
from vmhad.sim.story import tell
from vmhad.sim.swarm import STANDARD, Shape


def main(argv: Sequence[str] | None = None) -> int:
    """0 if every story ran as it expects (or was rewritten), 1 if one did not, 2 if one cannot be understood."""
    parser = argparse.ArgumentParser(prog="vmhad-sim", description="Run vmhad in a simulated datacentre.")
    commands = parser.add_subparsers(dest="command", required=True)
    story = commands.add_parser("story", help="run story files and compare with what they expect")
    story.add_argument("files", nargs="+", type=Path, metavar="FILE")
    story.add_argument("--rewrite", action="store_true", help="write what happens now, and print the difference")
    seeds = commands.add_parser("seeds", help="draw datacentres and disasters at random, and see that no rule breaks")
    seeds.add_argument("--count", type=int, default=20, metavar="N", help="how many seeds")
    seeds.add_argument("--start", type=int, default=1, metavar="S", help="the first of them")
    seeds.add_argument("--hosts", type=int, default=STANDARD.hosts, metavar="H", help="hosts of each datacentre")
    seeds.add_argument("--hours", type=float, default=STANDARD.hours, metavar="X", help="hours that each is watched")
    seeds.add_argument("--agents", action="store_true", help="with an agent on every host")
    seeds.add_argument("--lonely", action="store_true", help="guests fail alone in it, too")
    seeds.add_argument("--drains", action="store_true", help="hosts with agents ail, and are emptied")
    seeds.add_argument("--storages", action="store_true", help="storages cut hosts off that are lost with their BMCs")
    seeds.add_argument("--rules", action="store_true", help="domains, priorities, order groups and reach, too")
    seeds.add_argument("--jobs", type=int, default=1, metavar="J", help="processes at a time")
    seeds.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    seeds.add_argument("--replay", type=int, metavar="SEED", help="print the timeline of one seed")
    seeds.add_argument("--write", type=Path, metavar="DIR", help="with --replay: where to write its shortest story")
    ways = commands.add_parser("explore", help="two engines, one VM: every script of at most N things going wrong")
    ways.add_argument("--depth", type=int, default=1, metavar="N", help="how many things go wrong in one run, at most")
    ways.add_argument("--opening", action="append", choices=OPENINGS, help="how the first host fails; all if not given")
    ways.add_argument("--cpu-limit", type=float, default=0.0, metavar="S", help="stop after this many CPU seconds")
    ways.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    add_rehearse(commands)
    add_mutants(commands)
    add_sweep(commands)
    add_noise(commands)
    add_plans(commands)
    options = parser.parse_args(argv)
    try:
        if options.command == "rehearse":
            return rehearse(options)
        if options.command == "seeds":
            return _replay(options) if options.replay is not None else _seeds(options)
        if options.command == "explore":
            return _explore(options)
        if options.command == "plans":
            return plans(options)
        if options.command == "noise":
            return noise(options)
        if options.command == "sweep":
            return sweeps(options)
        if options.command == "mutants":
            return mutants(options)
        return _stories(options.files, options.rewrite)
    except StoryError as error:
        print(f"vmhad-sim: {error}", file=sys.stderr)
        return 2


def _stories(files: Sequence[Path], rewrite: bool) -> int:
    failed = 0
    for path in files:
        told = tell(path)
        for breach in told.breaches:
            print(f"{path}: BREACH {breach}")
        print(told.diff(), end="")
        if rewrite and told.before != told.after:
            path.write_text(told.after)
        wrong = bool(told.breaches) if rewrite else not told.is_as_expected
        failed += wrong
        print(f"{path}: {'FAILED' if wrong else 'ok'}")
    return 1 if failed else 0


def _seeds(options: argparse.Namespace) -> int:
    """1 if a rule was broken, or something is left that nobody is told of."""
    shape = _shape(options)
    told: list[Played] = []
    for played in sow(range(options.start, options.start + options.count), shape, options.jobs):
        told.append(played)
        if not options.json:
            print(f"seed {played.seed}: {'; '.join(played.failed) or 'ok'}", flush=True)
    failing = [
        {"seed": one.seed, "why": "; ".join(one.failed), "replay": replay_command(one.seed, shape)}
        for one in told
        if one.failed
    ]
    report = {
        "seeds": len(told),
        "violations": sum(len(one.violations) for one in told),
        "stuck_without_reason": sum(one.stuck_without_reason for one in told),
        "events": sum(one.events for one in told),
        "simulated_hours": round(sum(one.simulated_s for one in told) / 3600, 2),
        "stepped_hours": round(sum(one.stepped_s for one in told) / 3600, 2),
        "cpu_seconds": round(sum(one.cpu_s for one in told), 2),
        "failing_seeds": failing,
    }
    if options.json:
        print(json.dumps(report))
    else:
        print("\n".join(f"{name:<22}{value}" for name, value in report.items() if name != "failing_seeds"))
        print("\n".join(f"seed {one['seed']}: {one['replay']}" for one in failing))
    return 1 if failing else 0


def _shape(options: argparse.Namespace) -> Shape:
    with_what = (options.agents, options.lonely, options.drains, options.storages, options.rules)
    return Shape(options.hosts, options.hours, *with_what)


def _explore(options: argparse.Namespace) -> int:
    """1 if a rule was broken in any run."""
    found = explore(options.depth, tuple(options.opening or OPENINGS), options.cpu_limit)
    report = {name: value for name, value in vars(found).items() if name != "counterexamples"}
    examples = [
        {"opening": one.opening, "broken": one.broken, "choices": list(one.story)} for one in found.counterexamples
    ]
    if options.json:
        print(json.dumps(report | {"counterexamples": examples}))
        return 1 if found.violations else 0
    print("\n".join(f"{name:<22}{value}" for name, value in report.items()))
    for one in examples:
        print(f"BROKEN {one['broken']}, after {one['opening']} h1 and")
        print("\n".join(f"    {choice}" for choice in one["choices"]))
    return 1 if found.violations else 0


def _replay(options: argparse.Namespace) -> int:
    shape = _shape(options)
    played = play(options.replay, shape)
    for line in timeline(played.story):
        print(line)
    for why in played.failed:
        print(f"FAILED {why}")
    if not played.failed:
        return 0
    shortest = story_of(shrink(played), f"Seed {played.seed} failed: {played.failed[0]}")
    print(f"The shortest story found:\n\n{shortest}", end="")
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        (options.write / f"seed_{played.seed}.txt").write_text(shortest)
    return 1


if __name__ == "__main__":
    sys.exit(main())
