# SPDX-License-Identifier: Apache-2.0
"""vmhad-sim rehearse: an operator's own cloud, a failure by name, and what would have become of every VM.

vmhad-sim rehearse --topology cloud.yaml --fail rack:r1 --seeds 1000
vmhad-sim rehearse --topology cloud.yaml --policy vmhad.conf --fail host:h3,power:f1 --kind hang --json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

from vmhad.conf.settings import ConfigError
from vmhad.conf.topology import Topology
from vmhad.conf.topology_file import load_policy, load_topology
from vmhad.kernel.cloud import Server, ServerState
from vmhad.sim.day import KINDS, Failure, Terms
from vmhad.sim.failures import failures_of_engines
from vmhad.sim.rehearsal import Rehearsal
from vmhad.sim.rehearse import Fate, play

TOLD_EVERY_S = 2.0
ASSUMED_RAM_MIB = 1024


def add_rehearse(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to vmhad-sim."""
    one = commands.add_parser("rehearse", help="run days of your own cloud with a failure in each")
    one.add_argument("--topology", required=True, metavar="FILE", help="from «vmhad-manage topology export»")
    one.add_argument(
        "--policy",
        metavar="FILE",
        help="a vmhad.conf, or a .yaml of policy fields: instead of what the topology was exported with for all "
        "segments; what a segment sets for itself stays",
    )
    one.add_argument("--fail", required=True, metavar="KIND:NAME,...", help="rack:r1, host:h3, power:f1, segment:s1")
    one.add_argument("--kind", choices=tuple(KINDS), default="cut", help="how they fail (default: cut, no power)")
    one.add_argument("--hours", type=float, default=24.0, help="the length of a run (default: 24)")
    one.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many runs (default: 1000)")
    one.add_argument("--start", type=int, default=0, metavar="SEED", help="the first seed (default: 0)")
    one.add_argument("--spawn-s", default="1-20", metavar="LEAST-MOST", help="seconds a guest takes to start (1-20)")
    one.add_argument("--noise", type=float, default=1.0, help="times the small faults of a day (default: 1; 0: none)")
    one.add_argument("--vms-per-host", type=int, metavar="N", help="where the topology has no servers: assume N")
    one.add_argument("--jobs", type=int, metavar="N", help="processes (default: one a CPU)")
    one.add_argument("--json", action="store_true", help="one object instead of the report")
    one.add_argument("--timeline", action="store_true", help="with --seeds 1: everything that happened in that run")


def rehearse(options: argparse.Namespace) -> int:
    """0: no rule of safety was broken, whatever else became of the VMs; 1: one was; 2: it cannot be rehearsed."""
    try:
        told = _told(options)
    except ConfigError as error:
        print(f"vmhad-sim: {error}", file=sys.stderr)
        return 2
    rehearsal = Rehearsal(told.topology, options.fail, told.failure, told.terms, start=options.start)
    said: list[str] = []
    try:
        for fate in _fates(told, range(options.start, options.start + options.seeds), _jobs(options)):
            rehearsal.add(fate)
            said = fate.said
    except KeyboardInterrupt:
        print(f"vmhad-sim: interrupted after {rehearsal.seeds} runs", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(rehearsal.figures() | ({"timeline": said} if options.timeline else {}), indent=2))
    else:
        lines = [*said, ""] if options.timeline else []
        print("\n".join([*lines, *rehearsal.report()]))
    return 1 if rehearsal.breaches else 0


@dataclass(frozen=True)
class Told:
    """What the command line comes to."""

    topology: Topology
    failure: Failure
    terms: Terms
    timeline: bool


def _told(options: argparse.Namespace) -> Told:
    for name, least in (("seeds", 1), ("start", 0), ("jobs", 1), ("vms_per_host", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}.")
    if not 0.1 <= options.hours <= 10_000:
        raise ConfigError("--hours must be from 0.1 to 10000.")
    if not 0 <= options.noise <= 1000:
        raise ConfigError("--noise must be from 0 to 1000.")
    if options.timeline and options.seeds != 1:
        raise ConfigError("--timeline tells one run: say --seeds 1, and which by --start.")
    terms = Terms(options.hours, options.noise, _spawn_s(options.spawn_s))
    policy = load_policy(options.policy) if options.policy else None
    topology = _with_servers(load_topology(options.topology, policy), options)
    return Told(topology, Failure(failing(topology, options.fail), options.kind), terms, options.timeline)


def failing(topology: Topology, text: str) -> tuple[str, ...]:
    """The hosts of KIND:NAME,...; a kind is «host», «segment» or a kind of domain. Raises ConfigError."""
    hosts = {host.name: host for segment in topology.segments for host in segment.hosts}
    places: dict[str, dict[str, set[str]]] = {"host": {name: {name} for name in hosts}}
    places["segment"] = {segment.name: set(segment.names) for segment in topology.segments}
    for host in hosts.values():
        for kind, name in host.domains.items():
            places.setdefault(kind, {}).setdefault(name, set()).add(host.name)
    failed: set[str] = set()
    for part in text.split(","):
        kind, colon, name = part.strip().partition(":")
        if not colon:
            raise ConfigError(f"--fail: {part!r} must be KIND:NAME, such as rack:r1 or host:h3.")
        if kind not in places:
            raise ConfigError(f"--fail {part}: no host has a {kind}; there are {', '.join(sorted(places))}.")
        if name not in places[kind]:
            raise ConfigError(f"--fail {part}: there is no {kind} {name!r}; there are {_some(places[kind])}.")
        failed |= places[kind][name]
    return tuple(sorted(failed))


def _some(names: dict[str, set[str]]) -> str:
    shown = sorted(names)[:20]
    return ", ".join(shown) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _spawn_s(text: str) -> tuple[float, float]:
    try:
        least, most = (float(part) for part in text.split("-"))
    except ValueError:
        raise ConfigError(f"--spawn-s: {text!r} must be LEAST-MOST in seconds, such as 1-20.") from None
    if not 0 < least <= most <= 3600:
        raise ConfigError(f"--spawn-s: {text!r} must be within 0 and 3600 seconds, the lesser first.")
    return least, most


def _with_servers(topology: Topology, options: argparse.Namespace) -> Topology:
    """Its own, or so many small ones on each host as were asked for."""
    wanted = options.vms_per_host
    if topology.servers and wanted:
        raise ConfigError(f"--vms-per-host: {options.topology} has servers of its own.")
    if not topology.servers and not wanted:
        raise ConfigError(
            f"--topology: {options.topology} has no servers; export it from a cloud, or say --vms-per-host."
        )
    assumed = tuple(
        Server(
            f"{host}-vm{number}", f"{host}-vm{number}", host, ServerState.ACTIVE,
            volume_backed=True, ram_mib=ASSUMED_RAM_MIB,
        )
        for segment in topology.segments for host in segment.names for number in range(1, (wanted or 0) + 1)
    )  # fmt: skip
    return topology if topology.servers else replace(topology, servers=assumed)


def _jobs(options: argparse.Namespace) -> int:
    return int(min(options.jobs or len(os.sched_getaffinity(0)), options.seeds))


# The runs.


_shared: list[Told] = []


def _begin(told: Told) -> None:
    """Once in each process: what all runs share."""
    _shared[:] = [told]


def _run(seed: int) -> Fate:
    with failures_of_engines() as failures:
        fate = play(seed, _shared[0].topology, _shared[0].failure, _shared[0].terms)
    fate.breaches.extend(f"the engine failed: {one}" for one in dict.fromkeys(failures))
    return fate if _shared[0].timeline else replace(fate, said=[])


def _fates(told: Told, seeds: Sequence[int], jobs: int) -> Iterator[Fate]:
    """In the order of the seeds, with progress on standard error."""
    began = shown_at = time.monotonic()
    done = 0
    for fate in _played(told, seeds, jobs):
        yield fate
        done += 1
        now = time.monotonic()
        if now - shown_at >= TOLD_EVERY_S and done < len(seeds):
            shown_at = now
            left_s = (now - began) / done * (len(seeds) - done)
            print(f"vmhad-sim: {done} of {len(seeds)} runs, about {left_s:.0f} s to go", file=sys.stderr)


def _played(told: Told, seeds: Sequence[int], jobs: int) -> Iterator[Fate]:
    if jobs == 1:
        _begin(told)
        yield from map(_run, seeds)
        return
    # Started anew rather than forked: what this process has open is its own.
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_begin, initargs=(told,)) as pool:
        yield from pool.map(_run, seeds, chunksize=max(1, min(16, len(seeds) // (jobs * 4))))
