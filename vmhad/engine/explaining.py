# SPDX-License-Identifier: Apache-2.0
"""What the policies of VMs come to, for whoever asks: an operator's command, and what an API will answer.

Nova is asked what an engine would ask it, and the same rules decide; nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vmhad.kernel.cloud import Server
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Segment
from vmhad.kernel.vm_policy import SETTINGS, VmPolicies, VmPolicy
from vmhad.kernel.vm_resolve import (
    NOWHERE,
    Explained,
    Surroundings,
    domains_of,
    explained,
    fits,
    needed,
    settings_of,
    settled,
    spelled,
)
from vmhad.ports import Compute


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of one VM. segment: '' where its host is in none, so that nothing protects it. fitting: the policies that match
    it, the most specific first. unknown: what they match by and nobody would tell, why."""

    server: Server
    segment: str
    version: int
    fitting: tuple[VmPolicy, ...]
    settings: tuple[Explained, ...]
    unknown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changed:
    """What a new set of policies would change of one VM: setting -> as it is, as it would be."""

    server: Server
    settings: Mapping[str, tuple[str, str]]


def around(compute: Compute, policies: Iterable[VmPolicy]) -> Surroundings:
    """What these match by. Raises Unanswered, Refused."""
    told = tuple(policies)
    keys = needed(told)
    return compute.surroundings(keys, domains_of(told)) if keys else NOWHERE


def all_settled(compute: Compute, held: VmPolicies, servers: Iterable[Server]) -> tuple[Server, ...]:
    """With what these policies say of each. Raises Unanswered, Refused."""
    surroundings, ranked = around(compute, held.policies), held.ranked
    return tuple(settled(one, ranked, surroundings) for one in servers)


def explanation(
    server: Server, held: VmPolicies, surroundings: Surroundings, segments: Sequence[Segment], of: Mapping[str, Policy]
) -> Explanation:
    """of: segment -> its Policy."""
    segment = next((one.name for one in segments if server.host in one.names), "")
    ranked = held.ranked
    return Explanation(
        server,
        segment,
        held.version,
        tuple(one for one in ranked if fits(one.match, server, surroundings)),
        tuple(explained(ranked, server, surroundings, of.get(segment))),
        surroundings.unknown,
    )


def changes(
    servers: Iterable[Server], before: VmPolicies, after: VmPolicies, surroundings: Surroundings
) -> Iterator[Changed]:
    """Those servers of whom something would be said anew."""
    was, will_be = before.ranked, after.ranked
    for server in servers:
        old, new = settings_of(was, server, surroundings), settings_of(will_be, server, surroundings)
        differing = [name for name in SETTINGS if getattr(old, name) != getattr(new, name)]
        if differing:
            told = {name: (_shown(getattr(old, name)), _shown(getattr(new, name))) for name in differing}
            yield Changed(server, told)


def idle(servers: Sequence[Server], policies: Iterable[VmPolicy], surroundings: Surroundings) -> Iterator[VmPolicy]:
    """Those that match none of these: a name where an id is meant, or a VM that is yet to come."""
    return (one for one in policies if not any(fits(one.match, server, surroundings) for server in servers))


def _shown(value: object) -> str:
    return "-" if value in (None, "") else spelled(value)
