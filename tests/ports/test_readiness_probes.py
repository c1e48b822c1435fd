# SPDX-License-Identifier: Apache-2.0
"""What real sockets answer at a gate, and what is made of it: within the limit, with nothing left open."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.ports.doors import Door, Talk, door, resets, says, says_nothing, says_slowly
from vmhad.drivers.readiness.gates import ADDRESSES_MAX, GateProbes, meant
from vmhad.drivers.readiness.probes import probe
from vmhad.kernel.gate import Gate, Kind, Ready, read_gate
from vmhad.ports import Refused, Unanswered

LIMIT_S = 0.4
READY, NOT_READY, UNKNOWN = Ready.READY, Ready.NOT_READY, Ready.UNKNOWN


@pytest.fixture
def vm() -> Iterator[Door]:
    with door() as one:
        yield one


def http(vm: Door, path: str = "/healthz") -> tuple[Ready, str]:
    return probe(vm.address, Gate(Kind.HTTP, port=vm.port, path=path), LIMIT_S)


def status(line: str) -> Talk:
    return says(f"HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n".encode())


@pytest.mark.parametrize(
    ("talk", "ready", "words"),
    [
        (status("200 OK"), READY, "answers 200"),
        (status("204"), READY, "answers 204"),
        (status("302 Found"), READY, "answers 302"),
        (status("399 Odd"), READY, "answers 399"),
        (status("100 Continue"), NOT_READY, "answers 100"),
        (status("404 Not Found"), NOT_READY, "answers 404"),
        (status("500 Oops"), NOT_READY, "answers 500"),
        (status("503 Not yet"), NOT_READY, "answers 503"),
        (says(b"HTTP/1.0 200 OK\n"), READY, "answers 200"),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), UNKNOWN, "not in HTTP"),
        (says(b"HTTP/1.1 200"), UNKNOWN, "not in HTTP"),
        (says(b"HTTP/1.1 2000 OK\r\n"), UNKNOWN, "not in HTTP"),
        (says(b"\x15\x03\x01\x00\x02\x02F\n"), UNKNOWN, "not in HTTP"),
        (says(b"x" * 1_000_000), UNKNOWN, "not in HTTP"),
        (says(b""), NOT_READY, "closed without an answer"),
        (resets, NOT_READY, "breaks off"),
        (says_nothing, UNKNOWN, "does not answer"),
        (says_slowly(b"HTTP/1.1 200 OK\r\n\r\n", 0.005), READY, "answers 200"),
        (says_slowly(b"HTTP/1.1 200 OK\r\n\r\n", 0.2), UNKNOWN, "does not answer"),
    ],
)
def test_what_http_answers(vm: Door, talk: Talk, ready: Ready, words: str) -> None:
    vm.open(talk)
    began_at = time.monotonic()
    seen = http(vm)
    assert time.monotonic() - began_at < LIMIT_S + 0.4
    assert seen[0] is ready and words in seen[1] and f"{vm.address}:{vm.port}" in seen[1]


def test_what_is_sent(vm: Door) -> None:
    heard: list[bytes] = []

    def listen(link: object, over: threading.Event) -> None:
        heard.append(link.recv(4096))  # type: ignore[attr-defined]

    vm.open(listen)
    http(vm, "/a?b=c")
    vm.close()
    assert heard[0].startswith(f"GET /a?b=c HTTP/1.1\r\nHost: {vm.address}:{vm.port}\r\n".encode())


def test_a_redirect_is_not_followed(vm: Door) -> None:
    with door() as other:
        asked: list[object] = []
        other.open(lambda link, over: asked.append(link))
        place = f"{other.address}:{other.port}"
        vm.open(says(f"HTTP/1.1 301 Moved\r\nLocation: http://{place}/\r\n\r\n".encode()))
        assert http(vm)[0] is READY
        other.close()
        assert asked == []


def test_tcp(vm: Door) -> None:
    gate = read_gate(f"tcp:{vm.port}")
    assert probe(vm.address, gate, LIMIT_S) == (NOT_READY, f"{vm.address}:{vm.port} refuses connections")
    vm.open(says_nothing)
    assert probe(vm.address, gate, LIMIT_S) == (READY, f"{vm.address}:{vm.port} accepts connections")
    vm.fall_silent()
    assert probe(vm.address, gate, LIMIT_S) == (UNKNOWN, f"{vm.address}:{vm.port} does not answer")


def test_ipv6() -> None:
    with door("::1") as vm:
        vm.open()
        assert probe("::1", Gate(Kind.HTTP, port=vm.port, path="/"), LIMIT_S) == (
            READY,
            f"[::1]:{vm.port}/ answers 200",
        )


def test_what_cannot_be_reached_is_unknown() -> None:
    """255.255.255.255 is no address that TCP goes to."""
    ready, words = probe("255.255.255.255", read_gate("tcp:9"), LIMIT_S)
    assert ready is UNKNOWN and "cannot be reached" in words


def test_a_hundred_probes_leave_nothing_behind(vm: Door) -> None:
    """Neither threads nor open files, whatever was answered."""
    talks = [says_nothing, status("200 OK"), resets, says(b"x" * 100_000)]
    before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for talk in talks:
        vm.open(talk)
        with ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(lambda _: http(vm), range(25)))) == 25
        vm.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == threads


class Nova:
    """Answers as it is told to, or raises it."""

    def __init__(self, ports: object = None, addresses: object = None) -> None:
        self._ports, self._addresses = ports, addresses

    def port_states(self, server_id: str) -> Mapping[str, str] | None:
        return _told(self._ports)  # type: ignore[return-value]

    def addresses(self, server_id: str) -> tuple[tuple[str, bool], ...] | None:
        return _told(self._addresses)  # type: ignore[return-value]


def _told(answer: object) -> object:
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.mark.parametrize(
    ("ports", "ready", "words"),
    [
        ({}, READY, "it has no ports"),
        ({"p1": "ACTIVE", "p2": "ACTIVE"}, READY, "all of its ports are ACTIVE"),
        ({"p1": "ACTIVE", "p2": "DOWN", "p3": "BUILD"}, NOT_READY, "its port p2 is DOWN"),
        (None, READY, "there is no such VM any more"),
        (Unanswered("interfaces: HTTP 500"), UNKNOWN, "Nova does not answer"),
        (Refused("Policy doesn't allow it"), UNKNOWN, "Nova will not tell: Policy doesn't allow it"),
    ],
)
def test_ports(ports: object, ready: Ready, words: str) -> None:
    assert GateProbes(Nova(ports=ports)).read("s", Gate(Kind.PORT)) == (ready, words)


def test_its_floating_addresses_go_before_its_fixed_ones() -> None:
    assert meant([("10.0.0.5", False), ("203.0.113.5", True), ("203.0.113.4", True)]) == ("203.0.113.4", "203.0.113.5")
    assert meant([("10.0.0.5", False), ("fd00::5", False)]) == ("10.0.0.5", "fd00::5")
    assert len(meant([(f"10.0.0.{number}", False) for number in range(20)])) == ADDRESSES_MAX


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "0.0.0.0", "::", "169.254.169.254", "fe80::1", "224.0.0.1", "ff02::1", "255.255.255.255",
     "::ffff:127.0.0.1", "localhost", ""],
)  # fmt: skip
def test_whoever_owns_a_vm_cannot_have_this_machine_asked(address: str) -> None:
    told = [(address, False)]
    assert meant(told) == ()
    seen = GateProbes(Nova(addresses=told)).read("s", read_gate("tcp:22"))
    assert seen == (UNKNOWN, "Nova has no address of it that can be asked")


def test_of_several_addresses_one_is_enough_and_all_share_the_limit(vm: Door) -> None:
    """The first is silent."""
    vm.open()
    with door("127.0.0.2") as silent:
        silent.port = vm.port
        silent.fall_silent()
        eye, gate = GateProbes(Nova(), LIMIT_S), read_gate(f"tcp:{vm.port}")
        began_at = time.monotonic()
        assert eye._ask(["127.0.0.2", vm.address], gate)[0] is READY
        vm.close()
        assert eye._ask(["127.0.0.2", vm.address], gate) == (
            NOT_READY,
            f"{vm.address}:{vm.port} refuses connections",
        )
        vm.fall_silent()
        assert eye._ask(["127.0.0.2", vm.address], gate)[0] is UNKNOWN
        assert time.monotonic() - began_at < 3 * LIMIT_S + 0.4
