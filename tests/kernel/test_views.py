# SPDX-License-Identifier: Apache-2.0
"""What beats say of a host: who counts as a witness, when a plane is lost, and what a record that stands still says."""

from __future__ import annotations

import pytest

from vmhad.kernel.beat import DUMP_HEARD_S, PANIC_KNOWN_S, Beat, Dump, HeardBeat, PeerView, Plane, StorageBeat
from vmhad.kernel.evidence import Evidence, Seen, weigh
from vmhad.kernel.signal import Channel, Reading, Signal
from vmhad.kernel.views import Record, Views, Witness, blind_on, moved

UP, DOWN, UNKNOWN = Reading.UP, Reading.DOWN, Reading.UNKNOWN
NOW = 1000.0
STILL_S = 6.0


def beat(host: str, **of: object) -> Beat:
    return Beat(host, "boot", "run", 7, 100.0, NOW, **of)  # type: ignore[arg-type]


def witness(name: str, management: Reading, still_s: float | None = None, reads_s: float = 60.0) -> Witness:
    """Its word of host «h», half a second old, beside a peer that it sees on every plane."""
    at = NOW - 0.5
    storage = {"ceph": StorageBeat("boot", 7, still_s)} if still_s is not None else {}
    peers = {"h": PeerView({Plane.MANAGEMENT: management}, storage), "other": PeerView(dict.fromkeys(Plane, UP))}
    said = beat(name, peers=peers)
    return Witness(said, at, blind_on(said), {"ceph": at - reads_s})


def signals(*witnesses: Witness, own: HeardBeat | None = None, record: Record | None = None) -> dict[Channel, Signal]:
    """The last of each channel."""
    views = Views("h", own, witnesses, {"ceph": record} if record else {}, STILL_S)
    return {one.channel: one for one in views.signals({}, NOW) if not (one.life and one.channel is Channel.MANAGEMENT)}


@pytest.mark.parametrize(
    ("said", "reading"),
    [
        ((UP,), UP), ((UP, DOWN, DOWN), UP), ((DOWN, DOWN), DOWN), ((DOWN, DOWN, UNKNOWN), DOWN), ((DOWN,), DOWN),
        ((DOWN, UNKNOWN), UNKNOWN), ((UNKNOWN, UNKNOWN), UNKNOWN),
    ],
)  # fmt: skip
def test_a_plane_is_what_its_witnesses_say_together(said: tuple[Reading, ...], reading: Reading) -> None:
    assert signals(*(witness(f"w{i}", one) for i, one in enumerate(said)))[Channel.MANAGEMENT].reading is reading


def test_without_a_witness_nothing_is_said_and_what_was_seen_is_unknown() -> None:
    assert signals() == {}
    views = Views("h", None, (), {}, STILL_S)
    lost = list(views.signals({Channel.TENANT: None}, NOW))  # type: ignore[dict-item]
    assert [(one.channel, one.reading) for one in lost] == [(Channel.TENANT, UNKNOWN)]


def test_who_sees_none_of_its_peers_on_a_plane_is_no_witness_there() -> None:
    lonely = beat("w", peers={"h": PeerView({Plane.MANAGEMENT: DOWN}), "other": PeerView({Plane.MANAGEMENT: DOWN})})
    assert Plane.MANAGEMENT in blind_on(lonely)
    assert Channel.MANAGEMENT not in signals(Witness(lonely, NOW, blind_on(lonely), {}))


@pytest.mark.parametrize(
    ("words", "reading"),
    [
        (((5.9, 60.0), (30.0, 60.0)), UP), (((6.0, 60.0), (7.0, 60.0)), DOWN), (((6.0, 60.0), (7.0, 2.0)), UNKNOWN),
        (((30.0, 5.9),), UNKNOWN), (((30.0, 6.0),), DOWN),
    ],
)  # fmt: skip
def test_a_record_has_stopped_when_all_who_have_read_for_long_enough_say_so(
    words: tuple[tuple[float, float], ...], reading: Reading
) -> None:
    said = [witness(f"w{i}", UP, still_s, reads_s) for i, (still_s, reads_s) in enumerate(words)]
    assert signals(*said, record=Record("boot", 7, NOW - 5.9))[Channel.STORAGE].reading is reading


def test_a_record_lives_only_when_it_was_seen_to_move() -> None:
    first = moved(None, StorageBeat("boot", 7, 0.0), NOW)
    assert not first.lives, "a peer that reads a dead record for the first time has it just moved, too"
    assert moved(first, StorageBeat("boot", 7, 1.0), NOW + 1.0) == first
    after = moved(first, StorageBeat("boot", 8, 0.2), NOW + 1.0)
    assert after.lives and after.moved_at == pytest.approx(NOW + 0.8)
    late = moved(after, StorageBeat("boot", 7, 0.0), NOW + 0.1)
    assert late == after, "an older word of another peer moves nothing"


def test_leaving_or_refused_says_nothing_of_life() -> None:
    for own in (HeardBeat(beat("h", leaving=True), NOW), HeardBeat(beat("h"), NOW, "its clock is wrong")):
        told = signals(own=own)[Channel.AGENT]
        assert (told.reading, told.life) == (UNKNOWN, False)
    told = signals(own=HeardBeat(beat("h"), NOW))[Channel.AGENT]
    assert (told.reading, told.life, told.at) == (UP, True, NOW)


def hears(name: str, first_s: float, last_s: float, at: float = NOW) -> Witness:
    said = beat(name, peers={"h": PeerView(dump=Dump(first_s, last_s))})
    return Witness(said, at, blind_on(said), {})


def dump_after(evidence: Evidence, now: float, *witnesses: Witness) -> Evidence:
    views = Views("h", None, witnesses, {}, STILL_S)
    for one in views.signals(evidence.seen, now):
        evidence = weigh(evidence, one)
    return evidence


def test_a_dump_is_as_old_as_the_first_that_was_heard_of_it_and_as_new_as_the_newest() -> None:
    evidence = dump_after(Evidence("h"), NOW, hears("w1", 30.0, 4.0), hears("w2", 12.0, 2.0))
    assert evidence.seen[Channel.DUMP] == Seen(UP, NOW - 30.0, NOW - 2.0)
    assert evidence.life_at == 0.0
    # A witness that started anew knows less of it.
    evidence = dump_after(evidence, NOW + 5.0, hears("w2", 3.0, 1.0, NOW + 5.0))
    assert evidence.seen[Channel.DUMP] == Seen(UP, NOW - 30.0, NOW + 4.0)


def test_after_a_gap_it_is_another_dump() -> None:
    first = dump_after(Evidence("h"), NOW, hears("w", 30.0, 0.0))
    assert dump_after(first, NOW + PANIC_KNOWN_S).seen[Channel.DUMP].reading is UP
    forgotten = dump_after(first, NOW + PANIC_KNOWN_S + 0.1)
    assert forgotten.seen[Channel.DUMP].reading is UNKNOWN
    for before, gap_s in ((first, DUMP_HEARD_S + 0.1), (forgotten, PANIC_KNOWN_S + 3.0)):
        now = NOW + gap_s + 5.0
        assert dump_after(before, now, hears("w", 5.0, 1.0, now)).seen[Channel.DUMP] == Seen(UP, NOW + gap_s, now - 1.0)
