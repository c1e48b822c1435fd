# SPDX-License-Identifier: Apache-2.0
"""The record with which a host beats on a shared storage: one block, that is whole or is not believed."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict, dataclass

# A whole block of every disk in use, so that one write is one block and O_DIRECT takes it.
BLOCK = 4096
MAGIC = b"VMHADR01"
HEAD = struct.Struct(">8sII")


class Torn(Exception):
    """These bytes are not a whole record of that host."""


@dataclass(frozen=True, slots=True)
class Record:
    """boot, run, count: as in a Beat, but counted by the writes to this storage. self_fence_s: as in a StorageBeat."""

    host: str
    boot: str
    run: str
    count: int
    self_fence_s: float = 0.0


def to_block(record: Record) -> bytes:
    body = json.dumps(asdict(record), sort_keys=True).encode()
    if len(body) > BLOCK - HEAD.size:
        raise ValueError("a record must fit into one block")
    return (HEAD.pack(MAGIC, zlib.crc32(body), len(body)) + body).ljust(BLOCK, b"\0")


def from_block(block: bytes, host: str) -> Record:
    """Raises Torn: a write that was cut short, a foreign file, or the record of another host."""
    if len(block) < HEAD.size:
        raise Torn
    magic, check, length = HEAD.unpack_from(block)
    body = block[HEAD.size : HEAD.size + length]
    if magic != MAGIC or len(body) != length or zlib.crc32(body) != check:
        raise Torn
    try:
        record = Record(**json.loads(body))
    except (TypeError, ValueError):
        raise Torn from None
    if record.host != host:
        raise Torn
    return record
