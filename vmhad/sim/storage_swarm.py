# SPDX-License-Identifier: Apache-2.0
"""Storages that cut hosts off, in a drawn script: which there are, what VMs have on them, how they take orders, and
hosts that are lost together with their BMCs.

A source of chance of its own, drawn only where a shape asks for it: no other seed's disasters become others by it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from vmhad.sim.mischief import Cloud, Timed

CUT = ("beside_power", "beside_power", "beside_power", "after_power", "never")
MOODS = ("silent", "refuses", "lags", "lags", "hangs", "loses-answers", "in-vain")
VERBS = ("cut_storage", "cut_storage", "restore_storage", "power_off", "force_down", "evacuate")
# Nova calls a silent host down after a minute; vmhad acts a few seconds later.
SILENT_S = (58.0, 75.0)
OF_MOODS_S = (5.0, 150.0)


def has_agents(seed: int) -> bool:
    """One half of the seeds."""
    return random.Random(f"agents of storages {seed}").random() < 0.5


@dataclass
class _Plot:
    """hosts: those that may be lost. names: the backends. lines: what goes wrong so far."""

    rng: random.Random
    cloud: Cloud
    hosts: list[str]
    until_s: float
    names: list[str]
    lines: list[Timed] = field(default_factory=list)

    def add(self, at: float, line: str) -> None:
        """Nothing breaks once the calm has begun."""
        if 0.0 < at < self.until_s:
            self.lines.append((round(at, 3), line))

    def share(self, share: float) -> bool:
        return self.rng.random() < share


def with_storages(
    seed: int, declared: Sequence[str], cloud: Cloud, faults: Sequence[Timed], until_s: float
) -> tuple[list[str], list[Timed]]:
    """The declarations with storages, and what goes wrong with those and with hosts that have no BMC then. Not with
    such as have a BMC that lies, or another one's: no eye can tell one that is silent from a dead one."""
    rng = random.Random(f"storages {seed}")
    names = ["ceph", *(["flash"] if rng.random() < 0.5 else []), *(["nfs"] if rng.random() < 0.4 else [])]
    told = [declared[0], *(_backend(rng, name, cloud.hosts) for name in names)]
    for line in declared[1:]:
        if line.startswith("segment "):
            line = _with_policy(rng, line, "nfs" in names)
        elif line.startswith("vm "):
            line = _with_disks(rng, line, names)
        told.append(line)
    wired = {word for _, line in faults if " other " in line or " lies" in line for word in line.split()}
    hosts = [host for host in cloud.hosts if host not in wired]
    plot = _Plot(rng, cloud, hosts, until_s, names)
    for _ in range(0 if cloud.strict or not hosts else rng.choice((1, 2, 2, 3))):
        _episode(plot, rng.uniform(15.0, until_s * 0.8))
    return told, plot.lines


def _backend(rng: random.Random, name: str, hosts: Sequence[str]) -> str:
    words = f"backend {name}{' holds=nova' * (name == 'nfs')}"
    if rng.random() < 0.2:
        words += f" clients={','.join(host for host in hosts if rng.random() < 0.8) or hosts[0]}"
    return words


def _with_policy(rng: random.Random, line: str, is_shared: bool) -> str:
    words = f"cut_storage={rng.choice(CUT)} cut_storage_deadline_s={rng.choice((20, 8, 30))}s "
    words += f"storage_only_proof={rng.choice(('yes', 'yes', 'yes', 'no'))}{' shared_ephemeral=yes' * is_shared}"
    return f"{line}{'' if ' policy' in line else ' policy'} {words}"


def _with_disks(rng: random.Random, line: str, names: Sequence[str]) -> str:
    if "local-disk" in line:
        return f"{line} backend=nfs" if "nfs" in names else line
    if "nfs" in names and rng.random() < 0.2:
        return f"{line} local-disk backend=nfs"
    if "flash" in names and rng.random() < 0.4:
        return f"{line} {rng.choice(('backend=flash', 'backend=flash', 'also=flash'))}"
    return f"{line} unlisted" if rng.random() < 0.04 else line


def _episode(plot: _Plot, at: float) -> None:
    """Hosts are lost, mostly with their BMCs, and the storages are in a mood just when they are to be cut off."""
    rng = plot.rng
    domain = rng.choice(sorted(plot.cloud.domains)) if plot.cloud.domains and plot.share(0.3) else ""
    hosts = [host for host in plot.cloud.domains.get(domain, ()) if host in plot.hosts] or [rng.choice(plot.hosts)]
    acts_at = at + rng.choice((0.0, rng.uniform(*SILENT_S), rng.uniform(*SILENT_S)))
    for _ in range(rng.choice((0, 1, 1, 2))):
        name, lasts_s, begins = rng.choice(plot.names), rng.uniform(*OF_MOODS_S), acts_at + rng.uniform(-20.0, 10.0)
        mood = rng.choice(MOODS)
        plot.add(begins, f"storage {name} orders {mood}{f' {rng.uniform(1.0, 35.0):.1f}s' * (mood == 'lags')}")
        plot.add(begins + lasts_s, f"storage {name} orders ok")
    if plot.share(0.4):
        _engine(plot, acts_at)
    for host in hosts:
        rng.choice((_unplugged, _unplugged, _hung, _hung, _isolated))(plot, host, at)
        if plot.share(0.2):
            plot.add(acts_at + rng.uniform(2.0, 15.0), f"storage {rng.choice(plot.names)} opens {host}")
        if plot.share(0.3):
            plot.add(at + rng.uniform(30.0, 250.0), f"order confirm_down {host} seen on the spot")
    if plot.share(0.2):
        plot.add(rng.uniform(15.0, plot.until_s), f"order confirm_down {rng.choice(plot.hosts)} a mistake")


def _unplugged(plot: _Plot, host: str, at: float) -> None:
    plot.add(at, f"unplug {host}")
    back = at + plot.rng.uniform(80.0, 500.0)
    plot.add(back, f"restore {host}")
    if plot.share(0.4):
        plot.add(back, f"bmc {host} dead")


def _hung(plot: _Plot, host: str, at: float) -> None:
    """It goes on by itself, or by a reset."""
    plot.add(at, f"bmc {host} {plot.rng.choice(('dead', 'dead', 'dead', 'stuck', 'refuses', 'hangs'))}")
    plot.add(at, f"hang {host} {plot.rng.uniform(55.0, 300.0):.1f}s")
    if plot.share(0.5):
        plot.add(at + plot.rng.uniform(70.0, 400.0), f"bmc {host} ok")
    if plot.share(0.3):
        plot.add(at + plot.rng.uniform(70.0, 400.0), f"reboot {host}")


def _isolated(plot: _Plot, host: str, at: float) -> None:
    plot.add(at, f"bmc {host} dead")
    plot.add(at, f"isolate {host}")
    back = at + plot.rng.uniform(70.0, 400.0)
    plot.add(back, f"restore {host}")
    if plot.share(0.5):
        plot.add(back, f"bmc {host} dead")


def _engine(plot: _Plot, at: float) -> None:
    """It stops in the worst moments, or is gone for good and another one comes."""
    rng, name = plot.rng, plot.rng.choice(plot.cloud.engines)
    if plot.share(0.7):
        how = rng.choice(("in", "in", "before"))
        plot.add(at - 5.0, f"freeze engine {name} {rng.choice((2, 8, 20, 45))}s {how} {rng.choice(VERBS)}")
    else:
        plot.add(at + rng.uniform(0.0, 12.0), f"kill engine {name}")
        plot.add(at + rng.uniform(12.0, 40.0), f"engine heir-{round(at)} offset={rng.choice((0, 100, -3000))}s")
