# SPDX-License-Identifier: Apache-2.0
"""Who watches whom. Every host of a segment watches as many peers as watch it, so none carries more than others.

The hosts stand in a ring, those of one rack beside each other, and each watches the ones at the same distances ahead.
Distances longer than a rack lead out of it: a rack whose switch is dead is then seen, and said dead, from outside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from vmhad.kernel.topology import Host


def watched_by(name: str, hosts: Sequence[Host], count: int, apart: str = "rack") -> tuple[str, ...]:
    """The peers that the host looks at: count, or all others if they are fewer. apart: the kind of domain whose failure
    should be seen from outside. Raises KeyError if the host is none of these."""
    ring = _ring(hosts, apart)
    places = {host.name: place for place, host in enumerate(ring)}
    mine = places[name]
    return tuple(ring[(mine + step) % len(ring)].name for step in _steps(ring, count, apart))


def _ring(hosts: Sequence[Host], apart: str) -> list[Host]:
    """Within a rack by a hash: neighbours by name are often neighbours in an enclosure, too."""
    return sorted(hosts, key=lambda host: (_domain(host, apart), _hash(host.name), host.name))


def _domain(host: Host, apart: str) -> str:
    """Of a host that says nothing of its domain nothing is known that could fall with it."""
    return f"in {host.domains[apart]}" if apart in host.domains else f"only {host.name}"


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _steps(ring: Sequence[Host], count: int, apart: str) -> list[int]:
    """The distances ahead, the same for all. First those that lead out of the rack for the most hosts; among equals
    some from all around, so that the watchers of one host are not all in one rack either."""
    if count <= 0:
        return []
    domains = [_domain(host, apart) for host in ring]
    inside: dict[int, list[int]] = {}
    for step in range(1, len(ring)):
        same = sum(domains[place] == domains[(place + step) % len(ring)] for place in range(len(ring)))
        inside.setdefault(same, []).append(step)
    chosen: list[int] = []
    for same in sorted(inside):
        equals, wanted = inside[same], count - len(chosen)
        if len(equals) > wanted:
            last, gaps = len(equals) - 1, max(1, wanted - 1)
            equals = [equals[turn * last // gaps] for turn in range(wanted)]
        chosen += equals
        if len(chosen) == count:
            break
    return sorted(chosen)
