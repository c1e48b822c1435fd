# SPDX-License-Identifier: Apache-2.0
"""Orders to agents over the bus: one signed message there, one signed answer back, all within one time limit.

A caller has a connection to itself for as long as its order lasts, so that no call waits for another; idle ones are
kept for a moment. With several brokers an order goes by the first one at which its agent listens. An order that no
agent listens for, or whose agent has too many waiting, ends at once; one without an answer when its time is over.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import amqp
from amqp.exceptions import MessageNacked

from vmhad.bus.broker import declare_exchange, let_go
from vmhad.bus.names import CLOCKS_APART_S, EXCHANGE, order_topic
from vmhad.bus.orders import Answer, Order, Outcome, Unreadable, opened_answer, signed_order
from vmhad.bus.signature import Forged, Verifier, derive
from vmhad.bus.transport_url import Broker
from vmhad.ports import Refused, Unanswered

LOG = logging.getLogger(__name__)
# An idle connection is not used again after so long: the broker may have given it up.
IDLE_MAX_S = 4.0
ANSWERS_MAX = 64
# The broker's own work beside the wait for the agent.
LEAST_S = 0.05
LIMITS = ("connect_timeout", "read_timeout", "write_timeout")


class AgentOrders:
    """ports.Hands. hosts: those that may be ordered. masters: key id -> master key. limit_s: how long one order may
    take, with everything. wall: the engine's Unix time. From any thread."""

    def __init__(
        self,
        brokers: Sequence[Broker],
        hosts: Collection[str],
        masters: Mapping[str, bytes],
        *,
        limit_s: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._lines = [_Lines(broker) for broker in brokers]
        self._hosts = frozenset(hosts)
        self._masters = dict(masters)
        self._limit_s = limit_s
        self._wall = wall

    def restart_service(self, host: str, service: str, known: str) -> None:
        self.order(host, "restart_service", {"service": service, "known": known})

    def resume_guest(self, host: str, server_id: str) -> None:
        self.order(host, "resume_guest", {"server": server_id})

    def power(self, peer: str, what: str, host: str, limit_s: float) -> tuple[str, str]:
        """What the agent of peer reads at the BMC of host, or that it switched it: see by_proxy.Ask."""
        answer = self.order(peer, "power", {"host": host, "do": what}, min(limit_s, self._limit_s))
        return answer.reading, answer.text

    def order(self, host: str, verb: str, args: Mapping[str, str], limit_s: float = 0.0) -> Answer:
        """The answer of an agent that did it. limit_s: 0 for the usual one. Raises Refused and Unanswered, and nothing
        else."""
        if host not in self._hosts:
            raise Refused(f"no segment has a host {host!r}")
        limit_s = limit_s or self._limit_s
        until, lasts_s = time.monotonic() + limit_s, limit_s + CLOCKS_APART_S
        order = Order(verb, host, dict(args), secrets.token_hex(16), self._wall(), lasts_s, "")
        answer = self._asked(order, until)
        if answer.outcome is Outcome.REFUSED:
            raise Refused(f"the agent of {host} refused: {answer.text}")
        if answer.outcome is Outcome.FAILED:
            raise Unanswered(f"the agent of {host} tried: {answer.text}")
        return answer

    def stop(self) -> None:
        for lines in self._lines:
            lines.stop()

    def _asked(self, order: Order, until: float) -> Answer:
        keys = [derive(key_id, master, order.host) for key_id, master in self._masters.items()]
        why = "there is no broker"
        for lines in self._lines:
            try:
                line = lines.take(until)
            except Exception as error:
                why = f"the bus is not reached ({type(error).__name__})"
                continue
            try:
                line.send(signed_order(keys, replace(order, reply_to=line.queue)), order_topic(order.host), until)
                answer = line.wait(order, Verifier(self._masters), until)
            except _NotTaken as error:
                why = str(error)
                lines.give_back(line)
                continue
            except Exception as error:
                line.end()
                told = "within its time" if isinstance(error, TimeoutError) else f"({type(error).__name__})"
                raise Unanswered(f"the agent of {order.host} did not answer {told}") from None
            lines.give_back(line)
            return answer
        raise Unanswered(f"the order did not reach the agent of {order.host}: {why}")


class _NotTaken(Exception):
    """The broker gave the order to nobody."""


class _Lines:
    """The connections to one broker: those that are lent have one caller each."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._idle: list[tuple[float, _Line]] = []
        self._stopped = False

    def take(self, until: float) -> _Line:
        """An idle one, or a new one. Raises whatever connecting raises."""
        with self._lock:
            old = [line for at, line in self._idle if time.monotonic() - at > IDLE_MAX_S]
            self._idle = [(at, line) for at, line in self._idle if line not in old]
            found = self._idle.pop()[1] if self._idle else None
        for line in old:
            line.end()
        return found or self._opened(until)

    def give_back(self, line: _Line) -> None:
        with self._lock:
            if not self._stopped:
                self._idle.append((time.monotonic(), line))
                return
        line.end()

    def stop(self) -> None:
        with self._lock:
            self._stopped, idle, self._idle = True, self._idle, []
        for _, line in idle:
            line.end()

    def _opened(self, until: float) -> _Line:
        failure: Exception = TimeoutError()
        for place in self._broker.places:
            arguments = self._broker.arguments(place)
            left_s = until - time.monotonic()
            if left_s < LEAST_S:
                break
            limits = {name: min(arguments[name], left_s) for name in LIMITS}
            connection = amqp.Connection(**arguments | limits, confirm_publish=True)
            try:
                connection.connect()
                return _Line(connection)
            except Exception as error:
                let_go(connection)
                failure = error
        raise failure


class _Line:
    """One connection with a queue of its own for answers. For one caller at a time."""

    def __init__(self, connection: amqp.Connection) -> None:
        self._connection = connection
        declare_exchange(connection)
        self._channel = connection.channel()
        self._channel.events["basic_return"].add(self._on_return)
        bounds = {"x-max-length": ANSWERS_MAX}
        self.queue: str = self._channel.queue_declare("", exclusive=True, auto_delete=True, arguments=bounds).queue
        self._channel.basic_consume(self.queue, no_ack=True, callback=self._heard)
        self._heards: list[bytes] = []
        self._came_back = False

    def end(self) -> None:
        let_go(self._connection)

    def send(self, message: bytes, topic: str, until: float) -> None:
        """Raises _NotTaken where the broker had nobody to give it to."""
        self._heards, self._came_back = [], False
        left_s = max(LEAST_S, until - time.monotonic())
        envelope = amqp.Message(message, delivery_mode=1, expiration=str(int(left_s * 1000)))
        # Half a message would be the end of this connection, however little of the time is left.
        self._connection.sock.settimeout(left_s)
        try:
            self._channel.basic_publish(envelope, EXCHANGE, topic, mandatory=True, confirm_timeout=left_s)
        except MessageNacked:
            raise _NotTaken("too many orders wait for it already") from None
        if self._came_back:
            raise _NotTaken("nobody listens for its orders")

    def wait(self, order: Order, verifier: Verifier, until: float) -> Answer:
        """Raises TimeoutError. What is no answer to this order is passed over."""
        while True:
            for message in self._heards:
                try:
                    answer = opened_answer(verifier, message)
                except (Forged, Unreadable) as error:
                    LOG.warning("an answer in the name of %s was dropped: %s", order.host, error)
                    continue
                if (answer.host, answer.nonce) == (order.host, order.nonce):
                    return answer
            self._heards = []
            left_s = until - time.monotonic()
            if left_s <= 0.0:
                raise TimeoutError
            self._connection.drain_events(timeout=left_s)

    def _heard(self, message: Any) -> None:
        body = message.body
        if len(self._heards) < ANSWERS_MAX:
            self._heards.append(body if isinstance(body, bytes) else str(body).encode())

    def _on_return(self, *what: object) -> None:
        self._came_back = True
