# SPDX-License-Identifier: Apache-2.0
"""Who may give an order, who may answer it, and which orders count."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from vmhad.bus.codec import TEXT_MAX
from vmhad.bus.names import CLOCKS_APART_S, ORDER_LASTS_MAX_S
from vmhad.bus.orders import (
    ARGS_MAX,
    BYTES_MAX,
    KEPT_MAX,
    KEPT_S,
    MARK,
    WORD_MAX,
    Answer,
    Order,
    OrderWindow,
    Outcome,
    SeenBefore,
    Unreadable,
    opened_answer,
    opened_order,
    signed_answer,
    signed_order,
)
from vmhad.bus.signature import Forged, HostKey, Verifier, derive, sign

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
KEY = derive("old", OLD, "h1")
ORDER = Order("resume_guest", "h1", {"server": "s1"}, "n1", 1000.0, 10.0, "queue")
ANSWER = Answer("n1", "h1", Outcome.DONE, "resumed", "on")


def test_an_order_and_its_answer_come_as_they_were_given() -> None:
    keys = [derive("new", NEW, "h1"), KEY]
    for mine in keys:
        assert opened_order(mine, signed_order(keys, ORDER)) == ORDER
        assert opened_answer(Verifier({"new": NEW, "old": OLD}), signed_answer(mine, ANSWER)) == ANSWER


def test_an_agent_whose_key_is_of_no_master_that_is_left_obeys_nobody() -> None:
    message = signed_order([derive("new", NEW, "h1")], ORDER)
    with pytest.raises(Forged, match="not signed for the key 'old'"):
        opened_order(KEY, message)
    with pytest.raises(Forged, match="a key that is not among ours"):
        opened_answer(Verifier({"new": NEW}), signed_answer(KEY, ANSWER))


@pytest.mark.parametrize(
    "forger",
    [derive("old", OLD, "h2"), HostKey("h1", "old", bytes(32)), derive("old", NEW, "h1")],
    ids=["another host", "nobody", "another master of the same name"],
)
def test_who_has_another_key_gives_no_orders(forger: HostKey) -> None:
    with pytest.raises(Forged, match="not signed by an engine for this host"):
        opened_order(KEY, signed_order([forger], ORDER))
    false = replace(forger, host="h1")
    with pytest.raises(Forged):
        opened_answer(Verifier({"old": OLD}), signed_answer(false, ANSWER))


def test_an_order_to_one_host_is_none_to_another() -> None:
    message = signed_order([KEY], ORDER)
    with pytest.raises(Forged):
        opened_order(derive("old", OLD, "h2"), message)
    # Not even where two hosts had got one key.
    with pytest.raises(Forged, match="meant for another host"):
        opened_order(replace(KEY, host="h2"), message)


def test_a_host_answers_for_itself_only() -> None:
    with pytest.raises(Forged, match="speaks for another"):
        opened_answer(Verifier({"old": OLD}), signed_answer(derive("old", OLD, "h2"), ANSWER))


def test_what_was_signed_for_one_thing_is_nothing_else() -> None:
    verifier = Verifier({"old": OLD})
    beat, answer = sign(KEY, b"a beat"), signed_answer(KEY, ANSWER)
    with pytest.raises(Forged):
        opened_answer(verifier, beat)
    with pytest.raises(Forged):
        verifier.open(answer)
    for message in (beat, answer):
        with pytest.raises(Unreadable):
            opened_order(KEY, message)


@pytest.mark.parametrize(
    "wrong",
    [
        {"verb": ""},
        {"nonce": ""},
        {"reply_to": ""},
        {"verb": "x" * (WORD_MAX + 1)},
        {"args": {"server": "a\nb"}},
        {"args": {str(number): "" for number in range(ARGS_MAX + 1)}},
        {"sent_at": float("nan")},
        {"lasts_s": float("inf")},
    ],
)
def test_an_order_that_is_none_is_not_signed(wrong: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        signed_order([KEY], replace(ORDER, **wrong))  # type: ignore[arg-type]


def test_whatever_the_bytes_are_they_are_no_order_and_no_answer() -> None:
    order, answer = signed_order([KEY], ORDER), signed_answer(KEY, ANSWER)
    drawn, verifier = random.Random(7), Verifier({"old": OLD})
    for _ in range(3000):
        for message in (order, answer):
            body = bytearray(message)
            for _ in range(drawn.randint(1, 4)):
                body[drawn.randrange(len(body))] ^= 1 << drawn.randrange(8)
            cut = bytes(body[: drawn.randint(0, len(body))])
            with pytest.raises((Forged, Unreadable)):
                opened_order(KEY, cut)
            with pytest.raises((Forged, Unreadable)):
                opened_answer(verifier, cut)
    for garbage in (b"", MARK, MARK + bytes(100), MARK + b"\x92" * 4000, bytes(BYTES_MAX + 1), sign(KEY, b"", b"")):
        with pytest.raises((Forged, Unreadable)):
            opened_order(KEY, garbage)
        with pytest.raises((Forged, Unreadable)):
            opened_answer(verifier, garbage)


def test_an_order_counts_once_for_as_long_as_it_could_be_good() -> None:
    window = OrderWindow(began=900.0)
    assert window.take(ORDER, 1001.0, 50.0) == ""
    for later in (50.0, 50.0 + ORDER_LASTS_MAX_S, 50.0 + 10 * KEPT_S):
        with pytest.raises(SeenBefore):
            window.take(ORDER, 1001.0, later)
    assert window.take(replace(ORDER, nonce="n2"), 1001.0, 51.0) == ""


@pytest.mark.parametrize(
    ("wall", "refused"),
    [
        (1000.0, ""),
        (1010.0, ""),
        (1000.0 - CLOCKS_APART_S, ""),
        (1010.1, "it came 10 s after it was sent"),
        (999.9 - CLOCKS_APART_S, "it came -5 s after it was sent"),
        (5000.0, "it came 4000 s after it was sent"),
    ],
)
def test_an_order_counts_near_its_time_only(wall: float, refused: str) -> None:
    window = OrderWindow(began=900.0)
    said = window.take(ORDER, wall, 50.0)
    assert said.startswith(refused) and bool(said) == bool(refused)
    # What was refused once is not done later.
    with pytest.raises(SeenBefore):
        window.take(ORDER, 1000.0, 51.0)


def test_no_order_is_good_for_longer_than_any_is_remembered() -> None:
    said = OrderWindow(began=900.0).take(replace(ORDER, lasts_s=1e9), 1000.1 + ORDER_LASTS_MAX_S, 50.0)
    assert said.startswith("it came 30 s after it was sent")
    assert KEPT_S > ORDER_LASTS_MAX_S + CLOCKS_APART_S


@pytest.mark.parametrize("ahead_s", [-CLOCKS_APART_S, 0.0, CLOCKS_APART_S])
def test_what_was_sent_to_an_earlier_run_of_the_agent_is_not_done_by_the_next(ahead_s: float) -> None:
    """ahead_s: of the engine's clock. It is not refused either: that would be believed of the first one."""
    sent = replace(ORDER, sent_at=1000.0 + ahead_s)
    assert OrderWindow(began=900.0).take(sent, 1000.1, 50.0) == ""
    with pytest.raises(SeenBefore):
        OrderWindow(began=1000.5).take(sent, 1001.0, 51.0)
    later = replace(sent, nonce="n2", sent_at=1000.5 + CLOCKS_APART_S)
    assert OrderWindow(began=1000.5).take(later, 1001.0, 51.0) == ""


def test_the_memory_is_bounded_and_nothing_in_it_is_forgotten_too_early() -> None:
    window = OrderWindow(began=900.0)
    for number in range(KEPT_MAX):
        assert window.take(replace(ORDER, nonce=f"x{number}"), 1001.0, 50.0) == ""
    full = "this agent got more orders than it can remember"
    assert window.take(replace(ORDER, nonce="y"), 1001.0, 50.0 + ORDER_LASTS_MAX_S) == full
    with pytest.raises(SeenBefore):
        window.take(replace(ORDER, nonce="x0"), 1001.0, 50.0)
    assert window.take(replace(ORDER, nonce="y"), 1001.0, 51.0 + KEPT_S) == ""
    assert len(window._taken) <= KEPT_MAX


def test_an_answer_takes_one_line_whatever_is_in_it() -> None:
    lines = replace(ANSWER, text="no\n12:00 host h2 CLOSED\x1b[2J" + "x" * 1000, reading="o\nn")
    answer = opened_answer(Verifier({"old": OLD}), signed_answer(KEY, lines))
    assert answer.text.isprintable() and answer.text.startswith("no 12:00 host h2 CLOSED [2Jx")
    assert len(answer.text) == TEXT_MAX
    assert answer.reading == "o n"
