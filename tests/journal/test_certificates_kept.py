# SPDX-License-Identifier: Apache-2.0
"""Certificates in the journal: with their step or not at all, and not gone before they are somewhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.journal.test_journal import S, ended, incident, loaded, steps, take
from vmhad.engine.keeping import Keeping
from vmhad.journal import keys
from vmhad.journal.change import parts
from vmhad.journal.journal import Change, Journal
from vmhad.ports import Store


def certified(store: Store, *ids: str) -> None:
    for one in ids:
        store.commit([], {keys.certificate(one, "vm/1", n): b"{}" for n in (1, 2)})


def test_certificates_are_exported_before_their_incident_goes(store: Store) -> None:
    take(store, 1)
    loaded(store).commit(S, 1, Change(tuple(ended(f"h1.{n}", 100.0 + n) for n in range(4))))
    certified(store, "h1.0", "h1.1")
    put: dict[str, bytes] = {}

    def export(name: str, raw: bytes) -> None:
        assert store.list(keys.certificates("h1.0")) or store.list(keys.certificates("h1.1")), "exported, then gone"
        put[name] = raw

    assert Journal(store).prune(S, 200.0, keep_s=1e6, keep_count=1, export=export) == 3
    assert sorted(put) == [f"h1.{n}@vm%2F1@000{number}.json" for n in (0, 1) for number in (1, 2)]
    assert store.list(keys.CERTIFICATES) == {}


def test_the_last_failure_of_a_host_stays_whatever_befell_its_vms_since(store: Store) -> None:
    take(store, 1)
    of_vm = replace(ended("vm-1.9", 900.0), host="h1", vm="vm-1")
    loaded(store).commit(S, 1, Change((ended("h1.1", 100.0), of_vm)))
    assert Journal(store).prune(S, 1e6, keep_s=0.0, keep_count=0) == 1
    assert {one.id for one in Journal(store).load(S).incidents} == {"h1.1"}


def test_what_cannot_be_exported_stays(store: Store) -> None:
    take(store, 1)
    loaded(store).commit(S, 1, Change((ended("h1.1", 1.0), ended("h1.2", 2.0))))
    certified(store, "h1.1")

    def full(name: str, raw: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        Journal(store).prune(S, 1e6, keep_s=0.0, keep_count=0, export=full)
    assert Keeping(0.0, 0, full).prune(Journal(store), S, 1e6) == 0
    assert len(Journal(store).load(S).incidents) == 2 and len(Journal(store).certificates("h1.1", "vm/1")) == 2


def test_without_an_export_certificates_keep_their_incident_until_its_age(store: Store) -> None:
    take(store, 1)
    loaded(store).commit(S, 1, Change(tuple(ended(f"h1.{n}", 100.0 + n) for n in range(4))))
    certified(store, "h1.0", "h1.1")
    assert Journal(store).prune(S, 150.0, keep_s=49.5, keep_count=0) == 2, "h1.0 by its age, h1.2 by the count"
    assert {one.id for one in Journal(store).load(S).incidents} == {"h1.1", "h1.3"}
    assert {key.split("/")[-3] for key in store.list(keys.CERTIFICATES)} == {"h1.1"}


def test_a_certificate_is_never_cut_off_from_the_step_that_it_tells_of() -> None:
    made = steps("h1.1", 120)
    told = {step.id: {keys.certificate("h1.1", step.subject, 1): b"x" * 9000} for step in made}
    cut = parts(S, Change((incident("h1.1"),), made, certificates=told), {})
    assert len(cut) > 2
    for part in cut:
        of_steps = {operation.key.rpartition(".")[2] for operation in part if "/step/" in operation.key}
        of_certificates = {operation.key.split("/vm")[-1] for operation in part if "/certificate/" in operation.key}
        assert {f"{int(one):d}/0001" for one in of_steps} == of_certificates
