# SPDX-License-Identifier: Apache-2.0
"""Many rehearsed days together: how many VMs ran again, how soon, and why others did not; as figures and to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from vmhad.conf.topology import Topology
from vmhad.kernel.policy import Policy
from vmhad.sim.datacentre import SimHost
from vmhad.sim.day import Failure, Terms
from vmhad.sim.rehearse import Fate

PERCENTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
REASONS_TOLD = 8
ASSUMED = f"{SimHost('').vcpus} vCPUs and {SimHost('').ram_mib // 1024} GiB are assumed of each"
STRIKES = {
    "cut": "no power",
    "crash": "a crash, power stays on",
    "hang": "a hang with all guests",
    "unplug": "no power, and none for the BMC",
    "switch": "a dead switch, the guests run on",
}


@dataclass
class Reason:
    """vms: VM-days over all runs. runs: in how many. first: the first seed that shows it."""

    vms: int = 0
    runs: int = 0
    first: int = -1

    def add(self, vms: int, seed: int) -> None:
        self.vms += vms
        self.runs += 1
        self.first = seed if self.first < 0 else min(self.first, seed)


@dataclass
class Rehearsal:
    """Sums over the runs that were added. fail: what was asked for, in the operator's words."""

    topology: Topology
    fail: str
    failure: Failure
    terms: Terms
    seeds: int = 0
    start: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, dict[str, Reason]] = field(default_factory=dict)
    times_s: list[float] = field(default_factory=list)
    whole_runs: int = 0
    false_fence_seeds: list[int] = field(default_factory=list)
    breaches: list[tuple[int, str]] = field(default_factory=list)
    stepped_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, fate: Fate) -> None:
        self.seeds += 1
        for name in ("struck", "opted_out", "ran_on", "recovered", "fences", "silenced"):
            self.counts[name] += getattr(fate, name)
        for name in ("held", "stuck", "bystanders"):
            whys: Mapping[str, str] = getattr(fate, name)
            self.counts[name] += len(whys)
            for why, vms in Counter(whys.values()).items():
                self.reasons.setdefault(name, {}).setdefault(why, Reason()).add(vms, fate.seed)
        self.counts["false_fences"] += len(fate.false_fences)
        if fate.false_fences:
            self.false_fence_seeds.append(fate.seed)
        self.whole_runs += not fate.held and not fate.stuck
        self.times_s.extend(fate.after_s.values())
        self.breaches.extend((fate.seed, breach) for breach in fate.breaches)
        self.stepped_s += fate.stepped_s
        self.cpu_s += fate.cpu_s

    def percentiles(self) -> dict[str, float | None]:
        """Seconds from the strike until a lost VM ran again; None where none did."""
        ordered = sorted(self.times_s)
        last = len(ordered) - 1
        return {name: round(ordered[round(share * last)], 1) if ordered else None for name, share in PERCENTILES}

    def ranked(self, name: str) -> list[tuple[str, Reason]]:
        return sorted(self.reasons.get(name, {}).items(), key=lambda one: (-one[1].vms, one[0]))

    def figures(self) -> dict[str, Any]:
        """What --json prints."""
        return {
            "fail": self.fail,
            "kind": self.failure.kind,
            "hosts": list(self.failure.hosts),
            "seeds": self.seeds,
            "start": self.start,
            "hours": self.terms.hours,
            "vms_struck": self.counts["struck"],
            "recovered": self.counts["recovered"],
            "held": self.counts["held"],
            "stuck": self.counts["stuck"],
            "ran_on": self.counts["ran_on"],
            "opted_out": self.counts["opted_out"],
            "runs_without_loss": self.whole_runs,
            "time_to_recover_s": self.percentiles(),
            "reasons": {
                name: [{"because": why, "vms": one.vms, "runs": one.runs, "seed": one.first} for why, one in ranked]
                for name in ("held", "stuck", "bystanders")
                if (ranked := self.ranked(name))
            },
            "other_hosts_vms_down": self.counts["bystanders"],
            "fences": self.counts["fences"],
            "false_fences": self.counts["false_fences"],
            "false_fences_of_silenced": self.counts["silenced"],
            "false_fence_seeds": self.false_fence_seeds,
            "violations": [{"seed": seed, "breach": breach} for seed, breach in self.breaches],
            "simulated_hours": round(self.seeds * self.terms.hours, 3),
            "stepped_hours": round(self.stepped_s / 3600, 3),
            "cpu_seconds": round(self.cpu_s, 1),
        }

    # To read.

    def report(self) -> Iterator[str]:
        """Lines; the last one is the whole of it in a sentence."""
        yield from self._head()
        yield ""
        yield from self._vms()
        yield from self._reasons("held", "Held because")
        yield from self._reasons("stuck", "Not recovered because")
        yield from self._reasons("bystanders", "Beside it, VMs of other hosts that small faults left down")
        yield f"Hosts fenced: {self.counts['fences']}, {self._false_fences()}"
        for seed, breach in self.breaches[:REASONS_TOLD]:
            yield f"A RULE OF SAFETY WAS BROKEN in seed {seed}: {breach}"
        yield ""
        yield self.sentence()

    def _head(self) -> Iterator[str]:
        hosts = [host for segment in self.topology.segments for host in segment.names]
        yield f"Rehearsed: {counted(len(self.failure.hosts), 'host')} of {self.fail}: {STRIKES[self.failure.kind]}"
        yield (
            f"In a cloud of {len(hosts)} hosts and {len(self.topology.servers)} VMs; {counted(self.seeds, 'run')} of "
            f"{self.terms.hours:g} h, seeds {self.start} to {self.start + self.seeds - 1}"
        )
        untold = sum(host not in self.topology.inventories for host in hosts)
        if untold:
            yield f"{counted(untold, 'host')} without an inventory: {ASSUMED}"
        for segment in self.topology.segments:
            changed = changes(self.topology.policies[segment.name])
            yield f"Policy of {segment.name}: {', '.join(changed) or 'as shipped'}"

    def _vms(self) -> Iterator[str]:
        yield f"{'VMs of the struck hosts, over all runs':<40}{self.counts['struck']:>10}"
        protected = self.counts["struck"] - self.counts["opted_out"]
        for name, text in (
            ("recovered", "recovered"),
            ("held", "held"),
            ("stuck", "not recovered"),
            ("ran_on", "ran on, were never lost"),
        ):
            share = f"{100 * self.counts[name] / protected:>9.2f} %" if protected else ""
            yield f"  {text:<38}{self.counts[name]:>10}{share}"
        yield f"  {'left alone: they opted out':<38}{self.counts['opted_out']:>10}"
        if self.times_s:
            told = ", ".join(f"{name} {spoken_s(value or 0.0)}" for name, value in self.percentiles().items())
            yield f"From the failure until a lost VM ran again: {told}"

    def _reasons(self, name: str, title: str) -> Iterator[str]:
        ranked = self.ranked(name)
        if ranked:
            yield f"{title}:"
        for why, one in ranked[:REASONS_TOLD]:
            yield f"  {counted(one.vms, 'VM'):>12} in {counted(one.runs, 'run')} (seed {one.first}): {why}"
        if len(ranked) > REASONS_TOLD:
            yield f"  and {len(ranked) - REASONS_TOLD} further reasons"

    def _false_fences(self) -> str:
        if not self.counts["false_fences"]:
            return "none of them while it ran its guests"
        text = f"{self.counts['false_fences']} of them while they ran their guests (seed {self.false_fence_seeds[0]})"
        if self.counts["silenced"]:
            text += f"; {self.counts['silenced']} were silenced by the failure itself"
        return text

    def sentence(self) -> str:
        """The whole of it."""
        when = self.percentiles()
        if self.breaches:
            return f"A rule of safety was broken in seed {self.breaches[0][0]}: do not arm this, and report it."
        if self.counts["struck"] == self.counts["opted_out"]:
            return f"No VM that vmhad protects ran on the hosts of {self.fail}: there was nothing to recover."
        if self.whole_runs < self.seeds:
            worst = max(self.ranked("held") + self.ranked("stuck"), key=lambda one: one[1].vms)
            down = self.counts["held"] + self.counts["stuck"]
            share = 100 * down / (self.counts["struck"] - self.counts["opted_out"])
            return (
                f"In {self.seeds - self.whole_runs} of {counted(self.seeds, 'run')} VMs stayed down, {share:.2g} % of "
                f"all, most of them because: {worst[0].rstrip('.')}."
            )
        if not self.times_s:
            return f"In {self.seeds} of {counted(self.seeds, 'run')} every VM ran on."
        p50, p99, longest = (spoken_s(when[name] or 0.0) for name in ("p50", "p99", "max"))
        return (
            f"In {self.seeds} of {counted(self.seeds, 'run')} every protected VM ran in the end; half of the lost ones "
            f"ran again within {p50}, 99 of 100 within {p99}, the last after {longest}."
        )


def changes(policy: Policy) -> Sequence[str]:
    """What of it differs from what is shipped."""
    shipped = Policy()
    found = []
    for one in fields(policy):
        value = getattr(policy, one.name)
        if value != getattr(shipped, one.name):
            found.append(f"{one.name}={value.value if isinstance(value, Enum) else value}")
    return found


def counted(number: int, word: str) -> str:
    """1 run, 2 runs."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def spoken_s(seconds: float) -> str:
    """12.3 s, 4 min 5 s or 2 h 3 min."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    if minutes < 100:
        return f"{int(minutes)} min {int(seconds % 60)} s"
    return f"{int(minutes // 60)} h {int(minutes % 60)} min"
