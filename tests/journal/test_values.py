# SPDX-License-Identifier: Apache-2.0
"""Keys keep names apart; stored values come back as they were, survive a newer writer, and name what is broken."""

from __future__ import annotations

import json
from math import inf, nan

import pytest

from vmhad.drivers.store.ranges import mark_covering, mark_of, prefix_end
from vmhad.journal import codec, keys
from vmhad.journal.codec import JournalUnreadable
from vmhad.kernel.incident import Event, Incident, opened, turn
from vmhad.kernel.order import Order, OrderKind
from vmhad.kernel.proof import Proof
from vmhad.kernel.step import Answer, Observation, Step, StepState, Verb

ODD = ["a/b", "a", "ab", "a%2Fb", "\u00fc x", "..", "a\x00b", "owner", "a?b#c"]


def test_every_key_is_under_the_root_and_no_two_are_the_same() -> None:
    made = [keys.FENCES]
    for name in ODD:
        made += [keys.owner(name), keys.epoch(name), keys.commits(name)]
        made += [keys.open_host(name), keys.open_vm(name)]
        for other in ODD:
            made += [keys.incident(name, other), keys.order(name, other), keys.nudge(name, other)]
            made += [keys.step(name, other, third) for third in ODD]
    assert len(set(made)) == len(made)
    assert all(key.startswith("/vmhad/v1/") and key.isascii() and key.isprintable() for key in made)


def test_no_prefix_reaches_into_a_neighbour() -> None:
    for name in ODD:
        for other in ODD:
            mine = keys.step(name, "i", "s").startswith(keys.steps(other))
            assert mine is (name == other)
            assert keys.step("s", name, "x").startswith(keys.steps("s", other)) is (name == other)
            assert keys.incident(name, "i").startswith(keys.incidents(other)) is (name == other)
            assert keys.owner(name).startswith(keys.segment(other)) is (name == other)
    assert keys.owner("s").startswith(keys.SEGMENTS) and keys.epoch("s").startswith(keys.SEGMENTS)


def test_an_empty_name_makes_no_key() -> None:
    for make, names in ((keys.owner, [""]), (keys.incident, ["s", ""]), (keys.nudge, ["s", ""])):
        with pytest.raises(ValueError):
            make(*names)


def test_ranges() -> None:
    assert prefix_end(b"/a/") == b"/a0"
    assert mark_of("/vmhad/v1/order/s/1") == "/vmhad/v1/order"
    assert mark_covering("/vmhad/v1/order/") == mark_covering("/vmhad/v1/order/s/") == "/vmhad/v1/order"
    assert mark_covering("/vmhad/v1/ord") is None and mark_covering("/") is None


def full_incident() -> Incident:
    seen = Observation(3.5, Answer.SO, "off", "two readings \u2014 \U0001f50c")
    incident = turn(opened("h1.1", "s1", "h1", 1.25, "silent"), Event.FAILED, 2.0, "power off")
    proven = turn(incident, Event.PROVEN, 4.0, "proven")
    return Incident(
        **{**{f: getattr(proven, f) for f in proven.__slots__}, "proof": Proof("h1", "p", 3, True, 1, (seen,))}
    )


STEP = Step(
    id="h1.1.evacuate.vm/1",
    incident="h1.1",
    verb=Verb.EVACUATE,
    subject="vm/1",
    args={"target": "h2", "force": ""},
    state=StepState.STARTED,
    observed=(Observation(1.0, Answer.UNKNOWN, "", "no answer"),),
)
ORDER = Order("o1", OrderKind.PAUSE, "s1", until=1e9, by="op", why="rack move")


@pytest.mark.parametrize("value", [full_incident(), STEP, ORDER])
def test_values_come_back_equal_and_bytes_are_stable(value: object) -> None:
    raw = codec.encode(value)
    back = codec.decode(type(value), "k", raw)
    assert back == value and type(back) is type(value)
    assert codec.encode(back) == raw


def test_equal_maps_in_another_order_are_the_same_bytes() -> None:
    one = Step("s", "i", Verb.EVACUATE, "v", {"target": "h2", "force": ""})
    other = Step("s", "i", Verb.EVACUATE, "v", {"force": "", "target": "h2"})
    assert codec.encode(one) == codec.encode(other)
    assert codec.encode_names({"b", "a"}) == codec.encode_names(["a", "b"])


def test_a_newer_writer_is_read_and_an_older_one_too() -> None:
    stored = json.loads(codec.encode(STEP)) | {"colour": "red"}
    stored["observed"][0]["weight"] = 3
    assert codec.decode(Step, "k", json.dumps(stored).encode()) == STEP
    del stored["acts"], stored["because"]
    assert codec.decode(Step, "k", json.dumps(stored).encode()) == STEP


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"null", b"[]", b'{"id":1}', b"\xff\xfe", codec.encode(STEP).replace(b'"started"', b'"half"')]
)
def test_what_cannot_be_read_names_its_key(raw: bytes) -> None:
    with pytest.raises(JournalUnreadable, match="/vmhad/v1/step/s1/h1.1/x"):
        codec.decode(Step, keys.step("s1", "h1.1", "x"), raw)


@pytest.mark.parametrize("until", [inf, nan])
def test_what_would_not_come_back_is_not_written(until: float) -> None:
    with pytest.raises(ValueError):
        codec.encode(Order("o", OrderKind.PAUSE, "s", until=until))


def test_counts() -> None:
    assert codec.decode_number("k", None) == 0
    assert codec.decode_number("k", codec.encode_number(7)) == 7
    with pytest.raises(JournalUnreadable, match="k"):
        codec.decode_number("k", b"7.5")
