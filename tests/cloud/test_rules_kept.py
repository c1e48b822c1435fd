# SPDX-License-Identifier: Apache-2.0
"""What is lost comes back with the rules of its groups kept: a host, a rack and two racks of a cloud full of groups.

A host and a rack are lost in every build; the rest by `make test-rules`, which also has Nova alone evacuate the same
losses, as an operator's script would: all at once, wherever its scheduler likes. lab/run/rules.json gets an object a
scenario. VMHAD_RULES_LAB names the lab (default rules-test).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from grouped_cloud import HOSTS, Grouped, Outcome, judged, populate, racks_of
from trial import Trial

from lab.cloud_lab import SETTLED, CloudLab
from lab.engine import EngineProcess, forget_journal
from vmhad.kernel.policy import Policy

pytestmark = pytest.mark.cloud

RESULTS = Path(__file__).resolve().parents[2] / "lab" / "run" / "rules.json"
# Two of three racks may be lost at once here, and all their hosts are recovered side by side.
POLICY = {"spread_over": "rack", "failed_share_max": 0.9, "recoveries_max": HOSTS, "fences_in_flight_max": HOSTS}
RECOVERS_S = 300.0
LOST = {"host": (0,), "rack": (0, 1, 2, 3), "two racks": (0, 1, 2, 3, 4, 5, 6, 7), "one of each rack": (1, 6, 11)}
BUILDS = ("host", "rack")
SEEDS = range(1, 6)


@pytest.fixture(scope="module")
def grouped() -> Iterator[CloudLab]:
    lab = CloudLab.up(os.environ.get("VMHAD_RULES_LAB", "rules-test"), HOSTS)
    try:
        yield lab
    finally:
        lab.command("down", "--wipe")


@pytest.fixture(scope="module")
def results() -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    yield rows
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


@pytest.fixture
def trial(grouped: CloudLab) -> Iterator[Trial]:
    grouped.reset()
    forget_journal(grouped.facts)
    one = Trial(grouped)
    try:
        yield one
    finally:
        one.end()


def lose(trial: Trial, name: str) -> list[str]:
    dead = [trial.lab.hosts[number] for number in LOST[name]]
    trial.cut_together(dead)
    return dead


def row(name: str, by: str, seed: int, dead: Sequence[str], found: Outcome, began: float) -> dict[str, Any]:
    return {
        "scenario": name, "by": by, "seed": seed, "hosts_lost": len(dead), "vms": found.vms,
        "recovered": found.recovered, "error": found.error, "rules_broken_avoidably": len(found.broken),
        "broken": list(found.broken), "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def begun(
    trial: Trial, name: str, seed: int, policy: dict[str, Any]
) -> tuple[EngineProcess, list[Grouped], list[str]]:
    engine = trial.engine(policy={**POLICY, **policy}, racks=racks_of(trial.lab.hosts[:HOSTS]))
    groups = populate(trial.lab, seed)
    trial.ready()
    return engine, groups, lose(trial, name)


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        *(pytest.param(name, 0, marks=[] if name in BUILDS else [pytest.mark.chaos]) for name in LOST),
        *(pytest.param("rack", seed, marks=[pytest.mark.chaos]) for seed in SEEDS),
    ],
)
def test_every_rule_that_can_be_kept_is_kept(trial: Trial, results: list[dict[str, Any]], name: str, seed: int) -> None:
    began = time.monotonic()
    engine, groups, dead = begun(trial, name, seed, {})
    for host in dead:
        trial.recovered(engine, host, RECOVERS_S)
    found = judged(trial.lab, groups, dead)
    results.append(row(name, "vmhad", seed, dead, found, began))
    assert (found.recovered, found.error, found.broken) == (found.vms, 0, ())


@pytest.mark.chaos
def test_hard_affinity_is_blocked_where_computes_refuse_it(trial: Trial, results: list[dict[str, Any]]) -> None:
    """All others come back; of those groups that died whole not one is asked for."""
    began = time.monotonic()
    engine, groups, dead = begun(trial, "rack", 0, {"affinity_groups_movable": False})
    blocked = [one for one in groups if one.kind == "affinity" and set(one.where.values()) <= set(dead)]
    assert blocked
    for host in dead:
        word = "STUCK" if any(host in one.where.values() for one in blocked) else "RECOVERED"
        told = trial.wait_line(engine, f"host {host}", word, RECOVERS_S)
        assert word == "RECOVERED" or "blocked: " in told["text"]
    assert not [server for one in blocked for server in one.where if trial.lab.evacuations(server)]
    found = judged(trial.lab, [one for one in groups if one not in blocked], dead)
    results.append(row("rack, hard affinity not movable", "vmhad", 0, dead, found, began))
    assert (found.recovered, found.error, found.broken) == (found.vms, 0, ())


@pytest.mark.chaos
@pytest.mark.parametrize(("name", "seed"), [*((name, 0) for name in LOST), *(("rack", seed) for seed in SEEDS)])
def test_what_nova_alone_makes_of_the_same_loss(
    trial: Trial, results: list[dict[str, Any]], name: str, seed: int
) -> None:
    """Nothing is promised of it: it stands beside. The judge must be able to see what it is there to see."""
    began = time.monotonic()
    groups = populate(trial.lab, seed)
    dead = lose(trial, name)
    evacuate_all(trial.lab, dead)
    found = judged(trial.lab, groups, dead)
    results.append(row(name, "Nova alone", seed, dead, found, began))
    mine = next((one for one in results if (one["scenario"], one["seed"], one["by"]) == (name, seed, "vmhad")), None)
    if mine is not None:
        assert found.recovered <= mine["recovered"] and len(found.broken) >= mine["rules_broken_avoidably"]


def evacuate_all(lab: CloudLab, dead: Sequence[str]) -> None:
    """As `nova host-evacuate` does, with all requests at once; what Nova refuses is left."""
    for host in dead:
        service = lab.service(host)
        lab.api("PUT", f"/os-services/{service['id']}", {"forced_down": True, "status": "disabled"})
    ids = [one["id"] for host in dead for one in lab.servers(host)]

    def evacuate(server: str) -> None:
        path = f"/servers/{server}/action"
        lab.nova.compute.request(path, "POST", json={"evacuate": {}}, microversion="2.96")

    with ThreadPoolExecutor(Policy().evacuation_requests_max) as pool:
        list(pool.map(evacuate, ids))
    lab.wait("all evacuations ended", lambda: all(_is_quiet(lab, one) for one in ids), RECOVERS_S, 1.0)


def _is_quiet(lab: CloudLab, server: str) -> bool:
    return all(one["status"] in SETTLED for one in lab.evacuations(server))
