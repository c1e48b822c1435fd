# SPDX-License-Identifier: Apache-2.0
"""A thread that listens at one broker for as long as it takes: one of its hosts after the other, and once more.

It speaks AMQP by py-amqp, which lies below oslo.messaging, whose own listener takes four times the CPU for a beat.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import amqp

from vmhad.bus.broker import let_go, why
from vmhad.bus.transport_url import Broker, Place

LOG = logging.getLogger(__name__)
RETRY_S = 1.0


class Ear:
    """what: is listened for, as the log says it; name: of the thread. consume: called with each new connection; serve:
    with that connection, in this thread, for as long as it lasts or until `ending` is set. Whatever they raise ends the
    connection."""

    def __init__(
        self,
        broker: Broker,
        what: str,
        name: str,
        consume: Callable[[amqp.Connection], object],
        serve: Callable[[amqp.Connection], object],
    ) -> None:
        self._broker = broker
        self._what = what
        self._name = name
        self._consume = consume
        self._serve = serve
        self.ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = ""
        self.is_listening = False

    def start(self) -> None:
        """Returns at once; connecting goes on in the thread for as long as it takes."""
        if self._thread is None:
            self.ending.clear()
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def join(self, limit_s: float) -> None:
        """After `ending` was set. Returns within limit_s, also while the broker is away."""
        if self._thread is not None:
            self._thread.join(limit_s)
            self._thread = None

    def _run(self) -> None:
        while not self.ending.is_set():
            for place in self._broker.places:
                if self.ending.is_set():
                    return
                self._listen(place)
            self.ending.wait(RETRY_S)

    def _listen(self, place: Place) -> None:
        """Until the connection is lost or we end. Never raises; a broker that is away is told once."""
        connection = amqp.Connection(**self._broker.arguments(place))
        try:
            connection.connect()
            self._consume(connection)
            self._told, self.is_listening = "", True
            LOG.info("%s are listened for at %s.", self._what, place)
            self._serve(connection)
        except Exception as error:
            if self._told != (told := why(error)):
                LOG.warning("%s cannot be heard at %s: %s. Trying on.", self._what, place, told)
                self._told = told
        finally:
            self.is_listening = False
            let_go(connection)


def acknowledge(message: Any, multiple: bool = False) -> None:
    """Raises ConnectionError where the broker does not read: half of it may be sent, and this is no wait that was in
    vain, as a TimeoutError would say."""
    try:
        message.channel.basic_ack(message.delivery_tag, multiple=multiple)
    except TimeoutError:
        raise ConnectionError("the broker does not read") from None
