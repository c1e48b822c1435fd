# SPDX-License-Identifier: Apache-2.0
"""The stories tell everything that the core can decide: what no story tells is named here.

Each is a story away: write it, and say in its first comment why that outcome is right for an operator.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

import vmhad
from tests.stories.witness import (
    STORIES,
    Witness,
    every_directive,
    every_edge,
    record_of,
    sentences,
    shared_folder,
    unsaid,
)
from vmhad.guards.hosts.judge import TABLE
from vmhad.guards.instances.judge import TABLE as VMS
from vmhad.guards.services.judge import TABLE as SERVICES
from vmhad.kernel.order import OrderKind
from vmhad.kernel.policy import Policy
from vmhad.kernel.step import Verb
from vmhad.sim.datacentre import Bmc
from vmhad.sim.storage import Mood

VMHAD = Path(vmhad.__file__).parent
# Every sentence of these is read by operators: why nothing is done, what is missing, what came of it.
TOLD = (
    "kernel/alone.py",
    "kernel/brake.py",
    "kernel/reconcile.py",
    "guards/hosts/covers.py",
    "guards/hosts/cut_storage.py",
    "guards/hosts/drain.py",
    "guards/hosts/fence.py",
    "guards/hosts/lift.py",
    "guards/hosts/move.py",
    "guards/hosts/order.py",
    "guards/hosts/place.py",
    "guards/hosts/power_off.py",
    "guards/hosts/recover.py",
    "guards/hosts/retry.py",
    "guards/hosts/settle.py",
    "guards/hosts/treat.py",
    "guards/hosts/word.py",
    "guards/instances/fence.py",
    "guards/instances/recover.py",
    "guards/services/fence.py",
    "guards/services/recover.py",
)
GROUPS = {
    "affinity",
    "anti-affinity",
    "anti-affinity of several a host",
    "soft-affinity",
    "soft-anti-affinity",
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Witness:
    """What all stories together make the core do; those that this session has told already are not told again."""
    folder, everything = shared_folder(tmp_path_factory.getbasetemp()), Witness()
    for path in STORIES:
        everything.add(record_of(path, folder).witness)
    return everything


def test_every_row_of_the_verdict_table(seen: Witness) -> None:
    missing = {str(number): row.because for number, row in enumerate(TABLE, start=1) if str(number) not in seen.rows}
    assert missing == {}


def test_every_row_of_the_table_of_vms(seen: Witness) -> None:
    assert sorted({row.because for row in VMS} - seen.rows_of_vms) == []


def test_every_row_of_the_table_of_services(seen: Witness) -> None:
    assert sorted({row.because for row in SERVICES} - seen.rows_of_services) == []


def test_every_edge_of_the_incident_machine(seen: Witness) -> None:
    assert sorted(every_edge() - seen.edges) == []


@pytest.mark.parametrize("module", TOLD)
def test_every_sentence_for_operators(seen: Witness, module: str) -> None:
    assert unsaid((VMHAD / module).read_text(), seen.texts) == []


def test_every_verb(seen: Witness) -> None:
    assert sorted({verb.value for verb in Verb} - seen.verbs) == []


def test_every_kind_of_group(seen: Witness) -> None:
    assert sorted(GROUPS - seen.groups) == []


def test_every_number_and_choice_of_a_policy(seen: Witness) -> None:
    assert sorted({one.name for one in fields(Policy)} - seen.policies) == []


def test_every_order(seen: Witness) -> None:
    assert sorted({kind.value for kind in OrderKind} - seen.orders) == []


def test_every_word_of_the_stories_language(seen: Witness) -> None:
    assert sorted(every_directive() - seen.directives) == []
    assert sorted({mode.value for mode in Bmc} - seen.bmcs) == []
    assert sorted({mood.value for mood in Mood} - seen.moods) == []


def test_what_no_story_tells_is_named() -> None:
    """The checks above can fail: with no story at all everything is missing."""
    nothing = Witness()
    assert len(every_edge() - nothing.edges) > 20
    brake = (VMHAD / "kernel/brake.py").read_text()
    assert len(unsaid(brake, nothing.texts)) == len(sentences(brake)) >= 8


def test_a_sentence_counts_only_when_it_is_said() -> None:
    source = 'def why(n: int) -> str:\n    """Not a sentence of it."""\n    return f"{n} hosts are silent, held"\n'
    assert list(sentences(source)) == ["3: … hosts are silent, held"]
    assert unsaid(source, {"3 hosts are silent, held", "more"}) == []
    assert unsaid(source, {"3 hosts are silent"}) == ["3: … hosts are silent, held"]
