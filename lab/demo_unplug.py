# SPDX-License-Identifier: Apache-2.0
"""The third act, on real guests and a real Ceph: two hosts lose their power, and their BMCs with it, at one moment.

Nobody can be asked whether they are off. The VMs of the one have their disks on Ceph, which cuts that host off and can
show it: they run on elsewhere. The VM of the other has its disk on its own host: it waits, and says why. Exit code 0
only if both are so within the limits; what is said of disks is read from the disks.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

import vmhad.cmd  # noqa: E402, F401  before all else: it chooses threads
from lab.cloud_lab import CloudLab  # noqa: E402
from lab.engine import EngineProcess, forget_journal  # noqa: E402
from lab.layout import Lab  # noqa: E402
from lab.qemu import ceph, network  # noqa: E402
from lab.report import watcher_of  # noqa: E402

RUN = Path(__file__).resolve().parent / "run"
ON_CEPH, TARGET, ON_ITSELF = "host01", "host02", "host03"
VMS = 2
VERDICT_TO_RUNNING_MAX_S = 20.0
COUNTS_AT_LEAST, GUEST_BOOTS_S = 20, 180.0
ACT_LIMIT_S = 300.0
# Two of three hosts are to fail at once, and nobody but Nova and the BMCs is asked.
POLICY = {"failed_share_max": 0.7, "canary_from_hosts": 10, "power_off_deadline_s": 8.0}


@dataclass
class Act:
    """One act's outcome, as lab/run/demo.json has it. verdict_to_running_s: until the last VM's new guest has written
    to its disk. waiting: VMs that are not recovered, and why. doubles: disks with two writers."""

    act: str = "Act 3: host01 and host03 are unplugged, with their BMCs"
    vms: int = 0
    recovered: int = 0
    dead_to_verdict_s: float = 0.0
    verdict_to_running_s: float = 0.0
    proof: str = "none"
    waiting: dict[str, str] = field(default_factory=dict)
    doubles: int = 0

    @property
    def is_good(self) -> bool:
        all_run = self.recovered == self.vms > 0 and self.verdict_to_running_s <= VERDICT_TO_RUNNING_MAX_S
        return all_run and bool(self.waiting) and not self.doubles

    def line(self) -> str:
        return (
            f"demo: unplugged with its BMC: {self.recovered}/{self.vms} VMs on Ceph run elsewhere; verdict → last of "
            f"them writes {self.verdict_to_running_s:.1f} s; proof {self.proof}; {len(self.waiting)} on local disk wait"
        )


class Demo:
    def __init__(self, name: str = "unplug") -> None:
        self.console = Console(highlight=False)
        self.say("a small real OpenStack with real guests and a real Ceph is brought up")
        self.cloud = CloudLab.up(name, 3, "--virt", "qemu", "--storage", "rbd", "--own-disks", ON_ITSELF)
        self.cloud.reset()
        forget_journal(self.cloud.facts)
        self.lab = Lab(name)
        self.watcher = watcher_of(self.lab)
        storage = {
            "name": "ceph",
            "driver": "ceph",
            "settings": {"conf_file": str(ceph.settings_file(self.lab)), "user": "admin", "pools": [ceph.POOL]},
            "holds": ["nova"],
            "clients": {host: [network.address(host)] for host in (ON_CEPH, TARGET)},
        }
        self.engine = EngineProcess(self.cloud.facts, RUN / name, policy=POLICY, storages=[storage])

    def say(self, text: str) -> None:
        self.console.print(Text(f"• {text}", style="bold"))

    def boots(self, server: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.watcher.report()["disks"].get(server, [])
        return found

    def populate(self) -> tuple[list[str], list[str]]:
        on_ceph = self.cloud.boot(VMS, host=ON_CEPH, name="db")
        on_itself = self.cloud.boot(1, host=ON_ITSELF, name="scratch")

        def counts(server: str) -> bool:
            return bool(found := self.boots(server)) and found[-1]["last"] >= COUNTS_AT_LEAST

        self.cloud.wait("the guests on Ceph count", lambda: all(map(counts, on_ceph)), GUEST_BOOTS_S)
        return on_ceph, on_itself

    def play(self) -> int:
        self.watcher.start()
        try:
            on_ceph, on_itself = self.populate()
            self.engine.start()
            time.sleep(5.0)  # the engine reads every power once before anything dies, as it would have in life
            told = self.act(on_ceph, on_itself)
        finally:
            self.engine.stop()
            report = self.watcher.stop()
        told.doubles = len(report["doubles"])
        append(asdict(told))
        self.console.print(Text(told.line(), style="bold green" if told.is_good else "bold red"))
        for name, why in told.waiting.items():
            self.console.print(f"  {name} waits: {why}")
        return 0 if told.is_good else 1

    def act(self, on_ceph: list[str], on_itself: list[str]) -> Act:
        told = Act(vms=len(on_ceph))
        self.console.rule(told.act)
        born = time.time()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda host: self.cloud.command("unplug", host), (ON_CEPH, ON_ITSELF)))
        self.follow(born)
        lines = self.engine.lines()
        verdict_at = self.first_at(lines, f"host {ON_CEPH}", "FENCING")
        self.cloud.wait("new guests write", lambda: all(len(self.boots(one)) > 1 for one in on_ceph), GUEST_BOOTS_S)
        written_at = max(self.boots(one)[1]["first_seen"] for one in on_ceph)
        told.dead_to_verdict_s = round(verdict_at - born, 2)
        told.verdict_to_running_s = round(written_at - verdict_at, 2)
        told.proof = next((row["text"] for row in lines if row["word"] == "RECOVERING"), "none")
        told.recovered = sum(self.cloud.running_on(one) == [TARGET] for one in on_ceph)
        of_it = [row["text"] for row in lines if (row["subject"], row["word"]) == (f"host {ON_ITSELF}", "STUCK")]
        stuck = of_it[-1] if of_it else ""
        told.waiting = {self.cloud.server(one)["name"]: stuck for one in on_itself if not self.is_moved(one)}
        return told

    def is_moved(self, server: str) -> bool:
        return bool(self.cloud.server(server)["OS-EXT-SRV-ATTR:host"] != ON_ITSELF)

    @staticmethod
    def first_at(lines: list[dict[str, Any]], subject: str, word: str) -> float:
        return next(float(row["at"]) for row in lines if (row["subject"], row["word"]) == (subject, word))

    def follow(self, born: float) -> None:
        """Prints the timeline until both hosts' incidents have come to rest."""
        shown, ended = 0, set()
        while len(ended) < 2 and time.time() < born + ACT_LIMIT_S:
            for row in self.engine.lines()[shown:]:
                shown += 1
                self.console.print(f"+{row['at'] - born:6.2f} s  {row['subject']:<14} {row['word']:<22} {row['text']}")
                if row["word"] in ("RECOVERED", "STUCK"):
                    ended.add(row["subject"])
            time.sleep(0.1)


def append(act: dict[str, Any]) -> None:
    """To the other acts; the same one of an earlier run is replaced."""
    path = RUN / "demo.json"
    acts = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([one for one in acts if one["act"] != act["act"]] + [act], indent=1) + "\n")


def main() -> int:
    demo = Demo()
    try:
        with network.machine_plugged_in(demo.lab):
            return demo.play()
    finally:
        demo.say("the cloud is taken down")
        demo.cloud.command("down", "--wipe")


if __name__ == "__main__":
    sys.exit(main())
