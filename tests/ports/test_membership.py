# SPDX-License-Identifier: Apache-2.0
"""What of membership is tooz's and etcd's own affair; the contract of the port is test_membership_contract.py."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from loopback import free_port

from vmhad.drivers.membership.tooz_ring import ToozMembership, endpoint_urls

SEGMENTS = [f"segment-{number}" for number in range(40)]
LEASE_S = 2.0
Join = Callable[..., ToozMembership]


@pytest.fixture(params=["file", "etcd"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/members"
    return f"etcd3+http://{request.getfixturevalue('etcd')}"


@pytest.fixture
def join(request: pytest.FixtureRequest) -> Iterator[Join]:
    joined: list[ToozMembership] = []

    def one(url: str, name: str, lease_s: float = LEASE_S) -> ToozMembership:
        group = f"group-of-{request.node.name}"
        joined.append(ToozMembership(url, name.encode(), group, lease_s=lease_s, call_timeout_s=1.0))
        return joined[-1]

    yield one
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ToozMembership.stop, joined))


def until_seen(beating: Sequence[ToozMembership], watcher: ToozMembership, names: list[bytes], limit_s: float) -> None:
    until = time.monotonic() + limit_s
    while watcher.members() != names:
        assert time.monotonic() < until, f"sees {watcher.members()}, not {names}"
        for member in beating:
            member.beat()
        time.sleep(0.05)


def owned(member: ToozMembership) -> set[str]:
    return {segment for segment in SEGMENTS if member.should_own(segment)}


def test_three_share_without_overlap_and_take_over(url: str, join: Join) -> None:
    engines = [join(url, name) for name in ("a", "b", "c")]
    for engine in engines:
        until_seen(engines, engine, [b"a", b"b", b"c"], 10)
    shares = [owned(engine) for engine in engines]
    assert set.union(*shares) == set(SEGMENTS)
    assert sum(map(len, shares)) == len(SEGMENTS)
    assert all(shares)
    engines[2].stop()
    for engine in engines[:2]:
        until_seen(engines[:2], engine, [b"a", b"b"], 5)
    assert owned(engines[0]) | owned(engines[1]) == set(SEGMENTS)
    assert shares[0] <= owned(engines[0]), "what an engine owned stays with it"


def test_a_second_life_takes_its_name_back(url: str, join: Join) -> None:
    first = join(url, "x")
    until_seen([first], first, [b"x"], 5)
    second = join(url, "x")
    until_seen([second], second, [b"x"], 5)
    until = time.monotonic() + LEASE_S * 1.5
    while time.monotonic() < until:
        second.beat()
        time.sleep(0.1)
    assert second.members() == [b"x"], "the membership is the new life's, not the old one's that expired"


def test_without_a_ring_all_is_owned_and_nobody_waits_long(join: Join) -> None:
    lost = join(f"etcd3+http://127.0.0.1:{free_port()}", "lost")
    began = time.monotonic()
    lost.beat()
    assert time.monotonic() - began < 1.5
    began = time.monotonic()
    for _ in range(20):
        lost.beat()
    assert owned(lost) == set(SEGMENTS)
    assert time.monotonic() - began < 0.2
    assert lost.members() == []


def test_a_silent_store_holds_nobody_up(join: Join) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        lost = join(f"etcd3+http://127.0.0.1:{silent.getsockname()[1]}", "lost")
        began = time.monotonic()
        lost.beat()
        lost.beat()
        assert lost.should_own("s")
        assert time.monotonic() - began < 1.5


def test_goes_round_the_endpoints(etcd: str, join: Join) -> None:
    member = join(f"etcd3+http://127.0.0.1:{free_port()},127.0.0.1:{free_port()},{etcd}", "m")
    until_seen([member], member, [b"m"], 10)


def test_endpoint_urls() -> None:
    assert endpoint_urls("etcd3+https://a:1,[::1]:2?ca_cert=/c", 14.5, 3.0) == [
        "etcd3+https://a:1?ca_cert=/c&timeout=3&membership_timeout=15",
        "etcd3+https://[::1]:2?ca_cert=/c&timeout=3&membership_timeout=15",
    ]
    assert endpoint_urls("file:///var/x", 15.0, 3.0) == ["file:///var/x?timeout=15"]
    assert endpoint_urls("etcd3+http://a:1?timeout=9", 15.0, 3.0) == ["etcd3+http://a:1?timeout=9&membership_timeout=15"]
