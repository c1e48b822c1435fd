# SPDX-License-Identifier: Apache-2.0
"""The promise in two acts, on real parts: a host loses its power; then another one crashes with its power on.

Exit code 0 only if every VM that should run does, elsewhere, once, and with its group's rule kept. What it says of the
VMs comes from Nova and from the hypervisors, not from vmhad; what it says of times and proof is vmhad's own timeline.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

import vmhad.cmd  # noqa: E402, F401  before all else: it chooses threads
from lab.cloud_lab import CloudLab  # noqa: E402
from lab.engine import EngineProcess, forget_journal  # noqa: E402
from lab.watcher import Watcher  # noqa: E402

RUN = Path(__file__).resolve().parent / "run"
COMPUTES = 5
ACT_LIMIT_S = 240.0
COLOURS = {"FENCING": "red", "RECOVERING": "yellow", "RECOVERED": "green", "HELD": "magenta", "STUCK": "bold red"}


@dataclass
class Act:
    """One act's outcome, as lab/run/demo.json has it. Times in seconds from the instant the host died."""

    act: str
    vms: int = 0
    recovered: int = 0
    first_evacuate_s: float = 0.0
    last_active_s: float = 0.0
    proof: str = ""
    nova_calls_per_vm: float = 0.0
    doubles: int = 0
    broken_rules: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return self.vms > 0 and self.recovered == self.vms and not self.doubles and not self.broken_rules

    def line(self) -> str:
        return (
            f"demo: {self.recovered}/{self.vms} VMs recovered; "
            f"host dead → first evacuate {self.first_evacuate_s:.1f} s, "
            f"→ last active {self.last_active_s:.1f} s; proof {self.proof}"
        )


class Demo:
    def __init__(self, name: str = "demo") -> None:
        self.console = Console(highlight=False)
        self.say("a small real OpenStack is brought up; the first time it is installed, too")
        self.lab = CloudLab.up(name, COMPUTES)
        self.lab.reset()
        forget_journal(self.lab.facts)
        self.watcher = Watcher(RUN / name / "var" / "hosts")
        self.engine = EngineProcess(self.lab.facts, RUN / name)
        self.shown = 0
        self.born = 0.0
        self.groups: dict[str, tuple[str, list[str]]] = {}

    def say(self, text: str) -> None:
        self.console.print(Text(f"• {text}", style="bold"))

    def populate(self) -> None:
        """20 VMs on host01, 12 on host02; groups of both kinds among them."""
        together, apart = self.lab.group("affinity", "together"), self.lab.group("anti-affinity", "apart")
        members = self.lab.boot(3, host="host01", name="db", group=together)
        spread = [self.lab.boot(1, host=host, name=f"web-{host[-2:]}", group=apart)[0] for host in ("host01", "host02")]
        self.groups = {"together": ("affinity", members), "apart": ("anti-affinity", spread)}
        self.lab.boot(16, host="host01", name="app")
        self.lab.boot(11, host="host02", name="batch")

    def act(self, title: str, fault: str, host: str) -> Act:
        victims = [row["id"] for row in self.lab.servers(host)]
        told = Act(title, vms=len(victims))
        self.console.rule(title)
        calls_before = self.engine.lines()[-1]["nova_calls"] if self.engine.lines() else 0
        first = len(self.engine.lines())
        self.born = time.time()
        self.lab.command(fault, host)
        over = self.follow(first, host)
        lines = self.engine.lines()[first:]
        starts = [row["at"] for row in lines if row["word"] == "EVACUATE STARTED"]
        actives = [row["at"] for row in lines if row["word"] == "RESTORE_STATE DONE"]
        told.first_evacuate_s = round(min(starts, default=self.born) - self.born, 2)
        told.last_active_s = round(max(actives, default=self.born) - self.born, 2)
        told.proof = next((f"power_off ({row['text']})" for row in lines if row["word"] == "POWER_OFF DONE"), "none")
        told.nova_calls_per_vm = self.calls_per_vm(lines, calls_before, len(victims))
        told.recovered = sum(self.runs_elsewhere(server_id, host) for server_id in victims)
        told.doubles = len(self.watcher.report()["doubles"])
        told.broken_rules = self.broken_rules()
        if not over:
            self.console.print(Text(f"the recovery of {host} did not end within {ACT_LIMIT_S:g} s", style="bold red"))
        self.console.print(Text(told.line(), style="bold green" if told.is_good else "bold red"))
        return told

    @staticmethod
    def calls_per_vm(lines: list[dict[str, Any]], before: int, vms: int) -> float:
        """Requests to Nova from the fence to the end, those of the watch included."""
        fenced = [row["nova_calls"] for row in lines if row["word"] == "FENCING"]
        ended = [row["nova_calls"] for row in lines if row["word"] in ("RECOVERED", "STUCK")]
        return round((max(ended, default=before) - min(fenced, default=before)) / max(1, vms), 2)

    def follow(self, first: int, host: str) -> bool:
        """Prints the timeline as it grows; False if it took too long."""
        self.shown = first
        while time.time() < self.born + ACT_LIMIT_S:
            for row in self.engine.lines()[self.shown :]:
                self.shown += 1
                self.show(row)
                if row["subject"] == f"host {host}" and row["word"] in ("RECOVERED", "STUCK"):
                    return row["word"] == "RECOVERED"
            time.sleep(0.1)
        return False

    def show(self, row: dict[str, Any]) -> None:
        line = Text(f"+{row['at'] - self.born:6.2f} s  ", style="dim")
        line.append(f"{row['subject']:<14} ")
        line.append(f"{row['word']:<22} ", style=COLOURS.get(row["word"], "cyan"))
        line.append(row["text"])
        self.console.print(line)

    def runs_elsewhere(self, server_id: str, dead: str) -> bool:
        server = self.lab.server(server_id)
        where = self.lab.running_on(server_id)
        return server["status"] == "ACTIVE" and len(where) == 1 and where[0] not in ("", dead)

    def broken_rules(self) -> list[str]:
        broken = []
        for name, (policy, members) in self.groups.items():
            hosts = [self.lab.server(one)["OS-EXT-SRV-ATTR:host"] for one in members]
            wanted = 1 if policy == "affinity" else len(hosts)
            if len(set(hosts)) != wanted:
                broken.append(f"{policy} group {name}: {', '.join(hosts)}")
        return broken

    def play(self) -> int:
        self.populate()
        self.watcher.start()
        self.engine.start()
        try:
            time.sleep(5.0)  # the engine reads every power once before anything dies, as it would have in life
            acts = [
                self.act("Act 1: host01 loses its power", "cut", "host01"),
                self.act("Act 2: host02 crashes with its power on", "crash", "host02"),
            ]
        finally:
            self.engine.stop()
            self.watcher.stop()
        (RUN / "demo.json").write_text(json.dumps([asdict(one) for one in acts], indent=1) + "\n")
        for one in acts:
            self.console.print(one.line())
        return 0 if all(one.is_good for one in acts) else 1


def main() -> int:
    demo = Demo()
    try:
        return demo.play()
    finally:
        demo.say("the cloud is taken down")
        demo.lab.command("down")


if __name__ == "__main__":
    sys.exit(main())
