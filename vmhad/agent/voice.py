# SPDX-License-Identifier: Apache-2.0
"""The agent's voice: signs a beat and sends it to every broker, in a thread a broker.

Nothing is kept for a broker that is away: only the newest beat is ever sent, and an old one would be refused anyway.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import amqp

from vmhad.bus.broker import declare_exchange, let_go, why
from vmhad.bus.codec import encode
from vmhad.bus.names import EXCHANGE, EXPIRES_S, topic
from vmhad.bus.signature import HostKey, sign
from vmhad.bus.transport_url import Broker, Place
from vmhad.kernel.beat import Beat

LOG = logging.getLogger(__name__)
# How long say() waits for a broker to have been given the beat.
SAY_WITHIN_S = 2.0
STOP_WITHIN_S = 3.0
IDLE_S = 1.0
BACKOFF_S, BACKOFF_MAX_S = 0.5, 8.0
# What is this old when its turn comes is not sent: a newer one is on its way.
STALE_S = 2.0


class Unsaid(Exception):
    """No broker took the beat in time. The next one is tried all the same."""


class Voice:
    """start() it, say() every beat, stop() it. key: this host's own; a beat of another host is not signed with it."""

    def __init__(self, brokers: Sequence[Broker], segment: str, key: HostKey) -> None:
        self._key = key
        self._speakers = [_Speaker(broker, topic(segment)) for broker in brokers]

    def start(self) -> None:
        """Returns at once, whether or not a broker is there."""
        for speaker in self._speakers:
            speaker.start()

    def stop(self) -> None:
        """Returns within a few seconds, also while a broker hangs."""
        for speaker in self._speakers:
            speaker.ask_to_end()
        until = time.monotonic() + STOP_WITHIN_S
        for speaker in self._speakers:
            speaker.join(max(0.0, until - time.monotonic()))

    def say(self, beat: Beat) -> None:
        """Returns once one broker was given the beat. Raises Unsaid after SAY_WITHIN_S, UnreadableBeat for what nobody
        would take."""
        if beat.host != self._key.host:
            raise ValueError(f"the key is that of {self._key.host}, and the beat that of {beat.host}")
        message = sign(self._key, encode(beat))
        given = threading.Event()
        for speaker in self._speakers:
            speaker.hand_over(message, given)
        if not given.wait(SAY_WITHIN_S):
            raise Unsaid("no broker took it")


class _Speaker:
    """One broker's connection and its thread."""

    def __init__(self, broker: Broker, routing_key: str) -> None:
        self._broker = broker
        self._routing_key = routing_key
        self._changed = threading.Condition()
        self._newest: tuple[bytes, threading.Event, float] | None = None
        self._ending = threading.Event()
        self._is_blocked = False
        self._told = ""
        self._thread = threading.Thread(target=self._run, name="voice-to-bus", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask_to_end(self) -> None:
        self._ending.set()
        with self._changed:
            self._changed.notify_all()

    def join(self, limit_s: float) -> None:
        self._thread.join(limit_s)

    def hand_over(self, message: bytes, given: threading.Event) -> None:
        with self._changed:
            self._newest = (message, given, time.monotonic())
            self._changed.notify_all()

    def _run(self) -> None:
        backoff_s = BACKOFF_S
        while not self._ending.is_set():
            for place in self._broker.places:
                if self._ending.is_set():
                    return
                if self._speak_at(place):
                    backoff_s = BACKOFF_S
            self._ending.wait(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    def _speak_at(self, place: Place) -> bool:
        """Until the connection is lost or we end; True if there was one. Never raises; an outage is told once."""
        self._is_blocked, is_connected = False, False
        connection = amqp.Connection(
            **self._broker.arguments(place), on_blocked=self._on_blocked, on_unblocked=self._on_unblocked
        )
        try:
            connection.connect()
            declare_exchange(connection)
            channel = connection.channel()
            is_connected, self._told = True, ""
            LOG.info("Beating to %s.", place)
            self._speak(connection, channel)
        except Exception as error:
            if self._told != (told := why(error)):
                LOG.warning("Beats cannot be sent to %s: %s. Trying on.", place, told)
                self._told = told
        finally:
            let_go(connection)
        return is_connected

    def _speak(self, connection: amqp.Connection, channel: amqp.Channel) -> None:
        while not self._ending.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._ending.is_set(), IDLE_S)
                newest, self._newest = self._newest, None
            self._hear(connection)
            if newest is None or self._is_blocked or time.monotonic() - newest[2] > STALE_S:
                continue
            message, given, _ = newest
            envelope = amqp.Message(message, delivery_mode=1, expiration=str(int(EXPIRES_S * 1000)))
            channel.basic_publish(envelope, EXCHANGE, self._routing_key)
            given.set()
        # The last beat says that we leave on purpose: the farewell makes sure that it was taken.
        connection.close()

    def _hear(self, connection: amqp.Connection) -> None:
        """What the broker has to say: that it lives, that it ends, that it takes nothing for now."""
        try:
            while True:
                connection.drain_events(timeout=0.001)
        except TimeoutError:
            pass
        connection.heartbeat_tick()

    def _on_blocked(self, reason: object) -> None:
        self._is_blocked = True
        LOG.warning("The broker takes no beats for now: it is out of memory or disk.")

    def _on_unblocked(self) -> None:
        self._is_blocked = False
        LOG.info("The broker takes beats again.")
