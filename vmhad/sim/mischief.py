# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a drawn script, and when: disasters of hosts and domains, and what makes each of them worse.

The moment matters more than the number. What complicates a disaster is aimed at the seconds in which vmhad fences and
evacuates: a few after power is lost, a minute later where silence is all there is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Timed = tuple[float, str]
EPISODES_AN_HOUR = (2, 3, 4, 5)
# Nova calls a silent host down after a minute; vmhad acts a few seconds later.
SILENT_S = 60.0
SUDDEN = ("cut", "rack-cut", "reboot")
SILENT = ("hang", "isolate", "crash", "stop-compute")
OFF = ("cut", "unplug")
BMC_MODES = ("dead", "stuck", "wrong-password", "hangs", "slow", "refuses", "loses-answers", "garbage")
VERBS = ("evacuate", "evacuate", "force_down", "disable", "start", "stop")


@dataclass
class Cloud:
    """What there is to break. domains: rack or feed -> its hosts. vms: VM -> the host it starts on. strict: BMCs lie,
    and nothing else is silent, so that no lie is ever excused."""

    segments: Mapping[str, list[str]]
    domains: Mapping[str, list[str]]
    vms: Mapping[str, str]
    engines: list[str]
    strict: bool
    hosts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hosts = sorted(host for hosts in self.segments.values() for host in hosts)


@dataclass
class _Plot:
    rng: random.Random
    cloud: Cloud
    until_s: float
    lines: list[Timed] = field(default_factory=list)
    engines_started: int = 0

    def likely_target(self, host: str) -> str:
        """Where the VMs of a host will probably go: to the hosts of its segment with the fewest VMs."""
        fellows = next(hosts for hosts in self.cloud.segments.values() if host in hosts)
        loads = {name: sum(first == name for first in self.cloud.vms.values()) for name in fellows if name != host}
        return self.rng.choice(sorted(loads, key=lambda name: (loads[name], name))[:4] or fellows)

    def add(self, at: float, line: str) -> None:
        """Nothing breaks once the calm has begun."""
        if at < self.until_s:
            self.lines.append((round(at, 3), line))

    def for_s(self, low: float, high: float) -> str:
        return f"{self.rng.uniform(low, high):.1f}s"

    def share(self, share: float) -> bool:
        return self.rng.random() < share


def mischief(rng: random.Random, cloud: Cloud, until_s: float, hours: float) -> list[Timed]:
    """All that goes wrong before until_s, in order of time."""
    plot = _Plot(rng, cloud, until_s)
    disasters = {name: one for name, one in DISASTERS.items() if rng.random() < 0.6 and _fits(name, cloud)}
    worse = {name: one for name, one in WORSE.items() if rng.random() < 0.5 and not (cloud.strict and name in DEAFENS)}
    if cloud.strict:
        disasters["lies"] = _lies
    for _ in range(round(rng.choice(EPISODES_AN_HOUR) * hours) or 1):
        at = rng.uniform(15.0, until_s * 0.9)
        name = rng.choice(sorted(disasters)) if disasters else "cut"
        hosts = DISASTERS.get(name, _lies)(plot, at)
        for _ in range(rng.choice((0, 1, 1, 2, 3, 4, 5)) if worse else 0):
            worse[rng.choice(sorted(worse))](plot, _critical(plot, name, at), rng.choice(hosts))
        if plot.share(0.6):
            back_at = at + rng.choice((rng.uniform(5.0, 40.0), rng.uniform(30.0, 200.0), rng.uniform(100.0, 900.0)))
            plot.add(back_at, f"restore {' '.join(hosts)}")
    return sorted(plot.lines, key=lambda one: one[0])


def _critical(plot: _Plot, disaster: str, at: float) -> float:
    """A moment in which it hurts: while the host is judged and fenced, while its VMs move, or somewhat later."""
    if disaster not in SUDDEN and plot.share(0.7):
        at += SILENT_S - plot.rng.uniform(0.0, 10.0)
    return at + plot.rng.choice((plot.rng.uniform(-8.0, 2.0), plot.rng.uniform(0.5, 6.0), plot.rng.uniform(4.0, 12.0)))


def _fits(name: str, cloud: Cloud) -> bool:
    return not (cloud.strict and name in ("one-silent", "pair", "rack-silent", "twisted"))


# Disasters: each answers with the hosts it befell.


def _one_off(plot: _Plot, at: float) -> list[str]:
    host = plot.rng.choice(plot.cloud.hosts)
    plot.add(at, f"{plot.rng.choice(OFF)} {host}")
    return [host]


def _one_silent(plot: _Plot, at: float) -> list[str]:
    host, fault = plot.rng.choice(plot.cloud.hosts), plot.rng.choice(SILENT)
    ends = f" {plot.for_s(3, 150)}" if fault == "hang" and plot.share(0.6) else ""
    plot.add(at, f"{fault} {host}{ends}")
    return [host]


def _reboot(plot: _Plot, at: float) -> list[str]:
    host = plot.rng.choice(plot.cloud.hosts)
    plot.add(at, f"reboot {host}")
    return [host]


def _pair(plot: _Plot, at: float) -> list[str]:
    """Two or three hosts of no common cause, seconds apart."""
    hosts = plot.rng.sample(plot.cloud.hosts, min(plot.rng.choice((2, 2, 3)), len(plot.cloud.hosts)))
    for host in hosts:
        plot.add(at + plot.rng.uniform(0.0, 12.0), f"{plot.rng.choice((*OFF, 'hang', 'crash'))} {host}")
    return hosts


def _domain_off(plot: _Plot, at: float) -> list[str]:
    hosts = _some_domain(plot)
    plot.add(at, f"{plot.rng.choice(OFF)} {' '.join(hosts)}")
    return hosts


def _domain_silent(plot: _Plot, at: float) -> list[str]:
    """A switch or a WAN goes: all behind it live on."""
    if not plot.cloud.domains:
        hosts = _some_domain(plot)
        plot.add(at, f"isolate {' '.join(hosts)}")
        return hosts
    name = plot.rng.choice(sorted(plot.cloud.domains))
    lasts = plot.rng.choice((plot.for_s(5, 100), plot.for_s(60, 400)))
    plot.add(at, f"switch {name} off {lasts}{plot.rng.choice(('', ' with-bmc'))}")
    return plot.cloud.domains[name]


def _storage_gone(plot: _Plot, at: float) -> list[str]:
    """A host, or a whole domain, loses its storage: vmhad has no eye for it yet, and must do nothing worse to it."""
    hosts = _some_domain(plot) if plot.share(0.3) else [plot.rng.choice(plot.cloud.hosts)]
    for host in hosts:
        if plot.share(0.5):
            plot.add(at, f"plane {host} storage off {plot.for_s(20, 300)}")
        else:
            plot.add(at, f"storage ceph cuts {host}")
            plot.add(at + plot.rng.uniform(10.0, 300.0), f"storage ceph lets {host}")
    return hosts


def _some_domain(plot: _Plot) -> list[str]:
    domains = sorted(plot.cloud.domains)
    if not domains:
        return plot.rng.sample(plot.cloud.hosts, min(3, len(plot.cloud.hosts)))
    return plot.cloud.domains[plot.rng.choice(domains)]


def _lies(plot: _Plot, at: float) -> list[str]:
    host = plot.rng.choice(plot.cloud.hosts)
    plot.add(at, f"bmc {host} lies{'' if plot.cloud.strict else ' excused'}")
    return [host]


def _twisted(plot: _Plot, at: float) -> list[str]:
    """Two BMCs whose addresses were swapped, and one of the hosts falls."""
    one, other = plot.rng.sample(plot.cloud.hosts, 2)
    plot.add(at, f"bmc {one} other {other} excused")
    plot.add(at + plot.rng.uniform(10.0, 40.0), f"{plot.rng.choice(('cut', 'hang', 'crash'))} {one}")
    return [one]


DISASTERS: dict[str, Callable[[_Plot, float], list[str]]] = {
    "cut": _one_off,
    "one-silent": _one_silent,
    "reboot": _reboot,
    "pair": _pair,
    "rack-cut": _domain_off,
    "rack-silent": _domain_silent,
    "storage-gone": _storage_gone,
    "twisted": _twisted,
}


# What makes a disaster worse, at its worst moment.


def _bmc(plot: _Plot, at: float, host: str) -> None:
    plot.add(at, f"bmc {host} {plot.rng.choice(BMC_MODES)}")
    if plot.share(0.5):
        plot.add(at + plot.rng.uniform(10.0, 200.0), f"bmc {host} ok")


def _nova_down(plot: _Plot, at: float, host: str) -> None:
    plot.add(at, f"nova down {plot.for_s(2, 90)}")


def _heartbeats(plot: _Plot, at: float, host: str) -> None:
    plot.add(at, f"nova heartbeats-lost {plot.for_s(10, 120)}")


def _nova_slow(plot: _Plot, at: float, host: str) -> None:
    plot.add(at, f"nova slow {plot.for_s(0.5, 6)} {plot.for_s(5, 120)}")


def _ring(plot: _Plot, at: float, host: str) -> None:
    whom = "down" if plot.share(0.3) else f"apart {plot.rng.choice(plot.cloud.engines)}"
    plot.add(at, f"ring {whom} {plot.for_s(5, 90)}")


def _bus(plot: _Plot, at: float, host: str) -> None:
    what = plot.rng.choice(("lose 50%", "lose 100%", "double", "shuffle"))
    plot.add(at, f"nudges {what} {plot.for_s(10, 200)}")


def _nova_errors(plot: _Plot, at: float, host: str) -> None:
    when = plot.rng.choice(("before", "after"))
    plot.add(at - 10.0, f"nova error-{when}-effect {plot.rng.choice(VERBS)} {plot.rng.choice((1, 1, 2, 5))}")


def _store(plot: _Plot, at: float, host: str) -> None:
    whom = "down" if plot.share(0.3) else f"cut-off {plot.rng.choice(plot.cloud.engines)}"
    plot.add(at, f"store {whom} {plot.rng.choice((plot.for_s(1, 10), plot.for_s(14, 40)))}")


def _kill(plot: _Plot, at: float, host: str) -> None:
    engines = plot.cloud.engines
    plot.add(at, f"kill engine {plot.rng.choice(engines)}")
    if plot.share(0.8):
        _join(plot, at + plot.rng.uniform(0.5, 40.0), host)


def _join(plot: _Plot, at: float, host: str) -> None:
    plot.engines_started += 1
    plot.add(at, f"engine n{plot.engines_started} offset={plot.rng.choice((0, 0, -5, 60))}s")


def _freeze(plot: _Plot, at: float, host: str) -> None:
    if plot.share(0.4):
        plot.add(at, f"freeze engine {plot.rng.choice(plot.cloud.engines)} {plot.for_s(3, 50)}")
        return
    verb, lasts = plot.rng.choice(("evacuate", "evacuate", "evacuate", "power_off", "force_down")), plot.for_s(3, 40)
    for engine in plot.cloud.engines:
        plot.add(at - 10.0, f"freeze engine {engine} {lasts} in {verb}")


def _user(plot: _Plot, at: float, host: str) -> None:
    here = [vm for vm, first in plot.cloud.vms.items() if first == host] or sorted(plot.cloud.vms)
    plot.add(at, f"user {plot.rng.choice(('stops', 'starts', 'deletes'))} {plot.rng.choice(here)}")


def _another(plot: _Plot, at: float, host: str) -> None:
    """Another host falls while this one is recovered: perhaps the one that receives."""
    fault = plot.rng.choice((*OFF, "hang", "hang", "crash", "isolate"))
    if not plot.cloud.strict or fault in OFF:
        ends = f" {plot.for_s(3, 60)}" if fault == "hang" and plot.share(0.7) else ""
        plot.add(at, f"{fault} {plot.likely_target(host)}{ends}")


def _flap(plot: _Plot, at: float, host: str) -> None:
    plot.add(at, f"restore {host}")


def _order(plot: _Plot, at: float, host: str) -> None:
    kind = plot.rng.choice(("pause", "pause", "resume", "retry", "close"))
    segment = next(name for name, hosts in plot.cloud.segments.items() if host in hosts)
    whom = plot.rng.choice((segment, host)) if kind in ("pause", "resume") else host
    plot.add(at, f"order {kind} {whom}" + (f" {plot.for_s(10, 120)} planned work" if kind == "pause" else ""))


def _nudge(plot: _Plot, at: float, host: str) -> None:
    """Forged: what it tells of that host is not so."""
    why = plot.rng.choice(("service.update", "instance.power_off.end"))
    plot.add(at, f"nudge {plot.rng.choice(plot.cloud.hosts)} {why}")


WORSE: dict[str, Callable[[_Plot, float, str], None]] = {
    "bmc": _bmc,
    "nova-down": _nova_down,
    "heartbeats": _heartbeats,
    "nova-errors": _nova_errors,
    "nova-slow": _nova_slow,
    "ring": _ring,
    "bus": _bus,
    "store": _store,
    "kill": _kill,
    "join": _join,
    "freeze": _freeze,
    "user": _user,
    "another": _another,
    "flap": _flap,
    "order": _order,
    "nudge": _nudge,
}
# What lets a host that lives go unheard.
DEAFENS = ("heartbeats", "nova-down", "nova-slow", "freeze", "another")
