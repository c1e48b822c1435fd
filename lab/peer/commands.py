# SPDX-License-Identifier: Apache-2.0
"""The verbs of lab/peer/masakari: bench does it all on a lab of its own; up and down are for looking around."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from lab import bringup, hosts, rest
from lab.layout import RUN, Lab, LabError, Progress, write_private
from lab.peer import measure, service
from lab.peer.profiles import PROFILES

RESULT = RUN / "peer.json"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="lab/peer/masakari", description=f"masakari {service.RELEASE} beside a lab.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    bench = verbs.add_parser("bench", help="measure each profile on a lab of its own, then take it down")
    bench.add_argument("--name", default="peer", help="which lab (default: peer)")
    bench.add_argument("--computes", type=int, default=4, metavar="N", help="number of hosts (default: 4)")
    bench.add_argument("--vms", type=int, default=20, metavar="N", help="VMs on the host that dies (default: 20)")
    bench.add_argument("--profile", action="append", choices=sorted(PROFILES), help="default: every one")
    up = verbs.add_parser("up", help="start masakari beside a lab that is up")
    up.add_argument("--name", default="lab", help="which lab (default: lab)")
    up.add_argument("--profile", default="default", choices=sorted(PROFILES))
    down = verbs.add_parser("down", help="stop masakari, leave the lab")
    down.add_argument("--name", default="lab", help="which lab (default: lab)")
    return top


def bench(lab: Lab, names: list[str], computes: int, vms: int, say: Progress) -> None:
    """Writes what was measured so far after each run. The lab goes down, and stays to be read if something failed."""
    runs: list[measure.Row] = []
    try:
        with lab.lock():
            bringup.up(lab.reload(), say, computes=computes)
        service.install()
        for name in names:
            hosts.restore(lab, measure.VICTIM, say, enable=True)
            say(f"masakari, profile {name}: {vms} VMs on {measure.VICTIM}, then its power is cut")
            runs.append(measure.run(lab, PROFILES[name], vms))
            runs[-1]["load_1min"] = round(os.getloadavg()[0], 1)
            write_private(RESULT, json.dumps(report(runs), indent=1) + "\n", mode=0o644)
            say(json.dumps(runs[-1]))
            service.down(lab)
    finally:
        with lab.lock():
            bringup.down(lab.reload(), say, wipe=len(runs) == len(names))


def report(runs: list[measure.Row]) -> measure.Row:
    return {
        "peer": f"masakari {service.RELEASE}",
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpus": os.cpu_count(),
        "clock_starts": "when the host's power is cut; masakari is notified in that instant, its detection left out",
        "runs": runs,
    }


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    say = Progress()
    lab = Lab(args.name)
    try:
        if args.verb == "bench":
            bench(lab, args.profile or list(PROFILES), args.computes, args.vms, say)
            say(f"written to {RESULT}")
        elif args.verb == "up":
            service.install()
            say(f"masakari runs at {service.up(lab, PROFILES[args.profile])}/v1")
        else:
            service.down(lab)
            say("masakari is down")
        return 0
    except (LabError, rest.RestError) as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    return 1
