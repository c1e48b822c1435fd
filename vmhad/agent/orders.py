# SPDX-License-Identifier: Apache-2.0
"""The agent's ear for orders: a thread a broker that hears, proves and answers them; what is done is done elsewhere.

It has nothing to do with the thread that beats: whatever hangs in an order holds nothing but orders of its kind. Each
act has a thread of its own, a few of one kind at a time; one more is refused at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import amqp

from vmhad.agent.bootclock import boot_s
from vmhad.bus.broker import declare_exchange
from vmhad.bus.ear import Ear, acknowledge
from vmhad.bus.names import EXCHANGE, ORDER_LASTS_MAX_S, ORDERS_WAITING_MAX, order_topic
from vmhad.bus.orders import Answer, Order, OrderWindow, Outcome, SeenBefore, Unreadable, opened_order, signed_answer
from vmhad.bus.signature import Forged, HostKey
from vmhad.bus.transport_url import Broker
from vmhad.ports import Refused, Unanswered

LOG = logging.getLogger(__name__)
# An act: the order's arguments -> the reading and the words of the answer. Raises Refused where it changed nothing,
# Unanswered where it may have.
Act = Callable[[Mapping[str, str]], tuple[str, str]]
UNDER_WAY_MAX = 16
PREFETCH = 8
IDLE_S = 1.0
# While an act is under way its answer should not wait for long.
ANSWER_LOOK_S = 0.02
STOP_WITHIN_S = 3.0
TEXT_MAX = 500


class Orders:
    """start() it, stop() it. acts: verb -> what is done. key: this host's own. began: from when on no earlier run of
    this agent took orders; now, where it is not said."""

    def __init__(
        self,
        brokers: Sequence[Broker],
        key: HostKey,
        acts: Mapping[str, Act],
        *,
        wall: Callable[[], float] = time.time,
        began: float | None = None,
    ) -> None:
        self._key = key
        self._acts = dict(acts)
        self._wall = wall
        self._window = OrderWindow(wall() if began is None else began)
        # Held while one order is taken in, never while one is done.
        self._lock = threading.Lock()
        self._under_way = dict.fromkeys(acts, 0)
        self._ears = [_Queue(broker, key.host, self._take).ear for broker in brokers]

    def start(self) -> None:
        """Returns at once, whether or not a broker is there."""
        for ear in self._ears:
            ear.start()

    def stop(self) -> None:
        """Returns within a few seconds; an act that hangs is left behind."""
        for ear in self._ears:
            ear.ending.set()
        until = time.monotonic() + STOP_WITHIN_S
        for ear in self._ears:
            ear.join(max(0.0, until - time.monotonic()))

    def is_listening(self) -> bool:
        """True while there is a connection to every broker, as far as is known."""
        return all(ear.is_listening for ear in self._ears)

    def _take(self, message: bytes, answer: Callable[[str, bytes], None]) -> bool:
        """One message of the bus, whatever it is. answer: takes a queue and what goes there, from any thread. True if
        an answer will come."""
        try:
            order = opened_order(self._key, message)
            with self._lock:
                refusal = self._window.take(order, self._wall(), boot_s()) or self._begun(order.verb)
        except (Forged, Unreadable) as error:
            LOG.warning("an order was dropped: %s", error)
            return False
        except SeenBefore as error:
            LOG.info("the order %s was passed over: %s", order.verb, error)
            return False
        if refusal:
            LOG.warning("the order %s was refused: %s", order.verb, refusal)
            self._say(order, Outcome.REFUSED, refusal, "", answer)
        else:
            threading.Thread(target=self._do, args=(order, answer), name=order.verb, daemon=True).start()
        return True

    def _begun(self, verb: str) -> str:
        """Counts one more of its kind; '' or why it is not done."""
        if verb not in self._acts:
            return f"this agent does not know the order {verb!r}, or was not told that it may do it"
        if self._under_way[verb] >= UNDER_WAY_MAX:
            return f"{UNDER_WAY_MAX} such orders are under way"
        self._under_way[verb] += 1
        return ""

    def _do(self, order: Order, answer: Callable[[str, bytes], None]) -> None:
        outcome, reading = Outcome.FAILED, ""
        try:
            reading, text = self._acts[order.verb](order.args)
            outcome = Outcome.DONE
        except Refused as error:
            outcome, text = Outcome.REFUSED, str(error)
        except Unanswered as error:
            text = str(error)
        except Exception as error:
            LOG.exception("the order %s failed", order.verb)
            text = f"{type(error).__name__}: {error}"
        finally:
            with self._lock:
                self._under_way[order.verb] -= 1
        LOG.info("ordered %s %s: %s %s", order.verb, " ".join(order.args.values()), outcome.value, text)
        self._say(order, outcome, text, reading, answer)

    def _say(
        self, order: Order, outcome: Outcome, text: str, reading: str, answer: Callable[[str, bytes], None]
    ) -> None:
        said = Answer(order.nonce, self._key.host, outcome, text[:TEXT_MAX], reading)
        answer(order.reply_to, signed_answer(self._key, said))


class _Queue:
    """One broker's ear and what is owed there. take: as Orders._take."""

    def __init__(self, broker: Broker, host: str, take: Callable[[bytes, Callable[[str, bytes], None]], bool]) -> None:
        self._topic = order_topic(host)
        self._take = take
        # What acts have to say; an answer for a connection that is lost goes by the next one, or is too late.
        self._answers: deque[tuple[str, bytes]] = deque(maxlen=ORDERS_WAITING_MAX)
        self._owed = 0
        self._owed_until = 0.0
        self._channel: amqp.Channel | None = None
        self.ear = Ear(broker, "Orders", "orders", self._consume, self._serve)

    def _consume(self, connection: amqp.Connection) -> None:
        """The queue is this connection's own and ends with it: no order waits for an agent that is away."""
        declare_exchange(connection)
        self._channel = channel = connection.channel()
        channel.basic_qos(0, PREFETCH, False)
        bounds = {
            "x-message-ttl": int(ORDER_LASTS_MAX_S * 1000),
            "x-max-length": ORDERS_WAITING_MAX,
            "x-overflow": "reject-publish",
        }
        queue = channel.queue_declare("", exclusive=True, auto_delete=True, arguments=bounds).queue
        channel.queue_bind(queue, EXCHANGE, self._topic)
        channel.basic_consume(queue, callback=self._heard)

    def _serve(self, connection: amqp.Connection) -> None:
        beat_at, channel = 0.0, self._channel
        assert channel is not None
        while not self.ear.ending.is_set():
            try:
                is_owed = self._owed and time.monotonic() < self._owed_until
                connection.drain_events(timeout=ANSWER_LOOK_S if is_owed else IDLE_S)
            except TimeoutError:
                pass
            while self._answers:
                queue, message = self._answers.popleft()
                self._owed = max(0, self._owed - 1)
                channel.basic_publish(amqp.Message(message, delivery_mode=1), "", queue)
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + IDLE_S
                connection.heartbeat_tick()

    def _heard(self, message: Any) -> None:
        body = message.body
        acknowledge(message)
        if self._take(body if isinstance(body, bytes) else str(body).encode(), self._answer):
            # Nobody waits longer for an answer, and what hangs for ever is not looked for that often for ever.
            self._owed, self._owed_until = self._owed + 1, time.monotonic() + ORDER_LASTS_MAX_S

    def _answer(self, queue: str, message: bytes) -> None:
        self._answers.append((queue, message))
