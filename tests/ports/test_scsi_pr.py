# SPDX-License-Identifier: Apache-2.0
"""Persistent reservations on real targets where something is not as it should be: what nobody saw is never CUT."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports.lio import Lio
from tests.ports.lio import lacks as lio_lacks
from tests.ports.tgt import FENCER, TARGET, Client, Target, Tgt, free_port, lacks, stand_guard
from vmhad.drivers.storage import scsi_bytes as scsi
from vmhad.drivers.storage.iscsi_session import Portal, Session
from vmhad.drivers.storage.scsi_bytes import In, Kind, Out
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
CLEAR = 0x03
COUNT = itertools.count()

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


@pytest.fixture
def guarded_tgt(tgt: Tgt) -> Tgt:
    stand_guard(tgt, OPERATOR_KEY, RESERVED)
    return tgt


def driver(target: Target, /, **changes: object) -> ScsiPr:
    said = {"portals": [target.portal], "target": TARGET, "luns": list(target.luns), "initiator": FENCER}
    return ScsiPr("lun-a", {key: value for key, value in (said | changes).items() if value}, KEYS, LIMIT_S)


@contextmanager
def somebody(target: Target) -> Iterator[Session]:
    """Who has nothing to do with the driver. Each has a name of its own."""
    name = f"iqn.2026-01.example.vmhad:somebody-{next(COUNT)}"
    with Session(Portal(target.portal, TARGET, name), time.monotonic() + LIMIT_S) as session:
        yield session


def looked(target: Target, lun: int = 1) -> Seen:
    with somebody(target) as session:
        return Lun(session, lun).look()


def acts(target: Target, action: int, key: int, action_key: int = 0, kind: int = 0, lun: int = 1) -> None:
    with somebody(target) as session:
        Lun(session, lun).look()
        for cdb, said in (
            (scsi.reserve_out(Out.REGISTER_AND_IGNORE), scsi.parameters(0, key)),
            (bytes((0x5F, action)) + scsi.reserve_out(Out.RESERVE, kind)[2:], scsi.parameters(key, action_key)),
        ):
            assert session.command(lun, cdb, said).status == scsi.GOOD


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


def test_a_target_that_forgot_all_by_a_restart_is_open(guarded_tgt: Tgt) -> None:
    """tgt keeps registrations in memory, and takes none that are to outlive it."""
    Client(guarded_tgt, HOST, KEY)
    storage = driver(guarded_tgt)
    storage.cut(HOST)
    guarded_tgt.kill()
    assert storage.read(HOST)[0] is UNKNOWN
    guarded_tgt.start()
    access, said = storage.read(HOST)
    assert access is OPEN and "no reservation" in said
    with pytest.raises(Refused):
        storage.cut(HOST)


def test_a_lun_that_is_missing_is_unknown_and_the_others_are_cut_off(guarded_tgt: Tgt) -> None:
    """tgt answers for it by another LUN."""
    client = Client(guarded_tgt, HOST, KEY)
    storage = driver(guarded_tgt)
    guarded_tgt.remove(2)
    assert storage.read(HOST)[0] is OPEN, "by the LUN that is there"
    with pytest.raises(Unanswered, match="LUN 2 .* no such disk"):
        storage.cut(HOST)
    access, said = storage.read(HOST)
    assert access is UNKNOWN and "LUN 2" in said and not client.writes()


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


def test_a_target_that_hangs_leaves_time_to_cut_the_host_off_another(guarded_tgt: Tgt, tmp_path: Path) -> None:
    second = Tgt(tmp_path / "second")
    try:
        second.start()
        stand_guard(second, OPERATOR_KEY, RESERVED)
        Client(guarded_tgt, HOST, KEY)
        client = Client(second, HOST, KEY)
        storage = driver(
            guarded_tgt, portals=None, target=None, luns=None,
            urls=[f"iscsi://{guarded_tgt.portal}/{TARGET}/1", f"iscsi://{second.portal}/{TARGET}/1"],
        )  # fmt: skip
        guarded_tgt.hang()
        began = time.monotonic()
        with pytest.raises(Unanswered):
            storage.cut(HOST)
        assert time.monotonic() - began < LIMIT_S + 0.3
        assert not client.writes() and storage.read(HOST)[0] is UNKNOWN
        guarded_tgt.go_on()
    finally:
        second.stop()


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


def test_a_wrong_password_is_unknown_and_never_told(guarded_tgt: Tgt, tmp_path: Path) -> None:
    guarded_tgt.require("fencer", MARKER)
    path = tmp_path / "password"
    path.touch(mode=0o600)
    for password, expected in ((MARKER, "not registered"), (MARKER + "x", "log in")):
        path.write_text(password)
        storage = driver(guarded_tgt, user="fencer", password_file=str(path))
        access, said = storage.read(HOST)
        assert access is UNKNOWN and expected in said and MARKER not in said
    with pytest.raises(Unanswered) as raised:
        storage.cut(HOST)
    assert MARKER not in str(raised.value)


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
