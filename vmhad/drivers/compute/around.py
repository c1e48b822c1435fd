# SPDX-License-Identifier: Apache-2.0
"""What policies of VMs may match by and no server's row says: aggregates and groups of Nova, domains of Keystone.

Asked only for what some policy names: a listing each, and one for each domain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from vmhad.drivers.compute.calls import Calls
from vmhad.kernel.cloud import Group
from vmhad.kernel.vm_resolve import Surroundings
from vmhad.ports import Refused, Unanswered

AGGREGATES_AT = "2.41"
# A Keystone that pages says that there is more only to whom asks for pages.
PROJECTS_A_PAGE = 1000


def surroundings_of(
    calls: Calls, groups: Iterable[Group], keys: frozenset[str], domains: frozenset[str]
) -> Surroundings:
    """groups: all there are; not read where none are asked for. Raises Unanswered where Nova says nothing: without it
    nothing is done anyway. Keystone may be silent, or either refuse: that is told of the key."""
    unknown: dict[str, str] = {}

    def told(key: str, read: Callable[[], Mapping[str, Any]], refusals: tuple[type[Exception], ...]) -> Any:
        if key in keys:
            try:
                return read()
            except refusals as error:
                unknown[key] = str(error)
        return {}

    return Surroundings(
        aggregates=told("aggregate", lambda: aggregates_of(calls), (Refused,)),
        groups=told("group", lambda: {it: (one.id, one.name) for one in groups for it in one.members}, (Refused,)),
        domains=told("domain", lambda: _domains(calls, domains), (Refused, Unanswered)),
        unknown=unknown,
    )


def aggregates_of(calls: Calls) -> Mapping[str, tuple[str, ...]]:
    """Host -> the names of its aggregates, sorted."""
    rows = calls.ask("aggregates", "GET", "/os-aggregates", AGGREGATES_AT).get("aggregates")
    if not isinstance(rows, list):
        raise Unanswered("aggregates: the answer has no list of aggregates")
    named = calls.parsed("aggregates", lambda row: (str(row["name"]), list(row["hosts"])), rows)
    found: dict[str, tuple[str, ...]] = {}
    for name, hosts in sorted(named):
        for host in hosts:
            found[host] = (*found.get(host, ()), name)
    return found


def _domains(calls: Calls, domains: Iterable[str]) -> Mapping[str, str]:
    """Project -> its domain, for the projects of these."""
    return {project: domain for domain in sorted(domains) for project in _projects(calls, domain)}


def _projects(calls: Calls, domain: str) -> Iterable[str]:
    query = {"domain_id": domain, "limit": str(PROJECTS_A_PAGE)}
    markers = {""}
    while True:
        answer = calls.ask("keystone-projects", "GET", "/projects", None, params=query)
        rows: Any = answer.get("projects")
        if not isinstance(rows, list):
            raise Unanswered("keystone-projects: the answer has no list of projects")
        yield from calls.parsed("keystone-projects", lambda row: str(row["id"]), rows)
        links = answer.get("links")
        following = links.get("next") if isinstance(links, dict) else None
        if not following:
            break
        marker = parse_qs(urlsplit(str(following)).query).get("marker", [""])[0]
        if marker in markers:
            raise Unanswered("keystone-projects: the listing goes round in circles")
        markers.add(marker)
        query["marker"] = marker
    if answer.get("truncated"):
        raise Refused(f"Keystone lists some of the projects of domain {domain} only: its list_limit is too low")
