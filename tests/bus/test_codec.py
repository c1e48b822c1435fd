# SPDX-License-Identifier: Apache-2.0
"""A beat comes back as it was, or not at all: garbage ends in one kind of exception, and in one sentence."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import msgspec
import pytest
from beats import BEATS, busy_beat
from hypothesis import given, settings
from hypothesis import strategies as st

from vmhad.bus.codec import (
    BODY_BYTES_MAX,
    DOMAINS_MAX,
    FEW_MAX,
    LASTING,
    MOVING,
    PEERS_MAX,
    TEXT_MAX,
    Reader,
    UnreadableBeat,
    decode,
    encode,
)
from vmhad.kernel.beat import Beat, Domain, DomainState, PeerView, StorageBeat, Unit, UnitState
from vmhad.kernel.signal import Reading


@given(BEATS)
@settings(max_examples=200, deadline=None)
def test_there_and_back(beat: Beat) -> None:
    assert decode(encode(beat)) == beat


def test_libvirt_that_cannot_be_asked_is_not_a_host_without_guests() -> None:
    beat = busy_beat()
    assert decode(encode(replace(beat, domains=None))).domains is None
    assert decode(encode(replace(beat, domains={}))).domains == {}


def test_what_a_host_says_takes_one_line_and_the_beat_counts() -> None:
    lines = "fan\n12:00 host h1 CLOSED  the host serves again\x1b[2J" + "x" * 1000
    said = replace(
        busy_beat(),
        storages={"nfs\n": Reading.DOWN},
        domains={"s1": Domain(DomainState.CRASHED, lines, 3.0)},
        hardware=(lines, "fan 3"),
        units={"nova-compute": Unit(UnitState.FAILED, lines, "masked", "abc", 4.0)},
    )
    reader, body = Reader(), encode(said)
    for _ in range(2):
        beat = reader.decode("h1", body)
        line = beat.hardware[0]
        assert line.startswith("fan 12:00 host h1 CLOSED  the host serves again [2Jx")
        assert line.isprintable() and len(line) == TEXT_MAX
        assert beat.hardware == (line, "fan 3") and beat.storages == {"nfs ": Reading.DOWN}
        assert beat.domains == {"s1": Domain(DomainState.CRASHED, line, 3.0)}
        assert beat.units == {"nova-compute": Unit(UnitState.FAILED, line, "masked", "abc", 4.0)}


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_garbage(body: bytes) -> None:
    with pytest.raises(UnreadableBeat):
        decode(body)


@given(st.integers(0, 400), st.integers(0, 255))
@settings(max_examples=400, deadline=None)
def test_a_changed_byte_raises_nothing_else(place: int, byte: int) -> None:
    body = bytearray(encode(busy_beat(guests=2)))
    body[place] = byte
    try:
        decode(bytes(body))
    except UnreadableBeat as error:
        assert str(error).endswith(".")


def test_every_part_is_needed_in_full() -> None:
    body = encode(busy_beat(guests=1))
    for end in range(len(body)):
        with pytest.raises(UnreadableBeat):
            decode(body[:end])


def spoilt(beat: Beat | None = None, **changes: Any) -> bytes:
    """A beat with fields that no Beat could have, each in the part where it would stand."""
    told = {one.name: getattr(beat or busy_beat(guests=1), one.name) for one in fields(Beat)} | changes
    kept = {name: value for name, value in told.items() if value != "left out"}
    return msgspec.msgpack.encode(
        [{name: value for name, value in kept.items() if (name in LASTING) is part} for part in (False, True)]
    )


def test_every_field_is_in_one_of_the_parts() -> None:
    assert sorted((*MOVING, *LASTING)) == sorted(one.name for one in fields(Beat))


def test_a_reader_gives_again_what_did_not_change() -> None:
    reader, first = Reader(), busy_beat(count=1)
    changed = replace(busy_beat(count=4), domains={**busy_beat().domains, "s1": Domain(DomainState.CRASHED)})
    read = [reader.decode("h1", encode(one)) for one in (first, busy_beat(count=2), changed, busy_beat(count=5))]
    assert read == [first, busy_beat(count=2), changed, busy_beat(count=5)]
    assert read[1].domains is read[0].domains
    assert reader.decode("h2", encode(replace(first, domains=None))).domains is None
    assert reader.decode("h1", encode(busy_beat(count=6))).domains is read[3].domains


def test_a_reader_remembers_nothing_unreadable() -> None:
    reader, good = Reader(), busy_beat(guests=1)
    for _ in range(2):
        with pytest.raises(UnreadableBeat, match="guests"):
            reader.decode("h1", spoilt(domains={f"s{number}": Domain(DomainState.PAUSED) for number in range(2001)}))
    assert reader.decode("h1", encode(good)) == good
    with pytest.raises(UnreadableBeat, match="not a number"):
        reader.decode("h1", spoilt(sent_at=float("nan")))
    assert reader.decode("h1", encode(good)) == good


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("no host", {"host": "left out"}, "missing required field `host`"),
    ("no uptime", {"uptime_s": "left out"}, "missing required field `uptime_s`"),
    ("count a text", {"count": "7"}, "Expected `int`, got `str` - at `\\$\\[0\\].count`"),
    ("count a fraction", {"count": 1.5}, "Expected `int`, got `float`"),
    ("leaving a number", {"leaving": 1}, "Expected `bool`, got `int`"),
    ("an unknown reading", {"services": {"libvirtd": "SECRET"}}, "a word that is not known here - at `\\$.services"),
    ("an unknown guest", {"domains": {"s": {"state": "SECRET"}}}, "a word that is not known here - at `\\$.domains"),
    ("domains a list", {"domains": []}, "Expected `object \\| null`, got `array`"),
    ("a negative count", {"count": -1}, "its count or its uptime is negative"),
    ("a negative uptime", {"uptime_s": -0.5}, "its count or its uptime is negative"),
    ("uptime for ever", {"uptime_s": float("inf")}, "one of its times is not a number"),
    ("sent at no time", {"sent_at": float("nan")}, "one of its times is not a number"),
    ("an empty host", {"host": ""}, "its host is no name"),
    ("a host of two lines", {"host": "a\nb"}, "its host is no name"),
    ("a long run", {"run": "r" * 256}, "its run is no name"),
]


@pytest.mark.parametrize("changes, says", [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_no_beat(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UnreadableBeat, match=says) as caught:
        decode(spoilt(**changes))
    assert "SECRET" not in str(caught.value)


def test_a_field_of_a_newer_agent_is_passed_over() -> None:
    assert decode(spoilt(moon_phase="full")) == busy_beat(guests=1)


def test_a_field_that_an_older_agent_does_not_know_has_its_default() -> None:
    assert decode(spoilt(units="left out")) == replace(busy_beat(guests=1), units={})


@pytest.mark.parametrize("agent", [True, False, None])
def test_whether_a_guest_agent_is_there_goes_with_its_guest(agent: bool | None) -> None:
    beat = replace(busy_beat(), domains={"s1": Domain(DomainState.RUNNING, "booted", 3.0, agent)})
    assert decode(encode(beat)) == beat


def test_a_unit_since_for_ever() -> None:
    with pytest.raises(UnreadableBeat, match="not a number"):
        encode(replace(busy_beat(), units={"libvirtd": Unit(UnitState.FAILED, since_s=float("inf"))}))


def test_a_guest_since_for_ever() -> None:
    beat = replace(busy_beat(), domains={"s1": Domain(DomainState.RUNNING, "", float("inf"))})
    with pytest.raises(UnreadableBeat, match="not a number"):
        encode(beat)


RECORDS = {f"st{number}": StorageBeat("b", 1, 0.0) for number in range(FEW_MAX + 1)}
TOO_MUCH: list[tuple[str, dict[str, Any], str]] = [
    ("guests", {"domains": {f"s{number}": Domain(DomainState.PAUSED) for number in range(DOMAINS_MAX + 1)}}, "guests"),
    ("peers", {"peers": {f"h{number}": PeerView() for number in range(PEERS_MAX + 1)}}, "peers"),
    ("services", {"services": {f"u{number}": Reading.UP for number in range(FEW_MAX + 1)}}, "services"),
    ("storages", {"storages": {f"u{number}": Reading.UP for number in range(FEW_MAX + 1)}}, "storages"),
    ("units", {"units": {f"u{number}": Unit(UnitState.RUNS) for number in range(FEW_MAX + 1)}}, "units"),
    ("complaints", {"hardware": ("fan",) * (FEW_MAX + 1)}, "complaints"),
    ("records", {"peers": {"h2": PeerView({}, RECORDS)}}, "records of one peer"),
    ("bytes", {"hardware": ("x" * BODY_BYTES_MAX,)}, "bytes"),
]


@pytest.mark.parametrize("changes, says", [row[1:] for row in TOO_MUCH], ids=[row[0] for row in TOO_MUCH])
def test_too_much_is_neither_sent_nor_taken(changes: dict[str, Any], says: str) -> None:
    beat = replace(busy_beat(guests=1), **changes)
    with pytest.raises(UnreadableBeat, match=rf"it has \d+ {says}, and may have \d+"):
        encode(beat)
    with pytest.raises(UnreadableBeat, match=rf"it has \d+ {says}, and may have \d+"):
        decode(spoilt(beat))


def test_the_most_that_is_allowed_fits() -> None:
    guests = {
        f"0d6cbd0e-4f0c-4c1e-9d6e-{number:012}": Domain(DomainState.RUNNING, "booted", 1e6) for number in range(2000)
    }
    beat = replace(busy_beat(), domains=guests)
    assert decode(encode(beat)) == beat
