# SPDX-License-Identifier: Apache-2.0
"""An order for the incident of a service of a host, and how such an incident is shown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vmhad.cmd import manage
from vmhad.conf.settings import ConfigError
from vmhad.journal import codec, keys
from vmhad.journal.journal import Journal
from vmhad.kernel.incident import opened, opened_of_service
from vmhad.kernel.order import OrderKind
from vmhad.kernel.topology import Host, Segment
from vmhad.sim.store import MemoryStore

SETTINGS: Any = SimpleNamespace(segments=(Segment("east", (Host("h1"),)),))


@pytest.fixture
def journal() -> Journal:
    store = MemoryStore()
    of_service = opened_of_service("h1", "nova-compute", "east", 2.0, "it failed")
    for incident in (opened("h1.1", "east", "h1", 1.0, "it fell"), of_service):
        store.commit([], {keys.incident("east", incident.id): codec.encode(incident)})
    return Journal(store)


def run(journal: Journal, *words: str) -> None:
    told = manage._arguments(list(words))
    assert told.run(journal, SETTINGS, told) == 0


def test_it_is_for_the_service_and_not_for_its_host(journal: Journal) -> None:
    run(journal, "order", "close", "--service", "h1/nova-compute", "--why", "mended")
    (order,) = journal.orders("east")
    assert (order.kind, order.subject, order.why) == (OrderKind.CLOSE, "h1/nova-compute", "mended")
    (of_host, of_service) = journal.load("east").incidents
    assert (of_host.subject, of_service.subject) == ("h1", "h1/nova-compute")


@pytest.mark.parametrize("name", ["nova-compute", "h1", "h1/libvirtd", "h2/nova-compute"])
def test_whom_it_means_must_be_plain(journal: Journal, name: str) -> None:
    with pytest.raises(ConfigError, match="no service .* there are: h1/nova-compute"):
        run(journal, "order", "retry", "--service", name)


def test_it_is_listed_and_shown_as_one(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    run(journal, "incident", "list")
    assert "h1/nova-compute.2000             SUSPECTED" in capsys.readouterr().out
    run(journal, "incident", "show", "h1/nova-compute.2000")
    assert capsys.readouterr().out.startswith("incident h1/nova-compute.2000 of service nova-compute of host h1, SUSP")


def test_a_pause_names_no_service() -> None:
    with pytest.raises(SystemExit):
        manage._arguments(["order", "pause", "--service", "h1/nova-compute"])
    with pytest.raises(SystemExit):
        manage._arguments(["order", "retry", "--service", "h1/libvirtd", "--host", "h1"])
