# SPDX-License-Identifier: Apache-2.0
"""Messages of crash kernels, by real sockets: whose are heard, what is none, and what a flood costs."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from vmhad.agent.bootclock import boot_s
from vmhad.agent.dumps import BATCH, MAGIC, Dumps
from vmhad.agent.eyes import agent_of
from vmhad.agent.loop import Identity, compose
from vmhad.bus.codec import decode, encode
from vmhad.conf.agent_settings import agent_settings
from vmhad.conf.load import parse
from vmhad.kernel.beat import DUMP_HEARD_S, Beat, Dump

LIMIT_S = 20.0
# Addresses of the loopback.
HERE, PEER, OTHER_PEER, STRANGER = "127.0.0.21", "127.0.0.22", "127.0.0.23", "127.0.0.24"
PEERS = {PEER: "h2", OTHER_PEER: "h3"}
MESSAGE = struct.pack("<II", MAGIC, 1)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((HERE, 0))
        return int(one.getsockname()[1])


@contextmanager
def listening(port: int) -> Iterator[Dumps]:
    eye = Dumps(HERE, port, PEERS, interval_s=0.05)
    eye.start()
    try:
        yield eye
    finally:
        eye.stop()


@contextmanager
def sender(address: str, port: int) -> Iterator[Callable[[bytes], None]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((address, 0))
        yield lambda body: bool(one.sendto(body, (HERE, port)))


def heard(eye: Dumps) -> dict[str, Dump]:
    return dict(eye.tell(boot_s()).dumps)


def until_heard(eye: Dumps, again: Callable[[], None], peers: set[str]) -> None:
    """Sends until it is heard: the eye may have opened its socket only now, and the kernel may drop what comes."""
    until = time.monotonic() + LIMIT_S
    while heard(eye).keys() != peers:
        assert time.monotonic() < until, heard(eye)
        again()
        time.sleep(0.01)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_message_of_a_peer_is_told_with_the_age_of_the_first_and_the_newest(order: str) -> None:
    port = free_port()
    with listening(port) as eye, sender(PEER, port) as send:
        until_heard(eye, lambda: send(struct.pack(order + "II", MAGIC, 1)), {"h2"})
        first = heard(eye)["h2"]
        assert 0.0 <= first.last_s <= first.first_s < LIMIT_S
        now = boot_s()
        assert eye.tell(now + 5.0).dumps["h2"].last_s >= 5.0
        assert eye.tell(now + DUMP_HEARD_S + 0.1).dumps == {}


def test_it_goes_into_the_beat_and_comes_out_of_it() -> None:
    port = free_port()
    with listening(port) as eye, sender(PEER, port) as send:
        until_heard(eye, lambda: send(MESSAGE), {"h2"})
        beat = compose(Identity("h1", "boot", "run"), 1, 10.0, 20.0, [eye.tell(boot_s())])
    assert beat.peers["h2"].dump is not None
    assert decode(encode(beat)) == beat


def test_an_agent_that_is_told_a_port_beats_of_a_peer_that_dumps(tmp_path: Path) -> None:
    port, beats = free_port(), list[Beat]()
    hosts = [{"name": name, "planes": {"management": address}} for name, address in (("h1", HERE), ("h2", PEER))]
    (tmp_path / "segments.yaml").write_text(yaml.safe_dump({"segments": [{"name": "s", "hosts": hosts}]}))
    (tmp_path / "vmhad.conf").write_text(
        f"[agent]\nhost = h1\nsegments_file = {tmp_path}/segments.yaml\nkdump_port = {port}\nlibvirt_uri =\n"
        "nova_compute_unit =\nlibvirt_unit =\nbeat_interval_s = 0.2\n"
    )
    agent = agent_of(agent_settings(parse(["--config-file", str(tmp_path / "vmhad.conf")])), beats.append)
    running = threading.Thread(target=agent.run)
    running.start()
    try:
        with sender(PEER, port) as send:
            until = time.monotonic() + LIMIT_S
            while not any(view.dump for beat in beats for view in beat.peers.values()):
                assert time.monotonic() < until
                send(MESSAGE)
                time.sleep(0.05)
    finally:
        agent.end()
        running.join(LIMIT_S)
    assert not running.is_alive() and beats[-1].leaving
    assert beats[-1].peers["h2"].dump is not None


@pytest.mark.parametrize("body", [
    struct.pack("<II", MAGIC + 1, 1), struct.pack("<II", MAGIC, 2), MESSAGE[:7], MESSAGE + b"\0", 2 * MESSAGE, b"",
])  # fmt: skip
def test_what_is_no_message_is_passed_over(body: bytes) -> None:
    port = free_port()
    with listening(port) as eye, sender(PEER, port) as send, sender(OTHER_PEER, port) as send_well:
        # The one that is heard came after the ones that are not.
        until_heard(eye, lambda: (send(body), send_well(MESSAGE))[0], {"h3"})
        assert heard(eye).keys() == {"h3"}


def test_nobody_but_a_peer_is_heard() -> None:
    port = free_port()
    with listening(port) as eye, sender(STRANGER, port) as send, sender(OTHER_PEER, port) as send_well:
        until_heard(eye, lambda: (send(MESSAGE), send_well(MESSAGE))[0], {"h3"})
        assert heard(eye).keys() == {"h3"}


def test_a_flood_delays_no_beat_and_a_peer_is_heard_after_it() -> None:
    port = free_port()
    with listening(port) as eye, sender(STRANGER, port) as flood, sender(PEER, port) as send:
        slowest_s = 0.0
        for _ in range(20):
            for _ in range(BATCH):
                flood(MESSAGE)
            began = time.monotonic()
            assert heard(eye) == {}
            slowest_s = max(slowest_s, time.monotonic() - began)
        assert slowest_s < 0.2
        until_heard(eye, lambda: send(MESSAGE), {"h2"})


def test_a_port_that_is_taken_is_tried_again() -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker:
        taker.bind((HERE, port))
        eye = Dumps(HERE, port, PEERS, interval_s=0.05)
        eye.start()
        with sender(PEER, port) as send:
            send(MESSAGE)
        taker.settimeout(LIMIT_S)
        assert taker.recv(64) == MESSAGE
        assert heard(eye) == {}
    try:
        with sender(PEER, port) as send:
            until_heard(eye, lambda: send(MESSAGE), {"h2"})
    finally:
        eye.stop()
