# SPDX-License-Identifier: Apache-2.0
"""What both drivers know of keys: the range of a prefix, what a commit may hold, and the marks that revision() reads.

A store does not remember deletions, so «has anything under this prefix changed» cannot be asked of the keys that are
left. Each commit therefore marks the first three parts of every key it puts or deletes (/vmhad/v1/order), and
revision(prefix) is when the mark was last set. A prefix too short to have three whole parts gets the store's revision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vmhad.ports import Compare

OPERATIONS_MAX = 100


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all that start with a non-empty prefix. UTF-8 has no byte 0xff, so the last can grow."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def mark_of(key: str) -> str:
    """'/vmhad/v1/order/s1/7' -> '/vmhad/v1/order'."""
    return "/".join(key.split("/")[:4])


def mark_covering(prefix: str) -> str | None:
    """The one mark that every key under prefix sets; None if there may be several."""
    return mark_of(prefix) if prefix.count("/") >= 4 else None


def marks_of(puts: Mapping[str, bytes], deletes: Sequence[str]) -> list[str]:
    return sorted({mark_of(key) for key in (*puts, *deletes)})


def check_commit(compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str]) -> None:
    """Raises ValueError for a commit that the port does not allow, before anything is sent."""
    count = len(compares) + len(puts) + len(deletes)
    if count > OPERATIONS_MAX:
        raise ValueError(f"a commit of {count} operations; the store takes {OPERATIONS_MAX}")
    written = [*puts, *deletes]
    if len(set(written)) < len(written):
        raise ValueError("a commit writes one key twice")
    if not all(written):
        raise ValueError("a commit writes an empty key")
