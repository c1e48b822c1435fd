# SPDX-License-Identifier: Apache-2.0
"""One broker's ear: a thread, a connection, and a queue of its own on the topics of all segments.

The queue belongs to this connection and ends with it: nothing waits for an engine that is away, and what nobody takes
expires. Messages are acknowledged many at a time, so that those that an engine has not come to wait, and expire, in the
broker rather than in the socket. A broker that is away is tried for as long as it takes, one of its hosts after the
other.

It speaks AMQP by py-amqp, which lies below oslo.messaging, whose own listener takes four times the CPU for a beat.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import amqp

from vmhad.bus.broker import declare_exchange
from vmhad.bus.ear import Ear, acknowledge
from vmhad.bus.names import EXCHANGE, EXPIRES_S, topic
from vmhad.bus.transport_url import Broker

LOG = logging.getLogger(__name__)
PREFETCH = 256
ACKNOWLEDGED_AT_ONCE = 64
QUEUE_MAX = 20_000
QUEUE_BYTES_MAX = 64 * 1024 * 1024
IDLE_S = 1.0
STOP_WITHIN_S = 3.0


class Listener:
    """take: called with each message's bytes, in this thread. idle: about once a second, whatever comes."""

    def __init__(
        self,
        broker: Broker,
        segments: Sequence[str],
        take: Callable[[bytes], object],
        idle: Callable[[], object] = lambda: None,
    ) -> None:
        self._segments = tuple(sorted(segments))
        self._take = take
        self._idle = idle
        self._unacknowledged = 0
        self._ear = Ear(broker, "The agents' beats", "agents-beats", self._consume, self._drain)

    @property
    def is_listening(self) -> bool:
        return self._ear.is_listening

    def start(self) -> None:
        """Returns at once; connecting goes on in the thread for as long as it takes."""
        self._ear.start()

    def stop(self) -> None:
        """Returns within a few seconds, also while the broker is away."""
        self._ear.ending.set()
        self._ear.join(STOP_WITHIN_S)

    def _consume(self, connection: amqp.Connection) -> None:
        declare_exchange(connection)
        channel = connection.channel()
        channel.basic_qos(0, PREFETCH, False)
        bounds = {
            "x-message-ttl": int(EXPIRES_S * 1000),
            "x-max-length": QUEUE_MAX,
            "x-max-length-bytes": QUEUE_BYTES_MAX,
            "x-overflow": "drop-head",
        }
        queue = channel.queue_declare("", exclusive=True, auto_delete=True, arguments=bounds).queue
        for segment in self._segments:
            channel.queue_bind(queue, EXCHANGE, topic(segment))
        self._unacknowledged = 0
        channel.basic_consume(queue, callback=self._heard)

    def _drain(self, connection: amqp.Connection) -> None:
        # As long as the wait below: py-amqp would else set it, and set it back, for every frame.
        connection.sock.settimeout(IDLE_S)
        idle_at = time.monotonic()
        while not self._ear.ending.is_set():
            try:
                connection.drain_events(timeout=IDLE_S)
            except TimeoutError:
                pass
            if time.monotonic() >= idle_at:
                idle_at = time.monotonic() + IDLE_S
                connection.heartbeat_tick()
                self._idle()

    def _heard(self, message: Any) -> None:
        self._unacknowledged += 1
        if self._unacknowledged >= ACKNOWLEDGED_AT_ONCE:
            self._unacknowledged = 0
            acknowledge(message, multiple=True)
        body = message.body
        try:
            self._take(body if isinstance(body, bytes) else str(body).encode())
        except Exception:
            LOG.exception("A beat could not be taken in; it is dropped.")
