# SPDX-License-Identifier: Apache-2.0
"""Both ends of the orders on a real broker, and somebody with the bus's password between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import amqp
import pytest

from tests.broker import Broker
from tests.ports.hands_contract import FROZEN, PAUSED
from tests.ports.orders_bench import HOSTS, KNOWN, MASTER, RabbitBench, eventually
from vmhad.agent.orders import UNDER_WAY_MAX
from vmhad.bus.names import CLOCKS_APART_S, EXCHANGE, ORDERS_WAITING_MAX, order_topic
from vmhad.bus.orders import Answer, Order, Outcome, opened_order, signed_answer, signed_order
from vmhad.bus.signature import derive
from vmhad.drivers.hands.agent_orders import AgentOrders
from vmhad.ports import Refused, Unanswered

KEYS = {host: derive("k1", MASTER, host) for host in HOSTS}


@pytest.fixture
def bench(rabbit: Broker) -> Iterator[RabbitBench]:
    begun = RabbitBench(rabbit)
    yield begun
    begun.end()


class Stranger:
    """Hears every order to a host, and says what it wants to."""

    def __init__(self, bench: RabbitBench, host: str = "h1") -> None:
        self._connection = bench.raw()
        self.channel = self._connection.channel()
        self.queue: str = self.channel.queue_declare("", exclusive=True).queue
        self.channel.queue_bind(self.queue, EXCHANGE, order_topic(host))
        self.heard: list[bytes] = []
        self.channel.basic_consume(self.queue, no_ack=True, callback=lambda message: self.heard.append(message.body))

    def say(self, message: bytes, host: str = "h1") -> None:
        self.channel.basic_publish(amqp.Message(message), EXCHANGE, order_topic(host))

    def answer(self, queue: str, message: bytes) -> None:
        self.channel.basic_publish(amqp.Message(message), "", queue)

    def wait(self, count: int = 1) -> list[bytes]:
        until = time.monotonic() + 10.0
        while len(self.heard) < count:
            self._connection.drain_events(timeout=max(0.01, until - time.monotonic()))
        return self.heard

    def hears_nothing_for(self, seconds: float) -> None:
        with pytest.raises(TimeoutError):
            self._connection.drain_events(timeout=seconds)

    def end(self) -> None:
        self._connection.collect()


@pytest.fixture
def stranger(bench: RabbitBench) -> Iterator[Stranger]:
    begun = Stranger(bench)
    yield begun
    begun.end()


def order(host: str = "h1", **changes: object) -> Order:
    given = Order("resume_guest", host, {"server": FROZEN}, f"n{time.monotonic()}", time.time(), 10.0, "nobody")
    return replace(given, **changes)  # type: ignore[arg-type]


def is_still_obeyed(bench: RabbitBench, host: str = "h1") -> None:
    """By an order that comes behind all that was said before: none of that was done."""
    bench.hands.restart_service(host, "nova-compute", KNOWN)
    assert bench.done(host) == ["restart nova-compute"]


def test_a_forged_order_is_not_done(bench: RabbitBench, stranger: Stranger) -> None:
    others = KEYS["h2"], replace(KEYS["h2"], host="h1"), derive("k1", bytes(32), "h1"), derive("x", MASTER, "h1")
    for forger in others:
        stranger.say(signed_order([forger], order()))
    for garbage in (b"", b"vmhado1", b"vmhado1" + bytes(300), bytes(30_000)):
        stranger.say(garbage)
    stranger.channel.basic_publish(amqp.Message("a text", content_encoding="utf-8"), EXCHANGE, order_topic("h1"))
    is_still_obeyed(bench)


def test_an_order_that_was_heard_is_not_done_again_nor_by_another_host(bench: RabbitBench, stranger: Stranger) -> None:
    bench.hands.resume_guest("h1", FROZEN)
    copy = stranger.wait()[0]
    stranger.say(copy)
    stranger.say(copy, "h2")
    bench.hands.restart_service("h1", "nova-compute", KNOWN)
    assert bench.done("h1") == ["restart nova-compute", f"resume {FROZEN}"]
    is_still_obeyed(bench, "h2")


def test_an_order_played_to_the_next_run_of_its_agent_is_not_done(bench: RabbitBench, stranger: Stranger) -> None:
    bench.hands.resume_guest("h1", FROZEN)
    copy = stranger.wait()[0]
    bench.stop_agent("h1")
    began = time.time()
    bench.start_agent("h1", began=began)
    stranger.say(copy)
    ahead = bench.engine(wall=lambda: time.time() + CLOCKS_APART_S - 0.5)
    eventually("an order that only the next run can know", lambda: time.time() > began + 0.6)
    ahead.restart_service("h1", "nova-compute", KNOWN)
    assert bench.done("h1") == ["restart nova-compute", f"resume {FROZEN}"]


def test_a_copy_that_overtakes_its_order_answers_where_the_engine_listens(
    bench: RabbitBench, stranger: Stranger
) -> None:
    """Whoever is first has it done, and the engine is told: where the answer goes is signed, too."""
    bench.stop_agent("h1")
    asked: list[object] = []
    # Nobody but the stranger listens now; the agent is back before the engine's patience ends.
    calling = threading.Thread(target=lambda: asked.append(bench.hands.resume_guest("h1", FROZEN)))
    calling.start()
    copy = stranger.wait()[0]
    bench.start_agent("h1", wall=lambda: time.time() - 1.0)
    stranger.say(copy)
    calling.join(10.0)
    assert asked == [None] and bench.done("h1") == [f"resume {FROZEN}"]


def test_a_late_order_is_refused_whatever_it_asks(bench: RabbitBench) -> None:
    slow = bench.engine(wall=lambda: time.time() - 60.0)
    with pytest.raises(Refused, match="it came 60 s after it was sent"):
        slow.resume_guest("h1", FROZEN)
    with pytest.raises(Refused, match="it came -60 s after it was sent"):
        bench.engine(wall=lambda: time.time() + 60.0).resume_guest("h1", FROZEN)
    assert bench.done("h1") == []


def test_an_answer_of_another_host_is_not_believed(bench: RabbitBench, stranger: Stranger) -> None:
    """The agent is gone; h2, which has the bus's password and hears the order, answers for it in every way it can."""
    bench.stop_agent("h1")
    failed: list[Exception] = []

    def call() -> None:
        try:
            bench.hands.resume_guest("h1", FROZEN)
        except Exception as error:
            failed.append(error)

    calling = threading.Thread(target=call)
    calling.start()
    asked = opened_order(KEYS["h1"], stranger.wait()[0])
    done = Answer(asked.nonce, "h1", Outcome.DONE)
    for message in (
        signed_answer(KEYS["h2"], done),
        signed_answer(replace(KEYS["h2"], host="h1"), done),
        signed_answer(KEYS["h2"], replace(done, host="h2")),
        signed_answer(KEYS["h1"], replace(done, nonce="of another order")),
        b"done",
        b"",
    ):
        stranger.answer(asked.reply_to, message)
    calling.join(10.0)
    assert [type(one) for one in failed] == [Unanswered] and "did not answer within its time" in str(failed[0])


def test_an_answer_among_many_that_are_none_is_found(bench: RabbitBench, stranger: Stranger) -> None:
    bench.hang_agent("h1")
    calling = threading.Thread(target=bench.hands.resume_guest, args=("h1", FROZEN))
    calling.start()
    asked = opened_order(KEYS["h1"], stranger.wait()[0])
    for _ in range(500):
        stranger.answer(asked.reply_to, bytes(100))
    bench.hosts["h1"].goes_on.set()
    calling.join(10.0)
    assert bench.done("h1") == [f"resume {FROZEN}"]


def test_what_hangs_holds_orders_of_its_kind_and_no_others(bench: RabbitBench) -> None:
    bench.hosts["h1"].before_acting = lambda: None
    bench.agents["h1"]._acts["resume_guest"] = lambda args: bench.hosts["h1"].goes_on.wait(30.0) and ("", "")  # type: ignore[assignment, return-value]
    bench.hang_agent("h1")
    calls = [threading.Thread(target=_in_vain, args=(bench.hands,)) for _ in range(UNDER_WAY_MAX)]
    for call in calls:
        call.start()
    eventually("acts under way", lambda: bench.agents["h1"]._under_way["resume_guest"] == UNDER_WAY_MAX)
    with pytest.raises(Refused, match=f"{UNDER_WAY_MAX} such orders are under way"):
        bench.hands.resume_guest("h1", FROZEN)
    bench.hosts["h1"].goes_on.set()
    is_still_obeyed(bench)
    for call in calls:
        call.join(10.0)
    eventually("no acts under way", lambda: bench.agents["h1"]._under_way["resume_guest"] == 0)


def _in_vain(hands: AgentOrders) -> None:
    try:
        hands.resume_guest("h1", FROZEN)
    except Unanswered:
        return


def test_a_queue_that_is_full_says_so_at_once(bench: RabbitBench) -> None:
    """An agent that is stopped in its tracks has a queue of its own, and takes nothing out of it."""
    bench.stop_agent("h1")
    stuck = bench.raw()
    channel = stuck.channel()
    bounds = {"x-max-length": ORDERS_WAITING_MAX, "x-overflow": "reject-publish"}
    queue = channel.queue_declare("", exclusive=True, arguments=bounds).queue
    channel.queue_bind(queue, EXCHANGE, order_topic("h1"))
    for _ in range(ORDERS_WAITING_MAX):
        channel.basic_publish(amqp.Message(b"an order"), "", queue)
    eventually("a full queue", lambda: channel.queue_declare(queue, passive=True).message_count == ORDERS_WAITING_MAX)
    try:
        with pytest.raises(Unanswered, match="too many orders wait for it already"):
            bench.hands.resume_guest("h1", FROZEN)
    finally:
        stuck.collect()


def test_nobody_listens_is_said_at_once(bench: RabbitBench) -> None:
    bench.stop_agent("h1")
    began = time.monotonic()
    with pytest.raises(Unanswered, match="nobody listens for its orders"):
        bench.hands.resume_guest("h1", FROZEN)
    assert time.monotonic() - began < bench.limit_s / 2


def test_a_broker_that_hangs_costs_the_limit_and_no_more(bench: RabbitBench) -> None:
    bench.hands.resume_guest("h1", FROZEN)
    bench.broker.pause()
    try:
        for _ in range(2):
            took_s = bench.took_s(lambda: _in_vain(bench.hands))
            assert took_s <= bench.limit_s + 0.5
    finally:
        bench.broker.resume()
    eventually("the agents", lambda: all(agent.is_listening() for agent in bench.agents.values()))
    with pytest.raises(Refused, match="paused by its user"):
        bench.hands.resume_guest("h2", PAUSED)


def test_calls_at_a_time_do_not_wait_for_each_other_and_leave_nothing_open(bench: RabbitBench) -> None:
    bench.hang_agent("h1")
    slow = threading.Thread(target=_in_vain, args=(bench.hands,))
    slow.start()
    eventually("an act under way", lambda: bench.agents["h1"]._under_way["resume_guest"])
    began = time.monotonic()
    for _ in range(5):
        bench.hands.resume_guest("h2", FROZEN)
    assert time.monotonic() - began < bench.limit_s
    slow.join(10.0)
    bench.hands.stop()
    assert [line for lines in bench.hands._lines for line in lines._idle] == []


def test_while_the_master_key_is_changed_both_are_obeyed(bench: RabbitBench) -> None:
    """The new one stands first in the engines' file and the agent has a key of the old one, then only the new one is
    left."""
    bench.engine({"k2": bytes(32), "k1": MASTER}).resume_guest("h1", FROZEN)
    with pytest.raises(Unanswered):
        bench.engine({"k2": bytes(32)}).resume_guest("h1", FROZEN)
    assert bench.done("h1") == [f"resume {FROZEN}"]
