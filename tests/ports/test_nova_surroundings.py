# SPDX-License-Identifier: Apache-2.0
"""What policies of VMs match by beside a server's own row, answered by a stand-in for Nova and Keystone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from keystoneauth1.noauth import NoAuth
from stand_in import Answer, StandIn, running

from vmhad.drivers.compute.nova import NovaCompute
from vmhad.kernel.vm_resolve import SURROUNDED, Surroundings
from vmhad.ports import Unanswered

AGGREGATES = [{"name": "ssd", "hosts": ["h1"]}, {"name": "all", "hosts": ["h1", "h2"]}]
GROUPS = [{"id": "g1", "name": "pair", "policy": "anti-affinity", "members": ["a", "b"]}]
PROJECTS = {"d1": ["p1", "p2", "p3", "p4", "p5"], "d2": ["p9"]}
EVERYTHING = frozenset(SURROUNDED)
NO = {"error": {"code": 403, "message": "You are not authorized: identity:list_projects."}}


class Cloud:
    """page: how many projects a listing has at most, whatever is asked for; 0: an old Keystone, which does not page."""

    def __init__(self) -> None:
        self.page = 1000
        self.list_limit = 0
        self.instead: dict[str, Answer] = {}

    def answer(self, method: str, path: str) -> Answer:
        where, told = urlsplit(path).path.removeprefix("/v2.1"), parse_qs(urlsplit(path).query)
        if where in self.instead:
            return self.instead[where]
        if where == "/os-server-groups":
            return _said({"server_groups": GROUPS if told["offset"] == ["0"] else []})
        if where == "/projects":
            return _said(self._projects(told))
        return _said({"aggregates": AGGREGATES} if where == "/os-aggregates" else {"services": []})

    def _projects(self, told: dict[str, list[str]]) -> dict[str, Any]:
        """As Keystone 2026.1 pages: only whom asks for a limit, and no more than its own."""
        have = PROJECTS.get(told["domain_id"][0], [])
        if not self.page:
            some = have[: self.list_limit or None]
            return {"projects": _rows(some), "links": {"next": None}, "truncated": len(some) < len(have)}
        have = have[have.index(told["marker"][0]) + 1 :] if "marker" in told else have
        some = have[: self.page]
        following = f"http://elsewhere/v3/projects?domain_id=x&marker={some[-1]}" if len(some) < len(have) else None
        links = {"next": following if "limit" in told else None}
        return {"projects": _rows(some), "links": links, "truncated": following is not None}


def _rows(ids: list[str]) -> list[dict[str, str]]:
    return [{"id": one, "name": f"name of {one}"} for one in ids]


def _said(body: object, status: int = 200) -> Answer:
    return status, json.dumps(body).encode()


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
def peer(cloud: Cloud) -> Iterator[StandIn]:
    with running() as server:
        server.answer = cloud.answer
        yield server


@pytest.fixture
def nova(peer: StandIn) -> Iterator[NovaCompute]:
    driver = NovaCompute(NoAuth(endpoint=peer.url), timeout_s=2.0)
    assert driver.services() == ()
    peer.asked.clear()
    yield driver
    driver.close()


def test_all_of_it_is_read_where_all_is_asked_for(nova: NovaCompute) -> None:
    assert nova.surroundings(EVERYTHING, frozenset({"d1", "d2", "nosuch"})) == Surroundings(
        aggregates={"h1": ("all", "ssd"), "h2": ("all",)},
        groups={"a": ("g1", "pair"), "b": ("g1", "pair")},
        domains=dict.fromkeys(PROJECTS["d1"], "d1") | {"p9": "d2"},
    )


@pytest.mark.parametrize("key", sorted(EVERYTHING))
def test_only_what_is_asked_for_is_read(peer: StandIn, nova: NovaCompute, key: str) -> None:
    nova.surroundings(frozenset({key}), frozenset({"d2"}))
    wheres = {urlsplit(path).path.removeprefix("/v2.1") for _, path in peer.asked}
    assert wheres == {{"aggregate": "/os-aggregates", "group": "/os-server-groups", "domain": "/projects"}[key]}


@pytest.mark.parametrize("page", [1, 2, 4, 5, 1000])
def test_projects_are_read_page_by_page(cloud: Cloud, nova: NovaCompute, page: int) -> None:
    cloud.page = page
    found = nova.surroundings(frozenset({"domain"}), frozenset({"d1", "d2"}))
    assert found.domains == dict.fromkeys(PROJECTS["d1"], "d1") | {"p9": "d2"} and not found.unknown


def test_a_keystone_that_lists_some_only_is_no_word_of_the_others(cloud: Cloud, nova: NovaCompute) -> None:
    cloud.page = 0
    assert not nova.surroundings(frozenset({"domain"}), frozenset({"d1"})).unknown
    cloud.list_limit = 3
    found = nova.surroundings(frozenset({"domain"}), frozenset({"d1"}))
    assert not found.domains and "list_limit" in found.unknown["domain"]


@pytest.mark.parametrize(
    "said",
    [
        _said(NO, 403),
        _said({}, 503),
        (0, b""),
        _said({"projects": None}),
        _said({"projects": [{"name": "x"}]}),
        _said({"projects": [], "links": {"next": "http://elsewhere/v3/projects"}}),
        _said({"projects": [], "links": {"next": "http://elsewhere/v3/projects?marker=p1"}}),
    ],
)
def test_what_keystone_will_not_tell_is_unknown_and_the_rest_is_known(
    cloud: Cloud, nova: NovaCompute, said: Answer
) -> None:
    cloud.instead["/projects"] = said
    found = nova.surroundings(EVERYTHING, frozenset({"d1"}))
    assert set(found.unknown) == {"domain"} and found.unknown["domain"] and not found.domains
    assert found.aggregates and found.groups


def test_what_nova_refuses_is_unknown_and_its_silence_is_no_answer(cloud: Cloud, nova: NovaCompute) -> None:
    cloud.instead["/os-aggregates"] = _said({"forbidden": {"code": 403, "message": "Policy does not allow it."}}, 403)
    found = nova.surroundings(EVERYTHING, frozenset())
    assert found.unknown == {"aggregate": "Policy does not allow it."} and found.groups
    for where in ("/os-aggregates", "/os-server-groups"):
        cloud.instead = {where: _said({}, 503)}
        with pytest.raises(Unanswered):
            nova.surroundings(EVERYTHING, frozenset())


def test_servers_are_found_by_their_very_name(cloud: Cloud, nova: NovaCompute) -> None:
    """Nova takes a name for a pattern: web-1 finds web-10, too."""
    row = {"OS-EXT-SRV-ATTR:host": "h1", "OS-EXT-STS:vm_state": "active", "tenant_id": "p1", "tags": ["x", "a"]}
    row |= {"image": {"id": "i1"}, "flavor": {"original_name": "m1.small"}}
    cloud.instead["/servers/detail"] = _said(
        {"servers": [row | {"id": "2", "name": "web-1"}, row | {"id": "1", "name": "web-10"}]}
    )
    assert [one.id for one in nova.servers_named("web-1")] == ["2"]
    assert [one.id for one in nova.all_servers()] == ["1", "2"]
    (server,) = nova.servers_named("web-1")
    assert (server.project, server.flavor, server.image, server.tags) == ("p1", "m1.small", "i1", ("a", "x"))
