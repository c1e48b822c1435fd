# SPDX-License-Identifier: Apache-2.0
"""How long it takes to know of a failure, kind by kind, and to begin to mend it.

Real nova-compute, libvirt and QEMU guests on four hosts that are namespaces, an agent on each, one engine, Nova's
default intervals. A verdict's time is the engine's own log, a restart's (or first evacuation's) its timeline; they are
counted from just before the fault is made, or for a full storage from the guest's last write. A kind whose bound is
broken ends it with 1. Needs root, as `lab/cloud up --virt qemu` does.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import vmhad.cmd  # noqa: E402, F401  before all else: it chooses threads
from lab import hosts  # noqa: E402
from lab.agent import AgentProcess  # noqa: E402
from lab.cloud_lab import CloudLab  # noqa: E402
from lab.engine import EngineProcess, forget_journal  # noqa: E402
from lab.layout import Lab  # noqa: E402
from lab.qemu import small_storage  # noqa: E402
from lab.report import watcher_of  # noqa: E402

RUN = Path(__file__).resolve().parents[2] / "lab" / "run"
# The fewest of which each has peers that see one another, so that they can speak of one that is gone.
HOSTS = 4
VICTIM = "host01"
LIMIT_S = 150.0
COUNTS_AT_LEAST = 15
# A host rests so long between two faults, for what the last one left behind to be over.
REST_S = 10.0
# Each is one of those that a budget of three in half an hour would leave alone.
POLICY = {"instance_starts_max": 100}
Row = dict[str, Any]
Fault = Callable[[Lab, str], str]


@dataclass(frozen=True)
class Kind:
    """verdict, because: what the engine's log must say of the host; of a VM its incident says it. restart: the line of
    the timeline that begins to mend it; '' where nothing is to be restarted. verdict_max_s, restart_max_s: 0 for none.
    """

    name: str
    verdict: str = "FAILED"
    because: str = ""
    restart: str = ""
    fault: Fault | None = None
    verdict_max_s: float = 0.0
    restart_max_s: float = 0.0


FATAL = (
    Kind("host_death", restart="EVACUATE STARTED", fault=hosts.cut, verdict_max_s=10.0),
    Kind("host_hang", restart="EVACUATE STARTED", fault=hosts.freeze, verdict_max_s=10.0),
)
PASSING = (
    Kind("management_lost", "SUSPECT", "cut off", fault=hosts.isolate),
    Kind("storage_lost", "SUSPECT", "does not reach the storage", fault=hosts.lose_storage),
    Kind("libvirtd_dead", "DEGRADED", "its libvirtd does not run", fault=hosts.stop_libvirtd),
    Kind("nova_compute_dead", "DEGRADED", "nova-compute", fault=hosts.stop_compute),
)
OF_VMS = (
    Kind("vm_crash", restart="RESTART STARTED", restart_max_s=3.0),
    Kind("vm_panic", because="panicked", restart="RESTART STARTED"),
)
ON_A_SMALL_STORAGE = (Kind("vm_io_error", because="its disk fail", restart="RESTART STARTED"),)
KINDS = (*FATAL, *OF_VMS, *ON_A_SMALL_STORAGE, *PASSING)


class Bench:
    def __init__(self, name: str, rounds: int) -> None:
        self.lab = CloudLab.up(name, HOSTS, "--virt", "qemu")
        self.at_home = Lab(name)
        self.rounds = rounds
        self.results: dict[str, Row] = {}
        self.complaints: list[str] = []

    @contextmanager
    def watched(self) -> Iterator[EngineProcess]:
        """An engine that has heard every agent and found every host well."""
        forget_journal(self.lab.facts)
        master = secrets.token_bytes(32)
        agents = [AgentProcess(self.lab.facts, host, None, master) for host in self.lab.hosts]
        engine = EngineProcess(self.lab.facts, self.at_home.root, agents=master, policy=POLICY)
        try:
            for agent in agents:
                agent.start()
            engine.start()
            self.all_well(engine)
            yield engine
        finally:
            engine.stop()
            for agent in agents:
                agent.stop()

    def all_of(self, kinds: list[Kind]) -> None:
        """One group after another; what goes wrong in one ends that one only."""
        groups: list[tuple[Callable[[tuple[Kind, ...]], None], tuple[Kind, ...]]] = [
            (self.on_a_small_storage, ON_A_SMALL_STORAGE), (self.of_vms, OF_VMS), (self.passing, PASSING),
            *((self.fatal, (kind,)) for kind in FATAL),
        ]  # fmt: skip
        for measure, group in groups:
            chosen = tuple(kind for kind in group if kind in kinds)
            try:
                if chosen:
                    measure(chosen)
            except AssertionError as error:
                self.complaints.append(f"{', '.join(kind.name for kind in chosen)}: {error}")

    def all_well(self, engine: EngineProcess) -> None:
        self.lab.wait("every host is well", lambda: all(is_well(engine, host) for host in self.lab.hosts), LIMIT_S)
        time.sleep(REST_S)

    def fatal(self, kinds: tuple[Kind, ...]) -> None:
        """Each round from the beginning: the host is dead for good, and its VM has gone elsewhere."""
        (kind,) = kinds
        assert kind.fault is not None
        for _ in range(self.rounds):
            self.lab.reset()
            self.lab.boot(1, host=VICTIM)
            with self.watched() as engine:
                at = time.time()
                kind.fault(self.at_home, VICTIM)
                begun_at = self.line(engine, kind.restart, at)
                self.keep(kind, self.judged(engine, kind, at) - at, begun_at - at)
        self.lab.reset()

    def passing(self, kinds: tuple[Kind, ...]) -> None:
        """The host gets over it: one engine sees all rounds."""
        self.lab.reset()
        with self.watched() as engine:
            for kind in kinds:
                assert kind.fault is not None
                for _ in range(self.rounds):
                    at = time.time()
                    kind.fault(self.at_home, VICTIM)
                    self.keep(kind, self.judged(engine, kind, at) - at)
                    self.lab.command("restore", VICTIM)
                    self.all_well(engine)

    def of_vms(self, kinds: tuple[Kind, ...]) -> None:
        """One guest fails again and again while its host is well. One with a panic device crashes like any other."""
        self.lab.reset()
        self.lab.switch(VICTIM, "panic_device")
        suffers = {"vm_crash": hosts.lose_guest, "vm_panic": hosts.panic}
        with self.guest() as (engine, server):
            for kind in kinds:
                for _ in range(self.rounds):
                    at = time.time()
                    suffers[kind.name](self.at_home, VICTIM, server)
                    self.restarted(kind, engine, server, at)

    def on_a_small_storage(self, kinds: tuple[Kind, ...]) -> None:
        (kind,) = kinds
        self.lab.reset()
        with small_storage.small_storage(self.at_home) as folder:
            with self.guest() as (engine, server):
                for _ in range(self.rounds):
                    self.fill(kind, engine, server, folder)
            self.lab.reset()

    @contextmanager
    def guest(self) -> Iterator[tuple[EngineProcess, str]]:
        """A guest that counts, and its watcher."""
        (server,) = self.lab.boot(1, host=VICTIM)
        self.watcher = watcher_of(self.at_home).start()
        try:
            self.counts_on(server)
            with self.watched() as engine:
                yield engine, server
        finally:
            report = self.watcher.stop()
        assert not report["doubles"], report["doubles"]

    def fill(self, kind: Kind, engine: EngineProcess, server: str, folder: Path) -> None:
        began = time.time()
        small_storage.make_sparse(folder / server / "disk", self.boot_of(server)["last"])
        small_storage.fill(folder)
        try:
            self.line(engine, kind.restart, began)
            last_at = self.boot_of(server)["last_seen"]
        finally:
            small_storage.make_room(folder)
        self.restarted(kind, engine, server, last_at)

    def restarted(self, kind: Kind, engine: EngineProcess, server: str, at: float) -> None:
        """Writes down when it was judged and restarted, and waits until it is well."""
        begun_at = self.line(engine, kind.restart, at)
        self.keep(kind, self.line(engine, "FENCING", at, kind.because) - at, begun_at - at)
        self.line(engine, "CLOSED", at)
        self.counts_on(server, at)
        time.sleep(REST_S)

    def boot_of(self, server: str) -> Row:
        """The newest boot that wrote to the server's disk."""
        found: list[Row] = self.watcher.report()["disks"].get(server, [])
        return found[-1] if found else {"first": 0, "last": 0, "first_seen": 0.0}

    def counts_on(self, server: str, since: float = 0.0) -> None:
        def counts() -> bool:
            boot = self.boot_of(server)
            return bool(boot["first_seen"] > since and boot["last"] >= boot["first"] + COUNTS_AT_LEAST)

        self.lab.wait("the guest counts", counts, LIMIT_S)

    def line(self, engine: EngineProcess, word: str, since: float, text: str = "") -> float:
        def found() -> list[float]:
            rows = engine.lines()
            return [row["at"] for row in rows if row["word"] == word and text in row["text"] and row["at"] > since]

        return float(self.lab.wait(f"{word} {text}", found, LIMIT_S)[0])

    def judged(self, engine: EngineProcess, kind: Kind, since: float) -> float:
        def found() -> list[float]:
            rows = [row for row in engine.verdicts(VICTIM) if row["at"] > since]
            return [row["at"] for row in rows if row["judgement"] == kind.verdict and kind.because in row["because"]]

        return float(self.lab.wait(f"{kind.name}: {kind.verdict}", found, LIMIT_S)[0])

    def keep(self, kind: Kind, to_verdict_s: float, to_restart_s: float | None = None) -> None:
        row = self.results.setdefault(kind.name, {"verdict": kind.verdict, "to_verdict_s": [], "to_restart_s": []})
        row["to_verdict_s"].append(round(to_verdict_s, 2))
        if to_restart_s is not None:
            row["to_restart_s"].append(round(to_restart_s, 2))
        begun = "" if to_restart_s is None else f", restart after {to_restart_s:.2f} s"
        print(f"{kind.name}: {kind.verdict} after {to_verdict_s:.2f} s{begun}", flush=True)


def is_well(engine: EngineProcess, host: str) -> bool:
    said = engine.verdicts(host)
    return bool(said) and said[-1]["judgement"] == "HEALTHY"


def summed_up(seconds: list[float]) -> Row | None:
    if not seconds:
        return None
    return {"median": round(statistics.median(seconds), 2), "max": max(seconds), "rounds": seconds}


def broken(kind: Kind, row: Row | None) -> Iterator[str]:
    if row is None:
        yield f"{kind.name} was not measured."
        return
    for what, bound in (("to_verdict_s", kind.verdict_max_s), ("to_restart_s", kind.restart_max_s)):
        if bound and row[what]["max"] > bound:
            yield f"{kind.name}: {what} was {row[what]['max']:g} s, more than the {bound:g} s that are promised."


def show(results: dict[str, Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("kind", "verdict", "to verdict, s", "max", "to restart, s", "max")
    for name, row in results.items():
        told = [row["to_verdict_s"], row["to_restart_s"] or {"median": "-", "max": "-"}]
        cells = [str(part[key]) for part in told for key in ("median", "max")]
        table.add_row(name, row["verdict"], *cells)
    Console(width=100).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="detect", help="which lab; it is wiped at the end")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=[kind.name for kind in KINDS], help="only these")
    told = parser.parse_args()
    bench = Bench(told.name, told.rounds)
    wanted = [kind for kind in KINDS if not told.kinds or kind.name in told.kinds]
    try:
        bench.all_of(wanted)
    finally:
        bench.lab.command("down", "--wipe")
    results = {
        kind.name: row | {what: summed_up(row[what]) for what in ("to_verdict_s", "to_restart_s")}
        for kind in wanted for row in [bench.results.get(kind.name)] if row
    }  # fmt: skip
    (RUN / "detect.json").write_text(json.dumps({"hosts": HOSTS, "kinds": results}, indent=1) + "\n")
    show(results)
    complaints = bench.complaints + [text for kind in wanted for text in broken(kind, results.get(kind.name))]
    print("\n".join(complaints), file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
