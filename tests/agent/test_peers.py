# SPDX-License-Identifier: Apache-2.0
"""Looks at peers, by real sockets: who answers, who does not, and when that is our own fault."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from vmhad.agent.bootclock import boot_s
from vmhad.agent.peers import PeerLooks, Target, answers_of
from vmhad.agent.routes import has_carrier, link_towards, way_is_open
from vmhad.kernel.beat import Plane
from vmhad.kernel.signal import Reading

LIMIT_S = 20.0
MANAGEMENT, TENANT = Plane.MANAGEMENT, Plane.TENANT
# Addresses of the loopback. Only on DEAF does somebody hold the port without taking anybody in.
REFUSING, DEAF, ALSO_DEAF = "127.0.0.11", "127.0.0.12", "127.0.0.13"


@pytest.fixture
def port() -> Iterator[int]:
    """A port on which the deaf do not answer: their queues are full, and the kernel drops what comes."""
    with ExitStack() as held:
        first = held.enter_context(deaf(DEAF, 0))
        held.enter_context(deaf(ALSO_DEAF, first))
        yield first


@contextmanager
def deaf(address: str, port: int) -> Iterator[int]:
    with ExitStack() as held:
        listening = held.enter_context(socket.socket())
        listening.bind((address, port))
        listening.listen(0)
        place = listening.getsockname()
        while True:
            caller = held.enter_context(socket.socket())
            caller.settimeout(0.3)
            if caller.connect_ex(place):
                break
        yield place[1]


def planes(looks: PeerLooks) -> dict[str, dict[Plane, Reading]]:
    return {name: dict(seen) for name, seen in looks.tell(boot_s()).planes.items()}


@contextmanager
def looking(targets: list[Target], port: int, **more: object) -> Iterator[PeerLooks]:
    looks = PeerLooks(targets, port, interval_s=0.2, look_s=0.15, **more)  # type: ignore[arg-type]
    looks.start()
    try:
        yield looks
    finally:
        looks.stop()


def sockets_held() -> set[str]:
    """By their inodes: what an earlier test left may be closed at any time, and its number used again."""
    names = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            names.add(os.readlink(f"/proc/self/fd/{number}"))
    return {one for one in names if one.startswith("socket:")}


def until_seen(looks: PeerLooks, wanted: dict[str, dict[Plane, Reading]]) -> None:
    until = time.monotonic() + LIMIT_S
    while planes(looks) != wanted:
        assert time.monotonic() < until, planes(looks)
        time.sleep(0.02)


def test_one_answer_each(port: int) -> None:
    targets = [Target(address, MANAGEMENT, address) for address in (REFUSING, DEAF, "240.0.0.1")]
    began = time.monotonic()
    answers = {target.name: number for target, number in answers_of(targets, port, 0.5).items()}
    assert answers[REFUSING] == errno.ECONNREFUSED and answers[DEAF] == errno.ETIMEDOUT
    assert 0.4 < time.monotonic() - began < 2.0
    with socket.create_server(("127.0.0.14", 0)) as listening:
        answered = answers_of([Target("", MANAGEMENT, "127.0.0.14")], listening.getsockname()[1], 2.0)
        assert list(answered.values()) == [0]


def test_many_at_once_cost_no_more_time_and_leave_nothing_open(port: int) -> None:
    targets = [Target(f"h{number}", MANAGEMENT, f"127.0.1.{number}") for number in range(1, 100)]
    targets += [Target("deaf", MANAGEMENT, DEAF)]
    before = sockets_held()
    began = time.monotonic()
    assert set(answers_of(targets, port, 0.5).values()) == {errno.ECONNREFUSED, errno.ETIMEDOUT}
    assert time.monotonic() - began < 2.0
    assert sockets_held() <= before


def test_silent_where_another_answers_is_down(port: int) -> None:
    with looking([Target("h1", MANAGEMENT, REFUSING), Target("h2", MANAGEMENT, DEAF)], port) as looks:
        assert planes(looks)["h1"] == {MANAGEMENT: Reading.UNKNOWN}
        until_seen(looks, {"h1": {MANAGEMENT: Reading.UP}, "h2": {MANAGEMENT: Reading.DOWN}})


def test_where_nobody_answers_it_may_be_us(port: int) -> None:
    deaf_ones = [Target("h1", MANAGEMENT, DEAF), Target("h2", MANAGEMENT, ALSO_DEAF), Target("h2", TENANT, REFUSING)]
    unknown = {"h1": {MANAGEMENT: Reading.UNKNOWN}, "h2": {MANAGEMENT: Reading.UNKNOWN, TENANT: Reading.UP}}
    with looking(deaf_ones, port) as looks:
        until_seen(looks, unknown)
        # Past the second miss, when it would be DOWN.
        seen_at = boot_s()
        while boot_s() < seen_at + 1.0:
            assert planes(looks) == unknown
            time.sleep(0.05)


def test_a_witness_shows_that_it_is_not_us(port: int) -> None:
    targets = [Target("h1", MANAGEMENT, DEAF), Target("h2", MANAGEMENT, ALSO_DEAF), Target("", MANAGEMENT, REFUSING)]
    with looking(targets, port) as looks:
        until_seen(looks, {"h1": {MANAGEMENT: Reading.DOWN}, "h2": {MANAGEMENT: Reading.DOWN}})


def test_a_single_peer_is_believed_by_our_own_carrier(port: int) -> None:
    with looking([Target("h1", MANAGEMENT, DEAF)], port) as looks:
        until_seen(looks, {"h1": {MANAGEMENT: Reading.DOWN}})
    with looking([Target("h1", MANAGEMENT, DEAF)], port, way_is_open=lambda address: False) as looks:
        until_seen(looks, {"h1": {MANAGEMENT: Reading.UNKNOWN}})


def test_an_old_word_is_unknown() -> None:
    looks = PeerLooks([Target("h1", MANAGEMENT, REFUSING)], 1, stale_s=1.0)
    looks._look()
    assert planes(looks) == {"h1": {MANAGEMENT: Reading.UP}}
    assert looks.tell(boot_s() + 2.0).planes == {"h1": {MANAGEMENT: Reading.UNKNOWN}}


def test_the_way_to_the_loopback() -> None:
    assert link_towards("127.0.0.1") == "lo" and way_is_open("127.0.0.1")
    assert not has_carrier("no-such-link")


CABLES = """
set -e
mount -t sysfs none /sys
ip link add here type veth peer name there
ip addr add 198.51.100.1/24 dev here
ip -6 addr add 2001:db8::1/64 dev here nodad
ip link set here up
ip link set there %s
%s
"""
ASKED = """
import sys
from vmhad.agent.routes import link_towards, way_is_open
for address in ("198.51.100.9", "2001:db8::9", "203.0.113.1"):
    print(link_towards(address) or "-", way_is_open(address))
"""


@pytest.mark.parametrize(
    ("there", "said"), [("up", "here True here True - False"), ("down", "here False here False - False")]
)
def test_a_cable_that_is_out_and_a_way_that_is_not(there: str, said: str) -> None:
    asked = f"{sys.executable} -c '{ASKED}'"
    command = ["unshare", "--net", "--mount", "sh", "-c", CABLES % (there, asked)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
    if done.returncode and os.geteuid() != 0:
        pytest.skip("only root may lay cables")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == said.split()
