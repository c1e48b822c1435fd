# SPDX-License-Identifier: Apache-2.0
"""An order of an engine to the agent of one host, and the agent's answer: their bytes, who says them, which count.

An order is signed with keys that only the engines and this one host have, one signature for each master key that is
valid, for the engine does not know which of them its agent was given. It names its host, so what was said to one can be
played to no other. Its answer is signed with the host's own key and names the order's nonce. A signature is for one
direction: what an agent says can never be an order. Where the answer goes stands inside, or whoever copies an order
could have its answer sent to themselves.

**Again, and late.** An agent takes an order once, and only near the time that it was sent at. What it took before is
dropped without a word, for «refused» would be believed of the first one. Clocks that disagree cost an order and nothing
else; what an order does when it comes late must be harmless by what it says («restart it if it still is that one»).
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import msgspec

from vmhad.bus.codec import printable
from vmhad.bus.names import CLOCKS_APART_S, ORDER_LASTS_MAX_S
from vmhad.bus.signature import ANSWER, ORDER, Forged, HostKey, Verifier, sign

MARK = b"vmhado1"
BYTES_MAX = 16 * 1024
WORD_MAX = 255
ARGS_MAX = 16
# The nonces of so many orders are kept, and longer than any of these orders is good for.
KEPT_MAX = 4096
KEPT_S = 2 * (ORDER_LASTS_MAX_S + CLOCKS_APART_S)


class Unreadable(Exception):
    """The bytes are no order, or no answer; one sentence that shows nothing of what is in them."""


class SeenBefore(Exception):
    """It was taken once, or may have been by an earlier run of the agent, and is not even refused."""


@dataclass(frozen=True, slots=True)
class Order:
    """host: who is to act. sent_at: the engine's Unix time, good for lasts_s after it. reply_to: the queue that the
    answer goes to."""

    verb: str
    host: str
    args: Mapping[str, str]
    nonce: str
    sent_at: float
    lasts_s: float
    reply_to: str


class Outcome(StrEnum):
    """DONE: as ordered. REFUSED: nothing was changed. FAILED: it was tried, and may have changed something."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """reading: what was read, for an order that asks. text: in words, of the outcome or of what was read."""

    nonce: str
    host: str
    outcome: Outcome
    text: str = ""
    reading: str = ""


class _Signed(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """macs: key id -> signature of the body."""

    macs: dict[str, bytes]
    body: bytes


_ENCODER = msgspec.msgpack.Encoder()
_SIGNED = msgspec.msgpack.Decoder(_Signed)
_ORDER = msgspec.msgpack.Decoder(Order)
_ANSWER = msgspec.msgpack.Decoder(Answer)


def signed_order(keys: Sequence[HostKey], order: Order) -> bytes:
    """keys: those of order.host, one for each master key. Raises Unreadable for what no agent would take."""
    _check_order(order)
    body = _ENCODER.encode(order)
    signed = _Signed({key.id: _mac(key, body) for key in keys}, body)
    return MARK + _ENCODER.encode(signed)


def opened_order(key: HostKey, message: bytes) -> Order:
    """key: this host's own. Raises Forged or Unreadable, and nothing else, whatever the bytes are."""
    if not message.startswith(MARK) or len(message) > BYTES_MAX:
        raise Unreadable("it is no order")
    try:
        signed = _SIGNED.decode(message[len(MARK) :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable("it is no order") from None
    mac = signed.macs.get(key.id)
    if mac is None:
        raise Forged("", f"it is not signed for the key {key.id!r}, which this host has")
    if not hmac.compare_digest(_mac(key, signed.body), mac):
        raise Forged("", "it is not signed by an engine for this host")
    try:
        order = _ORDER.decode(signed.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable("an engine of another version gave it") from None
    _check_order(order)
    if order.host != key.host:
        raise Forged("", "it is meant for another host")
    return order


def signed_answer(key: HostKey, answer: Answer) -> bytes:
    return sign(key, _ENCODER.encode(answer), ANSWER)


def opened_answer(verifier: Verifier, message: bytes) -> Answer:
    """Raises Forged or Unreadable, and nothing else, whatever the bytes are."""
    if len(message) > BYTES_MAX:
        raise Unreadable("it is no answer")
    host, body = verifier.open(message, ANSWER)
    try:
        answer = _ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable("it is no answer") from None
    if answer.host != host:
        raise Forged(host, "it is signed by one host and speaks for another")
    return replace(answer, text=printable(answer.text), reading=printable(answer.reading))


def _mac(key: HostKey, body: bytes) -> bytes:
    return hmac.digest(key.key, ORDER + body, "sha256")


def _check_order(order: Order) -> None:
    words = (order.verb, order.host, order.nonce, order.reply_to, *order.args, *order.args.values())
    if len(order.args) > ARGS_MAX or not all(len(word) <= WORD_MAX and word.isprintable() for word in words):
        raise Unreadable("one of its words is none")
    if not (order.verb and order.host and order.nonce and order.reply_to):
        raise Unreadable("one of its words is missing")
    if not (math.isfinite(order.sent_at) and math.isfinite(order.lasts_s)):
        raise Unreadable("one of its times is not a number")


@dataclass(slots=True)
class OrderWindow:
    """One run of an agent's memory of its orders. began: its Unix time then. What was sent before is not taken: another
    run may have done it. An engine's clock may be ahead, so neither is what says that it was sent right after. One
    thread at a time."""

    began: float
    _taken: dict[str, float] = field(default_factory=dict)

    def take(self, order: Order, wall: float, now: float) -> str:
        """'' where it counts, or in words why it is refused. wall: the agent's Unix time. now: a clock that never
        jumps. Raises SeenBefore."""
        if order.nonce in self._taken:
            raise SeenBefore("it came twice")
        if order.sent_at < self.began + CLOCKS_APART_S:
            raise SeenBefore("an earlier run of this agent may have taken it")
        for nonce, at in list(self._taken.items())[: max(0, len(self._taken) - KEPT_MAX + 1)]:
            if now - at > KEPT_S:
                del self._taken[nonce]
        if len(self._taken) >= KEPT_MAX:
            return "this agent got more orders than it can remember"
        self._taken[order.nonce] = now
        age_s, lasts_s = wall - order.sent_at, min(order.lasts_s, ORDER_LASTS_MAX_S)
        if not -CLOCKS_APART_S <= age_s <= lasts_s:
            return f"it came {age_s:.0f} s after it was sent, by this host's clock, and is good for {lasts_s:g} s"
        return ""
