# SPDX-License-Identifier: Apache-2.0
"""The contract of Beats, over a real RabbitMQ with signed messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import amqp
import pytest

pytest.register_assert_rewrite("tests.ports.beats_contract")

from tests.broker import Broker  # noqa: E402
from tests.ports.beats_contract import CASES, Bench, Case  # noqa: E402
from vmhad.bus.codec import encode  # noqa: E402
from vmhad.bus.names import EXCHANGE, topic  # noqa: E402
from vmhad.bus.signature import HostKey, derive, sign  # noqa: E402
from vmhad.bus.transport_url import read_url  # noqa: E402
from vmhad.drivers.beats.agent_beats import AgentBeats  # noqa: E402
from vmhad.drivers.clock import SystemClock  # noqa: E402
from vmhad.kernel.beat import Beat  # noqa: E402
from vmhad.ports import Beats  # noqa: E402

MASTER = bytes(range(32))
HOSTS = ("h1", "h2", "h3")


class CountingClock(SystemClock):
    def __init__(self) -> None:
        super().__init__()
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1
        super().wake()


class RabbitBench:
    """A broker, one connection that all agents speak through, so that their order is kept, and engines on one clock."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._clock = CountingClock()
        self._engines: list[AgentBeats] = []
        self._bus = self._connected()

    @property
    def woken(self) -> int:
        return self._clock.woken

    def _connected(self) -> amqp.Connection:
        bus = read_url(self._broker.url)
        connection = amqp.Connection(**bus.arguments(bus.places[0]) | {"heartbeat": 0})
        connection.connect()
        self._channel = connection.channel()
        return connection

    def engine(self) -> Beats:
        # The first way to the broker leads nowhere: the driver has to find the second one.
        login, _, place = self._broker.url.removeprefix("rabbit://").rpartition("@")
        bus = read_url(f"rabbit://{login}@127.0.0.1:1,{login}@{place}")
        beats = AgentBeats([bus], ["s1", "s2"], HOSTS, {"new": bytes(32), "k1": MASTER}, self._clock)
        beats.start()
        self._engines.append(beats)
        self.wait("an engine that listens", beats.is_listening)
        return beats

    def now(self) -> float:
        return self._clock.now()

    def wall(self) -> float:
        return time.time()

    def say(self, beat: Beat) -> None:
        self._send(sign(derive("k1", MASTER, beat.host), encode(beat)))

    def forge(self, beat: Beat, by: str) -> None:
        key = derive("k1", MASTER, by) if by else HostKey("", "k1", bytes(32))
        self._send(sign(replace(key, host=beat.host), encode(beat)))
        self._send(encode(beat))
        if by:
            self._send(sign(key, encode(beat)))

    def garbage(self) -> None:
        for body in (b"", b"{}", b"vmhad1", b"vmhad1" + bytes(300), bytes(300_000)):
            self._send(body)
        for body in (b"", b"\x80", b"\xc1", bytes(400_000)):
            self._send(sign(derive("k1", MASTER, "h1"), body))
        self._channel.basic_publish(amqp.Message("a text", content_encoding="utf-8"), EXCHANGE, topic("s1"))

    def _send(self, message: bytes) -> None:
        self._channel.basic_publish(amqp.Message(message), EXCHANGE, topic("s2"))

    def go_away(self) -> None:
        self._broker.stop()
        self._bus.collect()

    def come_back(self) -> None:
        self._broker.start()
        self._bus = self._connected()
        self.wait("engines that listen again", lambda: all(engine.is_listening() for engine in self._engines))

    def pass_time(self, seconds: float) -> None:
        time.sleep(seconds)

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + 30.0
        while not holds():
            assert time.monotonic() < until, f"in vain waited for: {what}"
            time.sleep(0.02)

    def end(self) -> None:
        for engine in self._engines:
            engine.stop()
        self._bus.close()


@pytest.fixture
def bench(rabbit: Broker) -> Iterator[Bench]:
    begun = RabbitBench(rabbit)
    yield begun
    begun.end()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_contract(bench: Bench, case: Case) -> None:
    case.run(bench)
