# SPDX-License-Identifier: Apache-2.0
"""Persistent reservations on a target that fails, forgets, or lets nobody in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports.scsi_hosts import (
    HOST,
    KEY,
    LIMIT_S,
    OPEN,
    OPERATOR_KEY,
    OTHER,
    OTHER_KEY,
    RESERVED,
    UNKNOWN,
    driver,
    looked,
)
from tests.ports.tgt import TARGET, Client, Tgt, lacks, stand_guard
from vmhad.ports import Refused, Unanswered

MARKER = "s3cret-of-fencer"

pytestmark = pytest.mark.skipif(bool(lacks()), reason=lacks() or "it is here")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Tgt]:
    target = Tgt(tmp_path, luns=2)
    try:
        target.start()
        stand_guard(target, OPERATOR_KEY, RESERVED)
        yield target
    finally:
        target.stop()


def test_no_more_is_registered_however_often_a_host_is_cut_off(guarded: Tgt) -> None:
    """To tgt every session is another nexus."""
    Client(guarded, OTHER, OTHER_KEY)
    storage = driver(guarded)
    for _ in range(4):
        Client(guarded, HOST, KEY).close()
        storage.cut(HOST)
        storage.restore(HOST)
    assert not looked(guarded).doubled


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


def test_a_portal_that_hangs_leaves_time_for_the_next(guarded: Tgt, tmp_path: Path) -> None:
    hung = Tgt(tmp_path / "hung")
    try:
        hung.start()
        hung.hang()
        Client(guarded, HOST, KEY)
        storage = driver(guarded, portals=[hung.portal, guarded.portal])
        assert storage.read(HOST)[0] is OPEN
    finally:
        hung.stop()


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


def test_a_wrong_password_is_unknown_and_never_told(guarded: Tgt, tmp_path: Path) -> None:
    guarded.require("fencer", MARKER)
    path = tmp_path / "password"
    path.touch(mode=0o600)
    for password, expected in ((MARKER, "not registered"), (MARKER + "x", "log in")):
        path.write_text(password)
        storage = driver(guarded, user="fencer", password_file=str(path))
        access, said = storage.read(HOST)
        assert access is UNKNOWN and expected in said and MARKER not in said
    with pytest.raises(Unanswered) as raised:
        storage.cut(HOST)
    assert MARKER not in str(raised.value)
