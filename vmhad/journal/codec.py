# SPDX-License-Identifier: Apache-2.0
"""Kernel values to bytes and back.

Rules for a rolling upgrade, where an older engine reads what a newer one wrote: fields it does not know are passed
over, and a field added to a stored dataclass has a default. What cannot be read is named by its key and stops the
reader: half a memory must not decide. What is written is read back first, so that nothing unreadable gets in.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import cache
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")


class JournalUnreadable(Exception):
    """A stored value is not what its key promises. key: which one."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"journal key {key} cannot be read: {why}")
        self.key = key


_ENCODER = msgspec.json.Encoder(order="deterministic")


@cache
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(cast(type[Any], kind))


def encode(value: object) -> bytes:
    """A frozen dataclass as JSON; equal values, equal bytes. ValueError for what would not come back equal (inf)."""
    raw = _ENCODER.encode(value)
    try:
        back = _decoder(cast(Hashable, type(value))).decode(raw)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{type(value).__name__} would not be readable: {error}") from None
    if back != value:
        raise ValueError(f"{type(value).__name__} would not come back as it is written")
    # Of what came back, in which 3 has become 3.0: a compare is on bytes.
    return _ENCODER.encode(back)


def decode(kind: type[T], key: str, raw: bytes) -> T:
    """Raises JournalUnreadable, naming the key."""
    try:
        value: T = _decoder(cast(Hashable, kind)).decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JournalUnreadable(key, str(error)) from None
    return value


def encode_names(names: Iterable[str]) -> bytes:
    return _ENCODER.encode(sorted(names))


def decode_names(key: str, raw: bytes | None) -> frozenset[str]:
    """A set of names; none where the key does not exist."""
    return frozenset() if raw is None else frozenset(decode(tuple[str, ...], key, raw))


def encode_number(number: int) -> bytes:
    return b"%d" % number


def decode_number(key: str, raw: bytes | None) -> int:
    """A count; 0 where the key does not exist."""
    return 0 if raw is None else decode(int, key, raw)
