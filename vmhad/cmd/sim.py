# SPDX-License-Identifier: Apache-2.0
"""vmhad-sim: the shipped core in a simulated datacentre, in virtual time.

    vmhad-sim story FILE... [--rewrite]
    vmhad-sim sweep FILE... [--every N]

Rewriting replaces what a story expects by what it does now. Read the diff; keep it only if you know what caused it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vmhad.sim.draft import StoryError
from vmhad.sim.story import tell
from vmhad.sim.sweep import sweep


def main(argv: Sequence[str] | None = None) -> int:
    """0 if every story ran as it expects (or was rewritten), 1 if one did not, 2 if one cannot be understood."""
    parser = argparse.ArgumentParser(prog="vmhad-sim", description="Run vmhad in a simulated datacentre.")
    commands = parser.add_subparsers(dest="command", required=True)
    story = commands.add_parser("story", help="run story files and compare with what they expect")
    story.add_argument("files", nargs="+", type=Path, metavar="FILE")
    story.add_argument("--rewrite", action="store_true", help="write what happens now, and print the difference")
    crash = commands.add_parser("sweep", help="run stories again, the engine killed at each port call in turn")
    crash.add_argument("files", nargs="+", type=Path, metavar="FILE")
    crash.add_argument("--every", type=int, default=1, metavar="N", help="only every n-th call")
    options = parser.parse_args(argv)
    try:
        if options.command == "sweep":
            return _sweeps(options.files, options.every)
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


def _sweeps(files: Sequence[Path], every: int) -> int:
    worst = 0
    for path in files:
        falls = list(sweep(path, every))
        for fall in falls:
            print(f"{path}: killed at call {fall.call}: {fall.why}")
        print(f"{path}: {f'{len(falls)} deaths did harm' if falls else 'ok'}")
        worst = max(worst, bool(falls))
    return worst


if __name__ == "__main__":
    sys.exit(main())
