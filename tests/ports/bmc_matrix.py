# SPDX-License-Identifier: Apache-2.0
"""What a BMC's behaviour leads to at the level of a fence: the engine that is shipped, its clock and its drivers, over
real IPMI and real Redfish in software. Only Nova is played: its computes beat, until one of them hangs.

Each row is a segment of a host that fails and one that lives on. Run as a program it writes the table of the docs:

    python tests/ports/bmc_matrix.py
"""

from __future__ import annotations

import re
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2])]

import vmhad.cmd  # noqa: F401  before all else: it chooses threads
from tests.ports.between import Between, slowly
from tests.ports.bmc_rows import KINDS, NOT_PROVEN, PROVEN, ROWS, VOID, Chassis, Row, host_of
from tests.ports.ipmi_sim import IpmiSim
from tests.ports.redfish_sim import RedfishSim, certificate
from vmhad.drivers.clock import SystemClock
from vmhad.drivers.power.by_host import ByHost, Polled
from vmhad.drivers.power.ipmi import Ipmi
from vmhad.drivers.power.redfish import Redfish
from vmhad.drivers.store.sqlite import SqliteStore
from vmhad.drivers.watch.bmc_power import BmcPowerWatch
from vmhad.drivers.watch.nova_services import NovaServicesWatch
from vmhad.drivers.workers import ThreadWorkers
from vmhad.engine.loop import Engine
from vmhad.engine.timeline import Line
from vmhad.kernel.cloud import ComputeService
from vmhad.kernel.policy import Policy, SilentMeans
from vmhad.kernel.signal import Channel
from vmhad.kernel.topology import Host, Segment
from vmhad.ports import Unanswered

DOCUMENT = Path(__file__).parents[2] / "doc" / "source" / "admin" / "bmc_matrix.rst"
TIMEOUT_S, POLL_TIMEOUT_S = 2.5, 2.0
SETTLED_S = 30.0
POLICY = Policy(
    silent_means=SilentMeans.FENCE,
    failed_share_max=1.0,
    fences_in_flight_max=64,
    power_off_deadline_s=6.0,
    fence_attempts_max=3,
)


@dataclass(frozen=True)
class Outcome:
    """seconds: from the first STARTED of power_off to what the verdict says. because: the engine's own words."""

    verdict: str
    seconds: float
    because: str


class PlayedNova:
    """Its computes beat every second, but for those that hang. It has no VM, and changes nothing."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = hosts
        self.hung: dict[str, str] = {}

    def services(self) -> tuple[ComputeService, ...]:
        now = str(int(time.monotonic()))
        return tuple(
            ComputeService(host, host not in self.hung, True, "", False, self.hung.get(host, now))
            for host in self._hosts
        )

    def fail(self, host: str) -> None:
        self.hung[host] = str(int(time.monotonic()))

    def fallen(self, host: str) -> tuple[()]:
        return ()

    def stopped_lately(self, within_s: float) -> tuple[()]:
        return ()

    def __getattr__(self, name: str) -> Any:
        def refuse(*args: object) -> None:
            raise Unanswered("Nova only tells of its computes here")

        return refuse


class Alone:
    """The only engine there is."""

    def beat(self) -> None:
        """To nobody."""

    def should_own(self, segment: str) -> bool:
        return True


class Rack:
    """The BMCs of all rows, and one of a host that lives on."""

    def __init__(self, where: Path, rows: Sequence[tuple[Row, str]], ends: ExitStack) -> None:
        self._where, self._ends = where, ends
        self.chassis: dict[str, Chassis] = {}
        self.drivers: dict[str, Polled] = {}
        bystander = self._ipmi_sim("bystander")
        lives = Ipmi({}, TIMEOUT_S)
        shared = RedfishSim(where / "redfish", [host_of(row, kind) for row, kind in rows])
        ends.callback(shared.stop)
        shared.start()
        self._other_ca = certificate(_made(where / "other"))[0]
        for row, kind in rows:
            host = host_of(row, kind)
            self._open(row, host, shared) if kind == "redfish" else self._open_ipmi(row, host)
            lives._bmcs[f"{host}-beside"] = bystander.bmc()
            self.drivers[f"{host}-beside"] = lives

    def _ipmi_sim(self, name: str) -> IpmiSim:
        sim = IpmiSim(self._where / name)
        self._ends.callback(sim.stop)
        sim.start()
        return sim

    def _open_ipmi(self, row: Row, host: str) -> None:
        sim = self._ipmi_sim(host)
        bmc = sim.bmc(**row.changes.get("ipmi", {}))
        if row.slow_s:
            between = self._ends.enter_context(Between(slowly(row.slow_s), sim.port))
            bmc = replace(bmc, port=between.port)
        self.drivers[host] = Ipmi({host: bmc}, TIMEOUT_S)
        self.chassis[host] = Chassis(
            lambda: sim.is_on, sim.set_power, lambda: bool(sim.commands()), sim.stop, sim.start, sim.hang
        )

    def _open(self, row: Row, host: str, shared: RedfishSim) -> None:
        sim = shared
        if row.own:
            sim = RedfishSim(self._where / host, [host])
            self._ends.callback(sim.stop)
            sim.start()
        changes = dict(row.changes.get("redfish", {}))
        if "ca_file" in changes:
            changes["ca_file"] = self._other_ca
        if row.slow_s:
            sim.mood(f"slow {row.slow_s}", host)
        self.drivers[host] = Redfish({host: sim.bmc(host, **changes)}, TIMEOUT_S)
        self.chassis[host] = Chassis(
            lambda: sim.is_on(host),
            lambda on: sim.set_power(on, host),
            lambda: bool(sim.commands(host)),
            # Its process takes seconds to start on a busy machine; away it is just as well while it does nothing.
            sim.hang,
            sim.resume,
            lambda: sim.mood("silent", host),
        )


def _made(where: Path) -> Path:
    where.mkdir()
    return where


class Cloud:
    """An engine over a rack, ticking in a thread of its own."""

    def __init__(self, where: Path, rows: Sequence[tuple[Row, str]], ends: ExitStack, interval_s: float = 1.0) -> None:
        self.rack = Rack(where, rows, ends)
        self.lines: list[Line] = []
        self.clock = SystemClock()
        hosts = [host_of(row, kind) for row, kind in rows]
        segments = [Segment(host, (Host(host), Host(f"{host}-beside"))) for host in hosts]
        self._names = names = [name for segment in segments for name in segment.names]
        self.nova = PlayedNova(names)
        power = ByHost(self.rack.drivers)
        workers = ThreadWorkers(64, self.clock)
        ends.callback(workers.stop)
        watches = (
            NovaServicesWatch(self.nova, names, self.clock, interval_s),  # type: ignore[arg-type]
            BmcPowerWatch(lambda host: power.poll_session(host, POLL_TIMEOUT_S), names, self.clock, 2.0, 48),
        )
        self._engine = Engine(
            segments=segments,
            policies={segment.name: POLICY for segment in segments},
            store=SqliteStore(str(where / "journal.sqlite")),
            clock=self.clock,
            workers=workers,
            watches=watches,
            nudges=(),
            compute=self.nova,  # type: ignore[arg-type]
            power=power,
            membership=Alone(),
            me="matrix",
            lease_s=15.0,
            call_timeout_s=5.0,
            timeline=self.lines.append,
        )
        for watch in watches:
            watch.start()
            ends.callback(watch.stop)
        self._over = threading.Event()
        thread = threading.Thread(target=self._run, name="engine")
        thread.start()
        ends.callback(thread.join)
        ends.callback(self.clock.wake)
        ends.callback(self._over.set)

    def _run(self) -> None:
        while not self._over.is_set():
            self.clock.wait(self._engine.tick())

    def settle(self) -> None:
        """Until every eye has looked at every host, and an engine knows all that it will before anything fails."""
        until = time.monotonic() + SETTLED_S
        while time.monotonic() < until and not all(self._is_seen(name) for name in self._names):
            time.sleep(0.1)
        time.sleep(1.0)

    def _is_seen(self, name: str) -> bool:
        seen = self._engine.evidence.of(name).seen
        return Channel.NOVA in seen and Channel.POWER in seen

    def outcome(self, host: str) -> Outcome | None:
        """None while it is open."""
        ours = [line for line in list(self.lines) if line.subject == f"host {host}"]
        began = next((line.at for line in ours if line.word == "POWER_OFF STARTED"), None)
        if began is None:
            return None
        proven = next((line for line in ours if line.word == "RECOVERING"), None)
        stuck = next((line for line in ours if line.word == "STUCK"), None)
        if proven is None:
            return stuck and Outcome(NOT_PROVEN, stuck.at - began, stuck.text)
        lost = next((line for line in ours if line.word == "FENCING" and line.at > proven.at), None)
        if lost is not None:
            return Outcome(VOID, lost.at - began, lost.text)
        return Outcome(PROVEN, proven.at - began, proven.text)


def played(where: Path, rows: Sequence[Row] = ROWS, limit_s: float = 60.0) -> dict[tuple[str, str], Outcome]:
    """(row, kind) -> what came of it. All at once. A proof is watched on for as long as the longest row needs."""
    each = [(row, kind) for row in rows for kind in KINDS if kind in row.kinds]
    with ExitStack() as ends:
        cloud = Cloud(where, each, ends)
        cloud.settle()
        over = threading.Event()
        plays = []
        for row, kind in each:
            host = host_of(row, kind)
            cloud.nova.fail(host)
            plays.append(threading.Thread(target=row.play, args=(cloud.rack.chassis[host], over)))
            plays[-1].start()
        until = time.monotonic() + limit_s
        found: dict[tuple[str, str], Outcome | None] = {}
        while time.monotonic() < until:
            found = {(row.name, kind): cloud.outcome(host_of(row, kind)) for row, kind in each}
            void = [found[row.name, kind] for row, kind in each if row.verdict == VOID]
            if all(found.values()) and all(outcome and outcome.verdict == VOID for outcome in void):
                break
            time.sleep(0.2)
        over.set()
        for play in plays:
            play.join()
        open_ = Outcome("open", limit_s, "")
        return {key: outcome or open_ for key, outcome in found.items()}


def seconds_to_proof(where: Path, kind: str, count: int = 10) -> list[float]:
    """From power_off being STARTED to its proof, of hosts that fail one after the other, with a BMC that answers."""
    rows = [replace(ROWS[0], name=f"{number}", kinds=(kind,)) for number in range(count)]
    with ExitStack() as ends:
        cloud = Cloud(where, [(row, kind) for row in rows], ends)
        cloud.settle()
        took = []
        for row in rows:
            host = host_of(row, kind)
            cloud.nova.fail(host)
            until = time.monotonic() + 30.0
            while (outcome := cloud.outcome(host)) is None and time.monotonic() < until:
                time.sleep(0.05)
            assert outcome is not None and outcome.verdict == PROVEN, (host, outcome)
            took.append(outcome.seconds)
        return took


TOP = f"""\
.. Written by tests/ports/bmc_matrix.py, which plays each row on a real BMC in software. A test holds the verdicts.

What a BMC's behaviour leads to
===============================

A host hangs and is fenced. What its BMC does meanwhile decides whether that is proven, that is, whether its VMs may
start elsewhere for it. What is not proven by power is left to the fence's other levels, and at last to an operator.

Measured from the first power_off, all rows at once, on a machine of two busy cores, with

* ``power_off_deadline_s = {POLICY.power_off_deadline_s:g}``; by default 20
* ``fence_attempts_max = {POLICY.fence_attempts_max}``; by default 3
* ``[power] timeout_s = {TIMEOUT_S:g}``; by default 5

.. list-table::
   :header-rows: 1

"""


def document(found: Mapping[tuple[str, str], Outcome]) -> str:
    rows = [("The BMC", "Verdict", "IPMI", "Redfish", "In the engine's words")]
    for row in ROWS:
        outcomes = {kind: found[row.name, kind] for kind in row.kinds}
        verdict = "; ".join(sorted({outcome.verdict for outcome in outcomes.values()}))
        took = [f"{outcomes[kind].seconds:.1f} s" if kind in outcomes else "no such thing" for kind in KINDS]
        rows.append((row.words, verdict, *took, _anonymous(outcomes[row.kinds[0]].because)))
    return TOP + "".join("   * - " + "\n     - ".join(cells) + "\n" for cells in rows)


def verdicts(text: str) -> dict[str, str]:
    """What the table says: the words of a row -> its verdict."""
    cells = [part.split("\n     - ") for part in text.split("   * - ")[2:]]
    return {words: verdict for words, verdict, *_ in cells}


def _anonymous(because: str) -> str:
    text = re.sub(r"127\.0\.0\.1:\d+", "192.0.2.1:PORT", because)
    return re.sub(r"(ipmi|redfish)-[a-z-]+", "HOST", text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as where:
        DOCUMENT.parent.mkdir(parents=True, exist_ok=True)
        DOCUMENT.write_text(document(played(Path(where))))
