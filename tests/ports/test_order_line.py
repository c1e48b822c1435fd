# SPDX-License-Identifier: Apache-2.0
"""The process that is kept for orders: every call ends in time, and no call is answered by another one's words."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.ports.ganesha_server import eventually
from vmhad.drivers.storage.order_line import OrderLine, Silent

# Says every order back, the last first.
BACKWARDS = """
import sys
lines = [sys.stdin.readline() for _ in range(2)]
for line in reversed(lines): print(line, end="", flush=True)
"""
# Answers all but those that say so.
SOME = """
import sys
for line in sys.stdin:
    if "never" not in line: print(line, end="", flush=True)
"""


@contextmanager
def line(*command: str) -> Iterator[OrderLine]:
    made = OrderLine(command)
    try:
        yield made
    finally:
        made.close()


def test_an_answer_is_that_of_its_order() -> None:
    with line("cat") as one:
        assert [one.ask({"act": number}, 5.0)["act"] for number in range(20)] == list(range(20))


def test_orders_are_under_way_side_by_side() -> None:
    said: dict[int, object] = {}
    with line(sys.executable, "-c", BACKWARDS) as one:
        threads = [
            threading.Thread(target=lambda number=number: said.update({number: one.ask({"act": number}, 10.0)["act"]}))
            for number in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert said == {0: 0, 1: 1}


def test_what_is_not_answered_in_time_is_silent_and_the_next_call_has_a_process_of_its_own() -> None:
    with line(sys.executable, "-c", SOME) as one:
        assert one.ask({"act": "now"}, 10.0)["act"] == "now"
        began = time.monotonic()
        with pytest.raises(Silent, match="no answer"):
            one.ask({"act": "never"}, 0.3)
        assert time.monotonic() - began < 1.0
        assert one.ask({"act": "now"}, 10.0)["act"] == "now"


@pytest.mark.parametrize("script", ["exit 3", "echo garbage; sleep 60", "echo '[1]'; sleep 60", "echo '{}'; sleep 60"])
def test_a_process_that_ends_or_says_garbage_is_silent_at_once(script: str) -> None:
    began = time.monotonic()
    with line("sh", "-c", script) as one, pytest.raises(Silent):
        one.ask({"act": "read"}, 10.0)
    assert time.monotonic() - began < 5.0


def test_a_program_that_there_is_not() -> None:
    with line("there-is-no-such-program") as one, pytest.raises(Silent, match="cannot be started"):
        one.ask({"act": "read"}, 1.0)


def test_a_process_that_ended_between_two_calls_is_started_anew() -> None:
    with line("sh", "-c", 'read -r order; echo "$order"') as one:
        assert one.ask({"act": 1}, 5.0)["act"] == 1

        def answered() -> bool:
            try:
                return one.ask({"act": 2}, 5.0)["act"] == 2
            except Silent:
                return False

        eventually("a process of its own", answered)
