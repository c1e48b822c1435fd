# SPDX-License-Identifier: Apache-2.0
"""The bytes of persistent reservations: what is sent is what SPC-4 says, and no answer is read for more than it is."""

from __future__ import annotations

import pytest

from vmhad.scsi import scsi_bytes as scsi
from vmhad.scsi.scsi_bytes import Garbled, In, Keys, Kind, Out, Reservation

NONE = bytes.fromhex("00000007 00000000")
TWO = bytes.fromhex("00000102 00000010 00000000000000a1 766d0c0102030405")
HELD = bytes.fromhex("00000009 00000010 00000000000000b2 00000000 00 05 0000")


@pytest.mark.parametrize(
    ("cdb", "said"),
    [
        (scsi.inquiry(), "12 00 00 00 24 00"),
        (scsi.reserve_in(In.READ_KEYS, 0xFFF8), "5e 00 00 00 00 00 00 ff f8 00"),
        (scsi.reserve_in(In.READ_RESERVATION, 24), "5e 01 00 00 00 00 00 00 18 00"),
        (scsi.reserve_out(Out.REGISTER_AND_IGNORE), "5f 06 00 00 00 00 00 00 18 00"),
        (scsi.reserve_out(Out.RESERVE, Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY), "5f 01 05 00 00 00 00 00 18 00"),
        (scsi.reserve_out(Out.PREEMPT, Kind.WRITE_EXCLUSIVE_ALL_REGISTRANTS), "5f 04 07 00 00 00 00 00 18 00"),
        (scsi.reserve_out(Out.PREEMPT_AND_ABORT, 5), "5f 05 05 00 00 00 00 00 18 00"),
        (scsi.reserve_in(In.REPORT_CAPABILITIES, 8), "5e 02 00 00 00 00 00 00 08 00"),
        (scsi.parameters(0xB2, 0xA1), "00000000000000b2 00000000000000a1 00000000 00 00 0000"),
        (scsi.parameters(0, 0xA1, persists=True), "0000000000000000 00000000000000a1 00000000 01 00 0000"),
    ],
)
def test_what_is_sent(cdb: bytes, said: str) -> None:
    assert cdb == bytes.fromhex(said)


def test_what_is_registered() -> None:
    assert scsi.keys_of(NONE) == Keys(7, ())
    assert scsi.keys_of(TWO) == Keys(0x102, (0xA1, 0x766D0C0102030405))
    assert scsi.keys_of(TWO + b"\xff" * 40) == scsi.keys_of(TWO), "what comes after is not part of the answer"


def test_what_is_reserved() -> None:
    assert scsi.reservation_of(NONE) == Reservation(7)
    assert scsi.reservation_of(HELD) == Reservation(9, 0xB2, 5)
    assert not scsi.reservation_of(NONE).keeps_out


@pytest.mark.parametrize("kind", range(16))
def test_only_reservations_for_registrants_keep_out_who_is_none_of_them(kind: int) -> None:
    """By 1 and 3 the holder alone may write: also those who are registered would be cut off."""
    assert Reservation(1, 0xB2, kind).keeps_out == (kind in {5, 6, 7, 8})


@pytest.mark.parametrize("answer", [b"", b"\xff" * 65528, TWO[:-1], TWO[:12], b"\0\0\0\1\0\0\0\7" + bytes(7)])
def test_no_answer_is_read_for_no_keys(answer: bytes) -> None:
    with pytest.raises(Garbled):
        scsi.keys_of(answer)


@pytest.mark.parametrize(
    "answer", [b"", b"\xff" * 24, HELD[:-1], b"\0\0\0\1\0\0\0\x08" + bytes(8), HELD[:21] + b"\x15" + HELD[22:]]
)
def test_no_answer_is_read_for_no_reservation(answer: bytes) -> None:
    with pytest.raises(Garbled):
        scsi.reservation_of(answer)


@pytest.mark.parametrize(("first", "disk"), [(0x00, True), (0x0C, False), (0x20, False), (0x7F, False), (0xFF, False)])
def test_only_a_disk_that_is_there_is_one(first: int, disk: bool) -> None:
    assert scsi.is_disk(bytes((first,)) + bytes(35)) == disk


@pytest.mark.parametrize(
    ("answer", "persists"),
    [("0008 01 81 ea 01 0000", True), ("0008 00 80 ea 01 0000", False), ("0008 1c 00 0000 0000", False)],
)
def test_what_outlives_a_power_cut(answer: str, persists: bool) -> None:
    assert scsi.can_persist(bytes.fromhex(answer)) == persists


@pytest.mark.parametrize("answer", [b"", b"\xff" * 8, bytes(8), b"\x00\x08\x01\x80"])
def test_no_answer_is_read_for_a_capability(answer: bytes) -> None:
    with pytest.raises(Garbled):
        scsi.can_persist(answer)
