# SPDX-License-Identifier: Apache-2.0
"""An order for the incident of a single VM: by its id, or by a name that only one has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vmhad.cmd import manage
from vmhad.conf.settings import ConfigError
from vmhad.journal import codec, keys
from vmhad.journal.journal import Journal
from vmhad.kernel.cloud import Server, ServerState
from vmhad.kernel.incident import opened, opened_of_vm
from vmhad.kernel.order import OrderKind
from vmhad.kernel.topology import Host, Segment
from vmhad.sim.store import MemoryStore

SETTINGS: Any = SimpleNamespace(segments=(Segment("east", (Host("h1"),)),))


@pytest.fixture
def journal() -> Journal:
    store = MemoryStore()
    servers = [Server(one, name, "h1", ServerState.STOPPED) for one, name in (("1", "web"), ("2", "web"), ("3", "db"))]
    alone = [opened_of_vm(one, "east", 1.0, "") for one in servers]
    for incident in (opened("h1.1", "east", "h1", 1.0, "it fell"), *alone):
        store.commit([], {keys.incident("east", incident.id): codec.encode(incident)})
    return Journal(store)


def ordered(journal: Journal, *words: str) -> None:
    told = manage._arguments(["order", *words])
    assert told.run(journal, SETTINGS, told) == 0


@pytest.mark.parametrize("name", ["3", "db"])
def test_it_is_for_the_vm_and_not_for_its_host(journal: Journal, name: str) -> None:
    ordered(journal, "retry", "--vm", name, "--why", "mended")
    (order,) = journal.orders("east")
    assert (order.kind, order.vm, order.host, order.why) == (OrderKind.RETRY, "3", "h1", "mended")


@pytest.mark.parametrize("name", ["web", "h1", "4"])
def test_whom_it_means_must_be_plain(journal: Journal, name: str) -> None:
    with pytest.raises(ConfigError, match="have an open incident of their own"):
        ordered(journal, "close", "--vm", name)


def test_an_order_for_a_host_names_no_vm(journal: Journal) -> None:
    ordered(journal, "close", "--host", "h1")
    assert [one.vm for one in journal.orders("east")] == [""]


def test_an_incident_of_a_vm_is_shown_as_one(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    (incident,) = (one for one in journal.load("east").incidents if one.vm == "3")
    told = manage._arguments(["incident", "show", incident.id])
    assert told.run(journal, SETTINGS, told) == 0
    assert capsys.readouterr().out.startswith(f"incident {incident.id} of VM db on host h1, SUSPECTED")


def test_a_host_or_a_vm_is_asked_for() -> None:
    for words in (["order", "retry"], ["order", "retry", "--host", "h1", "--vm", "3"]):
        with pytest.raises(SystemExit):
            manage._arguments(words)
