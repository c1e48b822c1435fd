# SPDX-License-Identifier: Apache-2.0
"""What is laid in the way of single guards: the rare moments at which only one of them stands between a VM and harm.

A mutant of safety that no disaster found says which of them are missing. They have a source of chance of their own, so
that they can grow without any seed's disasters becoming others.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vmhad.sim.mischief import Cloud, Timed

Lines = list[Timed]
# What silences hosts that no line names.
DEAFENING = ("switch", "nova down", "nova slow", "heartbeats-lost", "freeze", "kill", "store")


@dataclass
class _Trap:
    rng: random.Random
    cloud: Cloud
    hosts: list[str]
    groups: list[list[str]]

    @property
    def engine(self) -> str:
        return self.rng.choice(self.cloud.engines)

    @property
    def host(self) -> str:
        return self.rng.choice(self.hosts or self.cloud.hosts)

    def receivers(self, host: str) -> list[str]:
        """The one or two hosts of its segment that have fewest VMs, and so receive first."""
        segment = next(hosts for hosts in self.cloud.segments.values() if host in hosts)
        had = Counter(self.cloud.vms.values())
        emptiest = sorted((one for one in segment if one not in self.hosts), key=lambda one: (had[one], one))
        return emptiest[: self.rng.choice((1, 1, 2))]


def ambush(seed: int, cloud: Cloud, declared: Sequence[str], faults: Sequence[Timed], until_s: float) -> Lines:
    """Some of them, close to what goes wrong already; none where BMCs lie unexcused, where all else must be quiet."""
    rng = random.Random(f"ambush {seed}")
    if cloud.strict or not faults or rng.random() < 0.25:
        return []
    if rng.random() < 0.15:
        return _wired_to_another(rng, cloud, faults, until_s)
    traps = [name for name in AMBUSHES if rng.random() < 0.4] or sorted(AMBUSHES)
    lines: Lines = []
    groups = _spread_groups(declared)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, struck = rng.choice(faults)
        hosts = [word for word in struck.split() if word in cloud.hosts]
        lines += AMBUSHES[rng.choice(traps)](_Trap(rng, cloud, hosts, groups), at)
    return _each_its_own_engine(sorted((round(at, 3), line) for at, line in lines if 1.0 < at < until_s))


def _each_its_own_engine(lines: Lines) -> Lines:
    """Two that come in one second are two processes, and no two processes have one name."""
    told: Lines = []
    for at, line in lines:
        word, name, *rest = line.split(maxsplit=2)
        while word == "engine" and any(before.startswith(f"engine {name} ") for _, before in told):
            name += "b"
        told.append((at, " ".join((word, name, *rest))))
    return told


def _spread_groups(declared: Sequence[str]) -> list[list[str]]:
    """The hosts of each anti-affinity group's members."""
    names = [line.split()[1] for line in declared if line.startswith("group ") and "policy=anti-affinity" in line]
    of_vms = [line.split() for line in declared if line.startswith("vm ")]
    where = [sorted({words[3] for words in of_vms if f"group={name}" in words}) for name in names]
    return [hosts for hosts in where if len(hosts) > 1]


def _blip(trap: _Trap, at: float) -> Lines:
    """A BMC says OFF of a host that runs, for less than two readings take."""
    return [(at + trap.rng.uniform(-20.0, 60.0), f"bmc {trap.host} blips {trap.rng.uniform(0.2, 0.7):.1f}s")]


def _stops_before(trap: _Trap, at: float) -> Lines:
    verb = trap.rng.choice(("evacuate", "evacuate", "power_off", "force_down"))
    return [(at - 1.0, f"freeze engine {trap.engine} {trap.rng.uniform(12, 50):.1f}s before {verb}")]


def _late_decision(trap: _Trap, at: float) -> Lines:
    """Until the next one of the same engine, or of another that took its place."""
    after_s = trap.rng.choice((trap.rng.uniform(-1.0, 8.0), trap.rng.uniform(55.0, 75.0)))
    late_s = trap.rng.choice((trap.rng.uniform(0.1, 4.0), trap.rng.uniform(0.1, 4.0), trap.rng.uniform(10.0, 40.0)))
    lines = [(at + after_s, f"store late {trap.engine} {late_s:.1f}s")]
    if late_s > 10.0 and trap.rng.random() < 0.7:
        lines.append((at + after_s + 0.2, f"freeze engine {lines[0][1].split()[2]} {late_s - 5.0:.1f}s"))
    return lines


def _deaf(trap: _Trap, at: float) -> Lines:
    return [(at + trap.rng.uniform(-2.0, 8.0), f"store deaf {trap.engine} {trap.rng.uniform(0.5, 12.0):.1f}s")]


def _hidden(trap: _Trap, at: float) -> Lines:
    """Most of the cloud cannot be seen, just when one silent host that can is called down."""
    segment = trap.rng.choice(list(trap.cloud.segments.values()))
    some = trap.rng.sample(segment, max(1, round(len(segment) * trap.rng.uniform(0.5, 0.9))))
    seen = [host for host in segment if host not in some]
    lines = [(at + trap.rng.uniform(28.0, 46.0), f"nova hides {' '.join(some)} {trap.rng.uniform(40, 100):.1f}s")]
    return lines + ([(at, f"hang {trap.rng.choice(seen)} 120s")] if seen else [])


def _comes_back(trap: _Trap, at: float) -> Lines:
    """Somebody switches the host on again while its VMs are on their way; its BMC may be busy with itself then."""
    host, again = trap.host, at + trap.rng.uniform(2.0, 14.0)
    if trap.rng.random() < 0.5:
        return [(again, f"restore {host}")]
    again = at + trap.rng.uniform(3.0, 8.0)
    busy = f"bmc {host} dead # busy with itself"
    return [(at, f"cut {host}"), (again, f"restore {host}"), (again + 0.05, busy)]


def _together(trap: _Trap, at: float) -> Lines:
    """Some fall silent at once, and one of them is heard again when Nova calls the others down."""
    hosts = trap.rng.sample(trap.cloud.hosts, min(len(trap.cloud.hosts), trap.rng.choice((2, 2, 3))))
    return [(at, f"isolate {' '.join(hosts)}"), (at + trap.rng.uniform(35.0, 62.0), f"restore {hosts[0]}")]


def _silent_pair(trap: _Trap, at: float) -> Lines:
    """Two or three hosts of one segment stop at once, and the first of them is hard to fence."""
    segment = trap.rng.choice(list(trap.cloud.segments.values()))
    hosts = trap.rng.sample(segment, min(len(segment), trap.rng.choice((2, 2, 3))))
    lines = [(at, f"hang {host}") for host in hosts]
    return lines + ([(at + 50.0, f"bmc {hosts[0]} stuck")] if trap.rng.random() < 0.6 else [])


def _receiver_falls(trap: _Trap, at: float) -> Lines:
    """Wherever the VMs go: it stops, starts anew or dies, just when it receives."""
    moment, fault = at + trap.rng.uniform(4.0, 9.0), trap.rng.choice(("hang", "reboot", "reboot", "cut"))
    ends = f" {trap.rng.uniform(40, 200):.1f}s" if fault == "hang" else ""
    moments = (moment, moment + 1.3, moment + 2.6) if fault == "reboot" else (moment,)
    return [(when, f"{fault} {host}{ends}") for host in trap.receivers(trap.host) for when in moments]


def _back_in_between(trap: _Trap, at: float) -> Lines:
    """The host is on again and cannot be fenced, its VMs are about to land, and then their new host dies."""
    host, again = trap.host, at + trap.rng.uniform(3.5, 7.0)
    lines = [(again, f"restore {host}"), (again + 0.1, f"bmc {host} refuses")]
    return lines + [(again + trap.rng.uniform(3.0, 12.0), f"cut {one}") for one in trap.receivers(host)]


def _group_falls(trap: _Trap, at: float) -> Lines:
    """Two hosts of one anti-affinity group's members at once."""
    group = trap.rng.choice(trap.groups) if trap.groups else []
    return [(at, f"cut {host}") for host in trap.rng.sample(group, min(2, len(group)))]


def _many_fall(trap: _Trap, at: float) -> Lines:
    """More of a segment than may fail at once, all over it."""
    segment = trap.rng.choice(list(trap.cloud.segments.values()))
    fallen = trap.rng.sample(segment, max(1, round(len(segment) * trap.rng.uniform(0.3, 0.8))))
    return [(at + trap.rng.uniform(0.0, 3.0), f"cut {host}") for host in fallen]


def _changes_hands(trap: _Trap, at: float) -> Lines:
    """All engines die in mid-recovery; the one that takes over has another clock, and the host may be back by then."""
    taken, offset = at + trap.rng.uniform(2.0, 9.0), trap.rng.choice(("0", "-7", "-3000", "-3000", "100"))
    lines = [(taken, f"kill engine {engine}") for engine in trap.cloud.engines]
    lines.append((taken + 1.0, f"engine late{round(at)} offset={offset}s"))
    return lines + ([(taken + trap.rng.uniform(5.0, 40.0), f"restore {trap.host}")] if trap.rng.random() < 0.6 else [])


def _stops_in(trap: _Trap, at: float) -> Lines:
    """Until another engine has taken over, and longer."""
    act = trap.rng.choice(("evacuate", "evacuate", "commit", "commit", "power_off"))
    engine, stops_s = trap.engine, trap.rng.uniform(25, 75)
    if act == "evacuate" and stops_s > 50.0:
        # So that it arrives while its successor's own is carried out.
        stops_s = 28.0 + (stops_s - 50.0) / 4
    lines = [(at - 1.0, f"freeze engine {engine} {stops_s:.1f}s in {act}")]
    if act == "commit" and trap.rng.random() < 0.5:
        # What it was about to write is soon no longer so, and its successor has nothing to write.
        return [*lines, (at - 0.9, f"bmc {trap.rng.choice(trap.cloud.hosts)} blips 0.7s")]
    return lines + ([(at + trap.rng.uniform(4.0, 20.0), f"restore {trap.host}")] if trap.rng.random() < 0.5 else [])


def _paused(trap: _Trap, at: float) -> Lines:
    segment = next(name for name, hosts in trap.cloud.segments.items() if trap.host in hosts or len(hosts) > 1)
    return [(at - trap.rng.uniform(5.0, 30.0), f"order pause {segment} {trap.rng.uniform(30, 150):.1f}s planned work")]


def _wired_to_another(rng: random.Random, cloud: Cloud, faults: Sequence[Timed], until_s: float) -> Lines:
    """One BMC's address leads to that of another host of its segment, and its host stops in its tracks. Nothing else
    befalls the two: no eye can tell a silent host whose BMC says OFF from a dead one."""
    told = " ".join(line for _, line in faults)
    segment = cloud.segments[rng.choice(sorted(cloud.segments))]
    quiet = [host for host in segment if host not in told]
    if len(quiet) < 2 or any(word in told for word in DEAFENING):
        return []
    one, other = rng.sample(quiet, 2)
    at = rng.uniform(20.0, until_s * 0.7)
    lines = [(at, f"bmc {one} other {other}"), (at + 1.0, f"hang {one} {rng.uniform(100, 300):.1f}s")]
    lines += [(at, f"bmc {other} slow")] if rng.random() < 0.5 else []
    return [(round(when, 3), line) for when, line in lines]


AMBUSHES: dict[str, Callable[[_Trap, float], Lines]] = {
    "blip": _blip,
    "stops-before": _stops_before,
    "late-decision": _late_decision,
    "deaf": _deaf,
    "hidden": _hidden,
    "comes-back": _comes_back,
    "together": _together,
    "silent-pair": _silent_pair,
    "receiver-falls": _receiver_falls,
    "back-in-between": _back_in_between,
    "group-falls": _group_falls,
    "many-fall": _many_fall,
    "changes-hands": _changes_hands,
    "stops-in": _stops_in,
    "paused": _paused,
}
