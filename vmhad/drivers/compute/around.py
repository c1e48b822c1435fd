# SPDX-License-Identifier: Apache-2.0
"""What policies of VMs may match by and no server's row says: aggregates and groups of Nova, domains of Keystone.

Asked only for what some policy names: a listing each, and one for each domain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vmhad.drivers.compute.calls import Calls
from vmhad.kernel.cloud import Group
from vmhad.kernel.vm_resolve import Surroundings
from vmhad.ports import Unanswered

AGGREGATES_AT = "2.41"


def surroundings_of(
    calls: Calls, groups: Iterable[Group], keys: frozenset[str], domains: frozenset[str]
) -> Surroundings:
    """groups: all there are; not read where none are asked for. Raises Unanswered, Refused."""
    return Surroundings(
        aggregates=aggregates_of(calls) if "aggregate" in keys else {},
        groups={member: (one.id, one.name) for one in groups for member in one.members} if "group" in keys else {},
        domains=_domains(calls, domains) if "domain" in keys else {},
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
    found: dict[str, str] = {}
    for domain in sorted(domains):
        answer = calls.ask("keystone-projects", "GET", "/projects", None, params={"domain_id": domain})
        rows: Any = answer.get("projects")
        if not isinstance(rows, list):
            raise Unanswered("keystone-projects: the answer has no list of projects")
        found |= dict.fromkeys(calls.parsed("keystone-projects", lambda row: str(row["id"]), rows), domain)
    return found
