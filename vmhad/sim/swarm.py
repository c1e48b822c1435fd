# SPDX-License-Identifier: Apache-2.0
"""A seed drawn into a story: a datacentre, its policies, and what befalls it, all in the language of directives.

Swarm: each seed leaves out a random part of what may go wrong and exaggerates the rest, so that rare pairs of faults
meet often in some seeds instead of seldom in all. Because everything is a directive, a failing seed is a story.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from vmhad.sim.agent_swarm import with_agents
from vmhad.sim.ambush import ambush
from vmhad.sim.drain_swarm import with_drains
from vmhad.sim.lateness import lateness
from vmhad.sim.lonely import lonely, paused
from vmhad.sim.mischief import Cloud, Timed, mischief
from vmhad.sim.rules_swarm import with_rules
from vmhad.sim.storage_swarm import has_agents, with_storages
from vmhad.sim.twins import twins

HOUR_S = 3600.0
# From this share of its time on a script breaks nothing any more: what was broken is mended, and has to come right.
CALM_SHARE = 0.8
RETRY_AFTER_S = 300.0
POLICIES: dict[str, tuple[str, ...]] = {
    "after_fence": ("stay_off", "power_on"),
    "failed_share_max": ("0.2", "0.34", "0.75", "0.75"),
    "already_off_quiet_s": ("0s", "12s"),
    "heartbeat_quiet_s": ("25s", "15s", "40s"),
    "back_grace_s": ("60s", "20s"),
    "storm_window_s": ("600s", "120s"),
    "recoveries_max": ("8", "2", "1"),
    "fences_in_flight_max": ("8", "2", "1"),
    "canary_from_hosts": ("3", "2", "10"),
    "domain_silent_min": ("3", "2", "5"),
    "evacuations_max": ("64", "4", "1"),
    "evacuations_per_target_max": ("16", "2", "1"),
    "evacuate_deadline_s": ("900s", "200s"),
    "evacuate_attempts_max": ("8", "3"),
    "retry_backoff_s": ("10s", "3s"),
    "fence_attempts_max": ("3", "1"),
    "power_off_deadline_s": ("20s", "8s"),
    "fence_retry_s": ("30s", "10s"),
    "rebuild_local_disks": ("no", "yes"),
}
PACES: dict[str, tuple[str, ...]] = {
    "nova_poll_s": ("2s", "2s", "1s", "5s"),
    "power_poll_s": ("2s", "2s", "5s"),
    "lease_s": ("15s", "15s", "30s"),
}


@dataclass(frozen=True)
class Shape:
    """How large a seed is, whether its hosts have agents, and whether guests fail alone in it, too. drains: hosts ail,
    and are emptied; they have agents then. storages: storages cut hosts off, and one half has agents.
    rules: groups are kept apart over domains, VMs have priorities and wait for each other, and some storages are
    reached by some hosts only."""

    hosts: int = 30
    hours: float = 1.0
    agents: bool = False
    lonely: bool = False
    drains: bool = False
    storages: bool = False
    rules: bool = False


STANDARD = Shape()


@dataclass(frozen=True)
class Script:
    """declarations: directives that build the world. faults: (seconds since the start, directive), in order.

    calm_from_s: from there on nothing breaks any more, and what is broken is mended. ends_at_s: when it is over.
    """

    declarations: tuple[str, ...]
    faults: tuple[Timed, ...]
    calm_from_s: float
    ends_at_s: float


@dataclass
class _Sheet:
    """What is drawn so far. free: host -> vCPUs that no VM has yet."""

    rng: random.Random
    lines: list[str] = field(default_factory=list)
    segments: dict[str, list[str]] = field(default_factory=dict)
    domains: dict[str, list[str]] = field(default_factory=dict)
    free: dict[str, int] = field(default_factory=dict)
    zones: list[str] = field(default_factory=list)
    with_gpu: set[str] = field(default_factory=set)
    vms: dict[str, str] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)


def draw(seed: int, shape: Shape = STANDARD) -> Script:
    """The same seed and shape give the same script, in every process and on every machine."""
    rng = random.Random(seed)
    sheet = _Sheet(rng, [f"seed {seed}"])
    calm_from_s = round(shape.hours * HOUR_S * CALM_SHARE, 3)
    strict = rng.random() < 0.15
    # BMCs that lie from the very first reading on were never trusted, and need no long quiet to be disbelieved.
    from_first = strict and random.Random(f"lies {seed}").random() < 0.5
    movable = rng.random() < 0.3
    if rng.random() < 0.5:
        sheet.lines.append("pace " + " ".join(f"{key}={rng.choice(some)}" for key, some in PACES.items()))
    _hosts(sheet, shape.hosts, strict and not from_first, movable)
    _vms(sheet)
    engines = _engines(sheet)
    cloud = Cloud(sheet.segments, sheet.domains, sheet.vms, engines, strict)
    faults: list[Timed] = [(0.0, "nova affinity-check off")] if movable else []
    faults += mischief(rng, cloud, calm_from_s, shape.hours)
    if from_first:
        faults = [(0.0 if line.endswith("lies") else at, line) for at, line in faults]
    faults += ambush(seed, cloud, sheet.lines, faults, calm_from_s)
    declared, late = lateness(seed, cloud, sheet.lines, faults, calm_from_s)
    late += twins(seed, cloud, declared, faults, calm_from_s)
    if shape.agents or shape.drains or (shape.storages and has_agents(seed)):
        declared, seen = with_agents(seed, declared, cloud.hosts, calm_from_s)
        late += seen
    if shape.drains:
        declared, ill = with_drains(seed, declared, cloud.hosts, calm_from_s)
        late += ill
    if shape.storages:
        declared, lost = with_storages(seed, declared, cloud, faults, calm_from_s)
        late += lost
    if shape.rules:
        declared, said = with_rules(seed, declared, cloud, calm_from_s)
        late += said
    if shape.lonely:
        late += lonely(seed, cloud, calm_from_s)
        declared, stopped = paused(seed, cloud, declared, calm_from_s)
        late += stopped
    faults = sorted((*faults, *late), key=lambda one: one[0])
    faults += [(calm_from_s, f"order resume {name}") for name in sheet.segments]
    faults += [(calm_from_s, "heal"), (calm_from_s + RETRY_AFTER_S, "order retry stuck")]
    return Script(tuple(declared), tuple(faults), calm_from_s, calm_from_s + shape.hours * HOUR_S * (1 - CALM_SHARE))


def _hosts(sheet: _Sheet, count: int, strict: bool, movable: bool) -> None:
    rng = sheet.rng
    segments = min(rng.choice((1, 1, 2, 3)), max(1, count // 4))
    racks = rng.choice((0, 2, 3, 4, 6))
    feeds = rng.choice((0, 2, 3))
    sites = rng.choice((0, 0, 0, 2, 3))
    sheet.zones = [f"az{number}" for number in range(1, rng.choice((1, 1, 2, 3)) + 1)]
    room = rng.choice((6, 8, 12, 32))
    boot = rng.choice(("40s", "60s", "120s"))
    gpus = rng.random() < 0.3
    kept = [key for key in POLICIES if rng.random() < 0.5]
    movable_too = {"affinity_groups_movable": "yes"} if movable else {}
    for number in range(segments):
        name = f"s{number + 1}"
        policy = {key: rng.choice(POLICIES[key]) for key in kept} | movable_too
        policy["silent_means"] = rng.choice(("hold", "fence", "fence", "fence"))
        if strict:
            policy["already_off_quiet_s"] = "12s"
        if feeds and rng.random() < 0.3:
            policy["domain_kind"] = "power"
        words = " ".join(f"{key}={value}" for key, value in sorted(policy.items()))
        sheet.lines.append(f"segment {name} policy {words}".strip())
        sheet.segments[name] = []
        for index in range(number, count, segments):
            host = f"h{index + 1:02d}"
            options = [f"room={room}vcpu", f"boot={boot}"]
            if racks:
                options.append(_domain(sheet, host, "rack", f"r{index * racks // count + 1}"))
            if feeds:
                options.append(_domain(sheet, host, "power", f"f{index % feeds + 1}"))
            if sites:
                options.append(_domain(sheet, host, "site", f"d{index * sites // count + 1}"))
            options.append(f"zone={sheet.zones[index * len(sheet.zones) // count]}")
            if gpus and rng.random() < 0.3:
                options.append("has=gpu")
                sheet.with_gpu.add(host)
            sheet.lines.append(f"host {host} {' '.join(options)}")
            sheet.segments[name].append(host)
            sheet.free[host] = room


def _domain(sheet: _Sheet, host: str, kind: str, name: str) -> str:
    sheet.domains.setdefault(name, []).append(host)
    return f"{kind}={name}"


def _vms(sheet: _Sheet) -> None:
    rng = sheet.rng
    odd = {word for word in ("stopped", "locked", "local-disk", "opted-out", "zone-pinned", "refused", "gpu", "group")
           if rng.random() < 0.5}  # fmt: skip
    if "group" in odd:
        _groups(sheet)
    for host in sorted(sheet.free):
        for _ in range(rng.choice((1, 2, 2, 3, 3))):
            _vm(sheet, host, _odd_words(sheet, host, odd))


def _odd_words(sheet: _Sheet, host: str, odd: set[str]) -> list[str]:
    rng = sheet.rng
    words = []
    for word, share, text in (
        ("stopped", 0.15, "state=stopped"),
        ("locked", 0.1, "locked"),
        ("local-disk", 0.1, "local-disk"),
        ("opted-out", 0.1, "vmhad=false"),
        ("zone-pinned", 0.2, "zone-pinned"),
        ("refused", 0.03, "'refused=Cannot evacuate: vTPM'"),
    ):
        if word in odd and rng.random() < share:
            words.append(text)
    if "gpu" in odd and host in sheet.with_gpu and rng.random() < 0.3:
        words.append("needs=gpu")
    return words


def _vm(sheet: _Sheet, host: str, words: Sequence[str]) -> None:
    vcpus = sheet.rng.choice((1, 1, 1, 2, 4))
    if sheet.free[host] >= vcpus:
        name = f"v{len(sheet.vms) + 1:02d}"
        sheet.free[host] -= vcpus
        sheet.vms[name] = host
        sheet.lines.append(f"vm {name} on {host} vcpus={vcpus} {' '.join(words)}".rstrip())


def _groups(sheet: _Sheet) -> None:
    """Members start where their group's rule wants them."""
    rng = sheet.rng
    for number in range(1, rng.randint(2, 7)):
        name = f"g{number}"
        kind = rng.choice(("affinity", "anti-affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"))
        per_host = rng.choice((1, 1, 2)) if kind == "anti-affinity" else 1
        hosts = sheet.segments[rng.choice(sorted(sheet.segments))] if rng.random() < 0.8 else sorted(sheet.free)
        size = rng.randint(2, 4)
        if kind in ("affinity", "soft-affinity"):
            where = [rng.choice(hosts)] * size
        else:
            where = rng.sample(hosts, min(size, len(hosts)))
        cap = f" max_per_host={per_host}" if per_host > 1 else ""
        sheet.lines.insert(1, f"group {name} policy={kind}{cap}")
        for host in where:
            _vm(sheet, host, [f"group={name}"])


def _engines(sheet: _Sheet) -> list[str]:
    rng = sheet.rng
    names = [f"e{number}" for number in range(1, rng.choice((1, 2, 2, 3)) + 1)]
    for name in names:
        offset = rng.choice((0, 0, 0.4, -7, 100, -3000))
        sheet.lines.append(f"engine {name} offset={offset}s")
    return names
