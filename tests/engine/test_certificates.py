# SPDX-License-Identifier: Apache-2.0
"""What is in the certificates that stories end with, whoever owned the segment, whatever failed on the way."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

import vmhad.kernel.certificate
from tests.certificates import STORIES, chain, chains, played
from vmhad.journal import keys
from vmhad.journal.journal import Journal
from vmhad.kernel.cloud import ARRIVED
from vmhad.kernel.incident import Incident
from vmhad.kernel.step import StepState, Verb
from vmhad.sim import rules_of_certificates

SCHEMA = json.loads(Path(vmhad.kernel.certificate.__file__).with_suffix(".schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
TELLING = (
    "cut_moves_four_vms", "engine_killed_mid_recovery", "request_lost_is_sent_again", "target_hangs_while_receiving",
    "heir_knows_that_the_target_died", "nova_answers_500_for_ever", "vm_in_error_when_the_host_returns",
    "agent_take_over_after_the_verdict", "clock_far_behind", "engine_dies_in_the_fence",
    "rack_at_once", "hard_affinity_moved_as_one", "self_fenced_by_policy", "cut_storage_one_of_two",
    "cut_storage_taken_over_half_proven", "word_for_what_is_half_proven", "cut_storage_taken_over_when_evacuated",
)  # fmt: skip


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    published = STORIES.parents[1] / "doc" / "source" / "admin" / "certificate.schema.json"
    assert json.loads(published.read_text()) == SCHEMA


@pytest.mark.parametrize("story", TELLING)
def test_certificates_are_made_as_the_schema_says(story: str) -> None:
    found = chains(story)
    assert found
    for one in (one for mine in found.values() for one in mine):
        assert [f"{list(error.path)}: {error.message}" for error in VALIDATOR.iter_errors(one)] == []


@pytest.mark.parametrize("story", TELLING)
def test_each_vm_that_was_started_elsewhere_has_one_that_holds(story: str) -> None:
    world = played(story)
    assert list(rules_of_certificates.at_end(world)) == []
    arrived = Counter(move.server for move in world.nova.migrations if move.status in ARRIVED)
    done = Counter(vm for (_, vm), mine in chains(story).items() for one in mine if one["result"]["word"] == "done")
    assert arrived.keys() == done.keys()


def test_who_looks_for_a_missing_one_finds_it_missing() -> None:
    world = played("cut_moves_four_vms")
    found = chains("cut_moves_four_vms")
    incident, server = sorted(found)[0]
    kept = dict(world.store.list(keys.certificates(incident, server)))
    world.store.commit([], {}, list(kept))
    try:
        missing = [why for _, why in rules_of_certificates.at_end(world)]
    finally:
        world.store.commit([], kept)
    assert ["without a certificate" in why for why in missing] == [True, False]
    assert missing[1] == "1 certificates of it were written, and 0 are kept"


def test_it_says_what_was_seen_why_it_was_fenced_and_what_was_done() -> None:
    (one,) = chain("cut_moves_four_vms")
    assert one["verdict"]["judgement"] == "failed" and one["verdict"]["because"]
    assert {sight["channel"] for sight in one["verdict"]["sights"]} == {"nova", "power"}
    assert one["verdict"]["brake"]["held"] == "its power was read OFF, but not twice and borne out yet"
    assert one["verdict"]["brake"]["hosts"] == 4
    (level,) = one["levels"]
    assert (level["verb"], level["state"], level["acts"]) == ("power_off", "done", 1)
    (proof,) = one["proofs"]
    assert [seen["reading"] for seen in proof["observed"]] == ["off", "off"]
    assert one["plan"]["proof_hosts"] == "h1" and one["plan"]["target"] != "h1"
    assert one["result"]["word"] == "done"
    assert one["start"]["acted_at"]["utc"].startswith("2027-01-15T08:00:")


def test_it_says_when_its_own_host_was_to_be_cut_off() -> None:
    """h3 says it for itself; what its segment says held for h1."""
    found = {vm: one for (_, vm), mine in chains("cut_storage_as_each_host_says").items() for one in mine}
    assert {vm: one["verdict"]["policy"]["cut_storage"] for vm, one in found.items()} == {
        "web-1": "beside_power", "web-3": "after_power",
    }  # fmt: skip


def test_a_take_over_mid_way_has_two_epochs_in_one_certificate() -> None:
    started_under = set()
    for mine in chains("engine_killed_mid_recovery").values():
        one = mine[-1]
        assert [(owner["epoch"], owner["name"]) for owner in one["owners"]] == [(1, "e1"), (2, "e3")]
        assert one["verdict"]["epoch"] == 1 and one["proofs"][0]["epoch"] == 1
        assert one["result"] | {"at": 0, "because": ""} == {"word": "done", "because": "", "at": 0, "epoch": 2}
        started_under.add(one["start"]["epoch"])
    assert 1 in started_under, "what the first owner started keeps its epoch"


def test_what_failed_and_was_tried_again_is_a_chain() -> None:
    first, second = chain("request_lost_is_sent_again")
    assert (first["number"], first["previous"], first["result"]["word"]) == (1, "", "retried")
    assert (second["number"], second["previous"], second["result"]["word"]) == (2, first["digest"], "done")
    assert second["start"]["attempt"] > first["start"]["attempt"]
    assert second["start"]["earlier"]


def test_after_eight_failures_only_their_number_is_kept() -> None:
    failures = chain("nova_answers_500_for_ever")
    assert [one["result"]["word"] for one in failures] == ["retried"] * 7 + ["failed"]
    world = played("vm_in_error_when_the_host_returns")
    (step,) = [one for one in world.ledger.steps.values() if one.verb is Verb.EVACUATE]
    assert step.certified is not None
    assert step.certified.failed == len(chain("vm_in_error_when_the_host_returns")) <= 8


def test_a_vm_whose_second_host_died_rests_on_two_proofs() -> None:
    one = chain("target_hangs_while_receiving")[-1]
    assert [proof["host"] for proof in one["proofs"]] == ["h1", "h2"]
    assert [proof["incident"] == one["incident"]["id"] for proof in one["proofs"]] == [True, False]


def test_what_a_decision_saw_survives_a_take_over() -> None:
    """The heir has seen nothing of what the first owner judged by."""
    one = chain("agent_take_over_after_the_verdict")[-1]
    assert one["verdict"]["sights"] and one["verdict"]["because"]


def test_an_incident_of_weeks_still_fits_its_journal() -> None:
    incident = record("vm_in_error_when_the_host_returns")
    assert incident.round > 1
    assert len(incident.exhibits) <= 10


def test_what_stayed_where_it_was_has_none() -> None:
    assert chains("vm_dies_alone") == {}
    assert chains("drain_tenant_plane_lost") == {}


def record(story: str) -> Incident:
    world = played(story)
    (segment,) = world.segments
    (incident,) = [one for one in Journal(world.store).load(segment.name).incidents if one.is_of_host]
    assert all(one.state is not StepState.STARTED or one.begun for one in world.ledger.steps.values() if one.acts)
    return incident
