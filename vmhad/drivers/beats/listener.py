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
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import amqp
from amqp.exceptions import AMQPError

from vmhad.bus.broker import declare_exchange, let_go
from vmhad.bus.names import EXCHANGE, EXPIRES_S, topic
from vmhad.bus.transport_url import Broker, Place

LOG = logging.getLogger(__name__)
PREFETCH = 256
ACKNOWLEDGED_AT_ONCE = 64
QUEUE_MAX = 20_000
QUEUE_BYTES_MAX = 64 * 1024 * 1024
IDLE_S = 1.0
RETRY_S = 1.0
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
        self._broker = broker
        self._segments = tuple(sorted(segments))
        self._take = take
        self._idle = idle
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._unacknowledged = 0
        self._told = ""
        self.is_listening = False

    def start(self) -> None:
        """Returns at once; connecting goes on in the thread for as long as it takes."""
        if self._thread is None:
            self._ending.clear()
            self._thread = threading.Thread(target=self._run, name="agents-beats", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Returns within a few seconds, also while the broker is away."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(STOP_WITHIN_S)
            self._thread = None

    def _run(self) -> None:
        while not self._ending.is_set():
            for place in self._broker.places:
                if self._ending.is_set():
                    return
                self._listen(place)
            self._ending.wait(RETRY_S)

    def _listen(self, place: Place) -> None:
        """Until the connection is lost or we end. Never raises; a broker that is away is told once."""
        connection = amqp.Connection(**self._broker.arguments(place))
        try:
            connection.connect()
            self._consume(connection)
            self._told, self.is_listening = "", True
            LOG.info("Listening to the agents' beats at %s.", place)
            self._drain(connection)
        except Exception as error:
            if self._told != (told := _why(error)):
                LOG.warning("The agents' beats cannot be heard at %s: %s. Trying on.", place, told)
                self._told = told
        finally:
            self.is_listening = False
            let_go(connection)

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
        while not self._ending.is_set():
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
            try:
                message.channel.basic_ack(message.delivery_tag, multiple=True)
            except TimeoutError:
                # Half of it may be sent; this is no wait that was in vain.
                raise ConnectionError("the broker does not read") from None
        body = message.body
        try:
            self._take(body if isinstance(body, bytes) else str(body).encode())
        except Exception:
            LOG.exception("A beat could not be taken in; it is dropped.")


def _why(error: Exception) -> str:
    """In words that cannot hold a password."""
    reason = getattr(error, "reply_text", "") if isinstance(error, AMQPError) else getattr(error, "strerror", "")
    return f"{type(error).__name__} {reason or ''}".strip()
