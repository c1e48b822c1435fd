# SPDX-License-Identifier: Apache-2.0
"""Persistent reservations on a real target, where something is not as it should be: what nobody saw is never CUT."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports.tgt import FENCER, TARGET, Client, Tgt, free_port, lacks, stand_guard
from vmhad.drivers.storage import scsi_bytes as scsi
from vmhad.drivers.storage.iscsi_session import Portal, Session
from vmhad.drivers.storage.scsi_bytes import Kind, Out
from vmhad.drivers.storage.scsi_lun import Lun, Seen
from vmhad.drivers.storage.scsi_pr import ScsiPr
from vmhad.drivers.storage.scsi_settings import PREFIX, marks_of
from vmhad.kernel.signal import Access
from vmhad.ports import Refused, Unanswered

OPEN, CUT, UNKNOWN = Access.OPEN, Access.CUT, Access.UNKNOWN
HOST, OTHER, KEY, OTHER_KEY, OPERATOR_KEY = "h", "other", 0xA1, 0xB1, 0x0E
KEYS = {HOST: (hex(KEY),), OTHER: (hex(OTHER_KEY),)}
LIMIT_S = 3.0
RESERVED = Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY
MARKER = "s3cret-of-fencer"

pytestmark = pytest.mark.skipif(bool(lacks()), reason=lacks() or "it is here")


@pytest.fixture
def tgt(tmp_path: Path) -> Iterator[Tgt]:
    target = Tgt(tmp_path, luns=2)
    try:
        target.start()
        yield target
    finally:
        target.stop()


@pytest.fixture
def guarded(tgt: Tgt) -> Tgt:
    stand_guard(tgt, OPERATOR_KEY, RESERVED)
    return tgt


def driver(tgt: Tgt, **changes: object) -> ScsiPr:
    said = {"portals": [tgt.portal], "target": TARGET, "luns": list(tgt.luns), "initiator": FENCER}
    return ScsiPr("lun-a", {key: value for key, value in (said | changes).items() if value}, KEYS, LIMIT_S)


def looked(tgt: Tgt, lun: int = 1) -> Seen:
    with Session(Portal(tgt.portal, TARGET, FENCER), time.monotonic() + LIMIT_S) as session:
        return Lun(session, lun).look()


def acts(tgt: Tgt, action: Out, key: int, action_key: int = 0, kind: int = 0, lun: int = 1) -> None:
    """By somebody else than the driver."""
    with Session(Portal(tgt.portal, TARGET, FENCER), time.monotonic() + LIMIT_S) as session:
        Lun(session, lun).look()
        registered = session.command(lun, scsi.reserve_out(Out.REGISTER_AND_IGNORE), scsi.parameters(0, key))
        assert registered.status == scsi.GOOD
        assert session.command(lun, scsi.reserve_out(action, kind), scsi.parameters(key, action_key)).status == 0


def test_a_host_that_was_never_registered_is_not_cut_off(guarded: Tgt) -> None:
    """Its nexuses may be registered with a key that nobody told us."""
    before = looked(guarded)
    storage = driver(guarded)
    access, said = storage.read(HOST)
    assert access is UNKNOWN and "not registered" in said
    with pytest.raises(Refused, match="not registered"):
        storage.cut(HOST)
    assert looked(guarded) == before


def test_a_host_registered_on_some_luns_alone_is_not_cut_off(guarded: Tgt) -> None:
    client = Client(guarded, HOST, KEY, luns=(1,))
    storage = driver(guarded)
    with pytest.raises(Refused, match="LUN 2 .* not registered"):
        storage.cut(HOST)
    assert client.writes()


def test_the_cut_is_known_to_an_engine_that_did_not_make_it(guarded: Tgt) -> None:
    Client(guarded, HOST, KEY)
    driver(guarded).cut(HOST)
    assert driver(guarded).read(HOST)[0] is CUT


def test_no_reservation_is_taken_unless_that_was_said(tgt: Tgt) -> None:
    client = Client(tgt, HOST, KEY)
    storage = driver(tgt)
    assert storage.read(HOST)[0] is OPEN
    with pytest.raises(Refused, match="reserve = never"):
        storage.cut(HOST)
    assert client.writes() and not looked(tgt).reservation.kind


def test_a_reservation_is_taken_where_that_was_said(tgt: Tgt) -> None:
    client, other = Client(tgt, HOST, KEY), Client(tgt, OTHER, OTHER_KEY)
    storage = driver(tgt, reserve="at-cut")
    storage.cut(HOST)
    assert storage.read(HOST)[0] is CUT and not client.writes()
    assert other.writes() and storage.read(OTHER)[0] is OPEN
    storage.restore(HOST)
    assert looked(tgt).reservation.keeps_out, "else the host's old nexus would write again"
    assert not client.writes() and storage.read(HOST)[0] is OPEN


def test_no_reservation_is_taken_that_would_cut_off_another_host(tgt: Tgt) -> None:
    client = Client(tgt, HOST, KEY)
    storage = driver(tgt, reserve="at-cut")
    with pytest.raises(Refused, match="cut off other too"):
        storage.cut(HOST)
    assert client.writes()


def test_a_reservation_that_the_host_itself_holds_stays(tgt: Tgt) -> None:
    client, other = Client(tgt, HOST, KEY), Client(tgt, OTHER, OTHER_KEY)
    for lun in tgt.luns:
        Lun(client.session, lun).reserve(KEY, RESERVED)
    storage = driver(tgt)
    storage.cut(HOST)
    assert storage.read(HOST)[0] is CUT and looked(tgt).reservation.kind == RESERVED
    assert not client.writes() and other.writes()


def test_a_reservation_that_all_registrants_hold_is_as_good(tgt: Tgt) -> None:
    """tgt loses one of that type with the nexus that took it, so that none is ever taken here."""
    stand_guard(tgt, OPERATOR_KEY, Kind.WRITE_EXCLUSIVE_ALL_REGISTRANTS)
    client, other = Client(tgt, HOST, KEY), Client(tgt, OTHER, OTHER_KEY)
    storage = driver(tgt)
    storage.cut(HOST)
    assert storage.read(HOST)[0] is CUT and not client.writes() and other.writes()
    storage.restore(HOST)
    assert storage.read(HOST)[0] is OPEN and not client.writes()


def test_a_reservation_for_its_holder_alone_is_left_to_its_owner(tgt: Tgt) -> None:
    Client(tgt, HOST, KEY)
    acts(tgt, Out.RESERVE, OPERATOR_KEY, kind=1)
    storage = driver(tgt, reserve="at-cut", luns=[1])
    assert storage.read(HOST)[0] is UNKNOWN
    with pytest.raises(Refused, match="type 1"):
        storage.cut(HOST)


def test_a_host_that_registers_itself_again_is_open_and_can_be_cut_off_again(guarded: Tgt) -> None:
    """No target can refuse that. An agent that looks for the mark first does not do it."""
    client = Client(guarded, HOST, KEY)
    storage = driver(guarded)
    storage.cut(HOST)
    client.register(KEY)
    access, said = storage.read(HOST)
    assert access is OPEN and "registered" in said and client.writes()
    storage.cut(HOST)
    assert storage.read(HOST)[0] is CUT and not client.writes()


def test_a_cut_that_was_broken_off_is_unknown_and_completed_by_the_next(guarded: Tgt) -> None:
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


def test_somebody_who_ends_all_reservations_ends_the_proof(guarded: Tgt) -> None:
    Client(guarded, HOST, KEY)
    storage = driver(guarded)
    storage.cut(HOST)
    clear = 0x03
    with Session(Portal(guarded.portal, TARGET, FENCER), time.monotonic() + LIMIT_S) as session:
        lun = Lun(session, 1)
        lun.look()
        lun.register(OPERATOR_KEY)
        cdb = bytes((0x5F, clear)) + scsi.reserve_out(Out.RESERVE)[2:]
        assert session.command(1, cdb, scsi.parameters(OPERATOR_KEY, 0)).status == scsi.GOOD
    access, said = storage.read(HOST)
    assert access is OPEN and "no reservation" in said


def test_a_target_that_forgot_all_by_a_restart_is_open(guarded: Tgt) -> None:
    """tgt keeps registrations in memory, and takes none that are to outlive it."""
    Client(guarded, HOST, KEY)
    storage = driver(guarded)
    storage.cut(HOST)
    guarded.kill()
    assert storage.read(HOST)[0] is UNKNOWN
    guarded.start()
    access, said = storage.read(HOST)
    assert access is OPEN and "no reservation" in said
    with pytest.raises(Refused):
        storage.cut(HOST)


def test_a_lun_that_is_missing_is_unknown_and_the_others_are_cut_off(guarded: Tgt) -> None:
    """tgt answers for it by another LUN."""
    client = Client(guarded, HOST, KEY)
    storage = driver(guarded)
    guarded.remove(2)
    assert storage.read(HOST)[0] is OPEN, "by the LUN that is there"
    with pytest.raises(Unanswered, match="LUN 2 .* no such disk"):
        storage.cut(HOST)
    access, said = storage.read(HOST)
    assert access is UNKNOWN and "LUN 2" in said and not client.writes()


def test_two_engines_that_cut_at_once(guarded: Tgt) -> None:
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


def test_a_portal_that_is_dead_leaves_time_for_the_next(guarded: Tgt) -> None:
    Client(guarded, HOST, KEY)
    storage = driver(guarded, portals=[f"127.0.0.1:{free_port()}", guarded.portal])
    storage.cut(HOST)
    assert storage.read(HOST)[0] is CUT


def test_a_target_that_hangs_leaves_time_to_cut_the_host_off_another(guarded: Tgt, tmp_path: Path) -> None:
    second = Tgt(tmp_path / "second")
    try:
        second.start()
        stand_guard(second, OPERATOR_KEY, RESERVED)
        Client(guarded, HOST, KEY)
        client = Client(second, HOST, KEY)
        storage = driver(
            guarded, portals=None, target=None, luns=None,
            urls=[f"iscsi://{guarded.portal}/{TARGET}/1", f"iscsi://{second.portal}/{TARGET}/1"],
        )  # fmt: skip
        guarded.hang()
        began = time.monotonic()
        with pytest.raises(Unanswered):
            storage.cut(HOST)
        assert time.monotonic() - began < LIMIT_S + 0.3
        assert not client.writes() and storage.read(HOST)[0] is UNKNOWN
        guarded.go_on()
    finally:
        second.stop()


def test_the_other_host_s_commands_survive_the_reset(guarded: Tgt) -> None:
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


def test_a_wrong_password_is_unknown_and_never_told(guarded: Tgt) -> None:
    guarded.require("fencer", MARKER)
    for password, expected in ((MARKER, "not registered"), (MARKER + "x", "log in")):
        storage = driver(guarded, user="fencer", password=password)
        access, said = storage.read(HOST)
        assert access is UNKNOWN and expected in said and MARKER not in said
    with pytest.raises(Unanswered) as raised:
        driver(guarded, user="fencer", password=MARKER + "x").cut(HOST)
    assert MARKER not in str(raised.value)
