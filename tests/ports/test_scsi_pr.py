# SPDX-License-Identifier: Apache-2.0
"""Persistent reservations on real targets where something is not as it should be: what nobody saw is never CUT."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports.lio import Lio
from tests.ports.lio import lacks as lio_lacks
from tests.ports.scsi_hosts import (
    CLEAR,
    CUT,
    HOST,
    KEY,
    OPEN,
    OPERATOR_KEY,
    OTHER,
    OTHER_KEY,
    RELEASE,
    RESERVED,
    UNKNOWN,
    acts,
    driver,
    looked,
    somebody,
)
from tests.ports.tgt import (
    TRIES,
    WRITE_BYTES,
    Client,
    Target,
    Tgt,
    free_port,
    lacks,
    stand_guard,
    to_be_sent_again,
    write,
)
from vmhad.drivers.storage.iscsi_session import Session
from vmhad.drivers.storage.scsi_lun import Lun
from vmhad.drivers.storage.scsi_pr import ScsiPr
from vmhad.ports import Refused, Unanswered
from vmhad.scsi import scsi_bytes as scsi
from vmhad.scsi.marks import PREFIX, marks_of
from vmhad.scsi.scsi_bytes import In, Kind, Out

pytestmark = pytest.mark.skipif(bool(lacks()), reason=lacks() or "it is here")


@pytest.fixture(scope="module")
def lio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lio]:
    """It takes seconds to start, so that all tests share one."""
    if lio_lacks():
        pytest.skip(lio_lacks())
    target = Lio(tmp_path_factory.mktemp("lio"), luns=2)
    try:
        target.start()
        yield target
    finally:
        target.stop()


@pytest.fixture
def tgt(tmp_path: Path) -> Iterator[Tgt]:
    """A fresh one, for what is done to the target itself."""
    target = Tgt(tmp_path, luns=2)
    try:
        target.start()
        yield target
    finally:
        target.stop()


@pytest.fixture(params=["tgt", "lio"])
def target(request: pytest.FixtureRequest) -> Target:
    """Nothing is registered there."""
    found: Target = request.getfixturevalue(request.param)
    if request.param == "lio":
        for lun in found.luns:
            acts(found, CLEAR, OPERATOR_KEY, lun=lun)
    return found


@pytest.fixture
def guarded(target: Target) -> Target:
    stand_guard(target, OPERATOR_KEY, RESERVED)
    return target


def test_a_host_that_was_never_registered_is_not_cut_off(guarded: Target) -> None:
    """Its nexuses may be registered with a key that nobody told us."""
    before = looked(guarded)
    storage = driver(guarded)
    access, said = storage.read(HOST)
    assert access is UNKNOWN and "not registered" in said
    with pytest.raises(Refused, match="not registered"):
        storage.cut(HOST)
    assert looked(guarded) == before


def test_a_host_registered_on_some_luns_alone_is_not_cut_off(guarded: Target) -> None:
    client = Client(guarded, HOST, KEY, luns=(1,))
    storage = driver(guarded)
    with pytest.raises(Refused, match="LUN 2 .* not registered"):
        storage.cut(HOST)
    assert client.writes()


def test_the_cut_is_known_to_an_engine_that_did_not_make_it(guarded: Target) -> None:
    Client(guarded, HOST, KEY)
    driver(guarded).cut(HOST)
    assert driver(guarded).read(HOST)[0] is CUT


def test_no_reservation_is_taken_unless_that_was_said(target: Target) -> None:
    client = Client(target, HOST, KEY)
    storage = driver(target)
    assert storage.read(HOST)[0] is OPEN
    with pytest.raises(Refused, match="reserve = never"):
        storage.cut(HOST)
    assert client.writes() and not looked(target).reservation.kind


def test_a_reservation_is_taken_where_that_was_said(target: Target) -> None:
    client, other = Client(target, HOST, KEY), Client(target, OTHER, OTHER_KEY)
    storage = driver(target, reserve="at-cut")
    storage.cut(HOST)
    assert storage.read(HOST)[0] is CUT and not client.writes()
    assert other.writes() and storage.read(OTHER)[0] is OPEN
    storage.restore(HOST)
    assert looked(target).reservation.keeps_out, "else the host's old nexus would write again"
    assert not client.writes() and storage.read(HOST)[0] is OPEN


def test_no_reservation_is_taken_that_would_cut_off_another_host(target: Target) -> None:
    client = Client(target, HOST, KEY)
    storage = driver(target, reserve="at-cut")
    with pytest.raises(Refused, match="cut off other too"):
        storage.cut(HOST)
    assert client.writes()


def test_a_reservation_that_the_host_itself_holds_stays(target: Target) -> None:
    client, other = Client(target, HOST, KEY), Client(target, OTHER, OTHER_KEY)
    for lun in target.luns:
        Lun(client.session, lun).reserve(KEY, RESERVED)
    storage = driver(target)
    storage.cut(HOST)
    assert storage.read(HOST)[0] is CUT and looked(target).reservation.kind == RESERVED
    assert not client.writes() and other.writes()


def test_a_reservation_that_all_registrants_hold_is_as_good(target: Target) -> None:
    """tgt loses one of that type with the nexus that took it, so that none is ever taken here."""
    stand_guard(target, OPERATOR_KEY, Kind.WRITE_EXCLUSIVE_ALL_REGISTRANTS)
    client, other = Client(target, HOST, KEY), Client(target, OTHER, OTHER_KEY)
    storage = driver(target)
    storage.cut(HOST)
    assert storage.read(HOST)[0] is CUT and not client.writes() and other.writes()
    storage.restore(HOST)
    assert storage.read(HOST)[0] is OPEN and not client.writes()


def test_a_reservation_for_its_holder_alone_is_left_to_its_owner(target: Target) -> None:
    Client(target, HOST, KEY)
    acts(target, Out.RESERVE, OPERATOR_KEY, kind=1)
    storage = driver(target, reserve="at-cut", luns=[1])
    assert storage.read(HOST)[0] is UNKNOWN
    with pytest.raises(Refused, match="type 1"):
        storage.cut(HOST)


def test_a_host_that_registers_itself_again_is_open_and_can_be_cut_off_again(guarded: Target) -> None:
    """No target can refuse that. An agent that looks for the mark first does not do it."""
    client = Client(guarded, HOST, KEY)
    storage = driver(guarded)
    storage.cut(HOST)
    client.register(KEY)
    access, said = storage.read(HOST)
    assert access is OPEN and "registered" in said and client.writes()
    storage.cut(HOST)
    assert storage.read(HOST)[0] is CUT and not client.writes()


def test_a_cut_that_was_broken_off_is_unknown_and_completed_by_the_next(guarded: Target) -> None:
    """Its key is gone, and perhaps not what was queued."""
    client = Client(guarded, HOST, KEY)
    marks = marks_of(HOST, PREFIX)
    for lun in guarded.luns:
        acts(guarded, Out.PREEMPT, marks.begun, KEY, RESERVED, lun)
    storage = driver(guarded)
    access, said = storage.read(HOST)
    assert access is UNKNOWN and "not complete" in said
    storage.cut(HOST)
    assert storage.read(HOST)[0] is CUT and not client.writes()
    storage.restore(HOST)
    assert storage.read(HOST)[0] is OPEN and looked(guarded).keys & marks.all == {marks.opened}


def test_a_cut_is_not_believed_while_another_one_is_begun(guarded: Target) -> None:
    """By another engine, which may just have taken a key away that came back, and not ended what it had queued."""
    Client(guarded, HOST, KEY)
    storage = driver(guarded)
    storage.cut(HOST)
    with somebody(guarded) as session:
        lun = Lun(session, 1)
        lun.look()
        lun.register(marks_of(HOST, PREFIX).begun)
    access, said = storage.read(HOST)
    assert access is UNKNOWN and "not complete" in said
    storage.cut(HOST)
    assert storage.read(HOST)[0] is CUT


def test_an_engine_whose_own_registration_was_taken_away_registers_anew(guarded: Target) -> None:
    client, other = Client(guarded, HOST, KEY), Client(guarded, OTHER, OTHER_KEY)
    storage = driver(guarded)
    storage.cut(HOST)
    for lun in guarded.luns:
        acts(guarded, Out.PREEMPT, OPERATOR_KEY + 1, marks_of(HOST, PREFIX).actor, RESERVED, lun)
    assert storage.read(HOST)[0] is CUT and not client.writes()
    storage.cut(OTHER)
    assert storage.read(OTHER)[0] is CUT and not other.writes()


def test_a_mark_that_was_taken_away_is_no_cut(guarded: Target) -> None:
    client = Client(guarded, HOST, KEY)
    storage = driver(guarded)
    storage.cut(HOST)
    acts(guarded, Out.PREEMPT, OPERATOR_KEY + 1, marks_of(HOST, PREFIX).cut, RESERVED)
    assert storage.read(HOST)[0] is UNKNOWN and not client.writes()


def test_somebody_who_ends_all_reservations_ends_the_proof(guarded: Target) -> None:
    Client(guarded, HOST, KEY)
    storage = driver(guarded)
    storage.cut(HOST)
    acts(guarded, CLEAR, OPERATOR_KEY)
    access, said = storage.read(HOST)
    assert access is OPEN and "no reservation" in said


def test_a_reservation_that_its_holder_gives_up_ends_the_proof(target: Target) -> None:
    client, other = Client(target, HOST, KEY), Client(target, OTHER, OTHER_KEY)
    with somebody(target) as session:
        for number in target.luns:
            lun = Lun(session, number)
            lun.look()
            lun.register(OPERATOR_KEY)
            lun.reserve(OPERATOR_KEY, RESERVED)
        storage = driver(target, reserve="at-cut")
        storage.cut(HOST)
        assert storage.read(HOST)[0] is CUT
        Lun(session, 1).look()
        cdb = bytes((0x5F, RELEASE)) + scsi.reserve_out(Out.RESERVE, RESERVED)[2:]
        assert session.command(1, cdb, scsi.parameters(OPERATOR_KEY, 0)).status == scsi.GOOD
    assert storage.read(HOST)[0] is OPEN and client.writes()
    storage.cut(HOST)
    assert storage.read(HOST)[0] is CUT and not client.writes() and other.writes()


def test_two_engines_that_cut_at_once(guarded: Target) -> None:
    """Neither may say CUT for the other's half."""
    for _ in range(5):
        client, other = Client(guarded, HOST, KEY), Client(guarded, OTHER, OTHER_KEY)
        engines = [driver(guarded) for _ in range(2)]
        threads = [threading.Thread(target=insists, args=(engine,)) for engine in engines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {engine.read(HOST)[0] for engine in engines} == {CUT}
        assert not client.writes() and other.writes()
        engines[0].restore(HOST)


def insists(storage: ScsiPr) -> None:
    """As the engine's loop does."""
    until = time.monotonic() + 10.0
    while storage.read(HOST)[0] is not CUT and time.monotonic() < until:
        try:
            storage.cut(HOST)
        except Unanswered:
            continue


def test_a_portal_that_is_dead_leaves_time_for_the_next(guarded: Target) -> None:
    Client(guarded, HOST, KEY)
    storage = driver(guarded, portals=[f"127.0.0.1:{free_port()}", guarded.portal])
    storage.cut(HOST)
    assert storage.read(HOST)[0] is CUT


def test_the_other_host_s_commands_survive_the_reset(guarded: Target) -> None:
    """LUN RESET ends them; whoever sends again what was ended loses nothing."""
    Client(guarded, HOST, KEY)
    other = Client(guarded, OTHER, OTHER_KEY, allowed_s=30.0)
    storage = driver(guarded)
    failed: list[int] = []
    over = threading.Event()

    def writes() -> None:
        number = 0
        while not over.is_set():
            number += 1
            if not other.writes(number=number):
                failed.append(number)

    thread = threading.Thread(target=writes)
    thread.start()
    try:
        for _ in range(10):
            storage.cut(HOST)
            storage.restore(HOST)
            Client(guarded, HOST, KEY).close()
    finally:
        over.set()
        thread.join()
    assert not failed


@pytest.mark.parametrize(("kind", "persists"), [("tgt", False), ("lio", True)])
def test_all_outlives_a_power_cut_of_a_target_that_can_do_that(
    request: pytest.FixtureRequest, kind: str, persists: bool
) -> None:
    """Who registers without it would take it from everybody's registrations."""
    target: Target = request.getfixturevalue(kind)
    Client(target, HOST, KEY)
    Client(target, OTHER, OTHER_KEY)
    driver(target, reserve="at-cut").cut(HOST)
    with somebody(target) as session:
        Lun(session, 1).look()
        answer = session.command(1, scsi.reserve_in(In.REPORT_CAPABILITIES, 8), wanted=8)
    assert bool(answer.data[3] & 0x01) == persists == scsi.can_persist(answer.data)


def test_a_session_that_nobody_registered_is_cut_off_with_its_host(target: Target) -> None:
    """As QEMU opens by itself. It writes until a cut takes the reservation, and what it had queued ends with that."""
    Client(target, HOST, KEY)
    other = Client(target, OTHER, OTHER_KEY)
    storage = driver(target, reserve="at-cut")

    def takes(own: Session) -> bool:
        answers = (own.command(1, write(0, data), data) for _ in range(TRIES))
        return next(answer for answer in answers if not to_be_sent_again(answer)).status == scsi.GOOD

    data = bytes(WRITE_BYTES)
    with somebody(target) as own:
        assert takes(own)
        storage.cut(HOST)
        assert storage.read(HOST)[0] is CUT and not takes(own) and other.writes()
        storage.restore(HOST)
        assert not takes(own)
