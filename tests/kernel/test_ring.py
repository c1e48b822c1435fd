# SPDX-License-Identifier: Apache-2.0
"""The ring's promise: nobody watches or is watched more than others; racks are watched from outside if they can be."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from vmhad.kernel.ring import watched_by
from vmhad.kernel.topology import Host

RACKS = st.lists(st.sampled_from(["", "r1", "r2", "r3", "r4"]), min_size=1, max_size=40)


def hosts_of(racks: list[str]) -> list[Host]:
    return [Host(f"h{number}", {"rack": rack} if rack else {}) for number, rack in enumerate(racks)]


@given(RACKS, st.integers(0, 6))
def test_everybody_watches_and_is_watched_alike(racks: list[str], count: int) -> None:
    hosts = hosts_of(racks)
    wanted = min(count, len(hosts) - 1)
    seen: Counter[str] = Counter()
    for host in hosts:
        watched = watched_by(host.name, hosts, count)
        assert len(watched) == len(set(watched)) == wanted
        assert host.name not in watched
        seen.update(watched)
    assert {seen[host.name] for host in hosts} == {wanted}


@given(RACKS, st.integers(1, 4))
def test_from_another_rack_wherever_there_is_enough_room(racks: list[str], count: int) -> None:
    """A distance at least as long as the largest rack, both ways around, leads out of every rack."""
    hosts = hosts_of(racks)
    largest = max(Counter(rack or f"only {number}" for number, rack in enumerate(racks)).values())
    if len(hosts) - 2 * largest + 1 < count:
        return
    rack_of = {host.name: host.domains.get("rack", host.name) for host in hosts}
    for host in hosts:
        assert all(rack_of[peer] != rack_of[host.name] for peer in watched_by(host.name, hosts, count))


def test_the_order_of_the_file_does_not_matter() -> None:
    hosts = hosts_of(["r1", "r1", "r2", "r2", "r3", "r3"])
    assert {watched_by("h3", order, 3) for order in (hosts, hosts[::-1], hosts[2:] + hosts[:2])} == {
        watched_by("h3", hosts, 3)
    }


def test_the_watchers_of_a_host_are_not_all_in_one_rack() -> None:
    hosts = hosts_of([f"r{number // 10}" for number in range(40)])
    for host in hosts:
        watchers = [peer for peer in hosts if host.name in watched_by(peer.name, hosts, 4)]
        assert len({peer.domains["rack"] for peer in watchers}) == 3


def test_another_kind_of_domain() -> None:
    hosts = [Host(f"h{number}", {"rack": "r1", "power": f"feed-{number % 2}"}) for number in range(6)]
    for host in hosts:
        for peer in watched_by(host.name, hosts, 1, "power"):
            assert int(peer[1:]) % 2 != int(host.name[1:]) % 2
