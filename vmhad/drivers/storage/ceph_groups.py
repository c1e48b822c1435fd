# SPDX-License-Identifier: Apache-2.0
"""Names of objects that fall into each placement group of a pool, so that every one of them can be asked.

Ceph hashes an object's name to a number by Bob Jenkins' function of 1996 and takes from it the group by its low bits
(https://docs.ceph.com, «Mapping PGs to OSDs»). Whether we do as Ceph does is tested on a real one.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

NAMESPACE = "vmhad"
# Ceph parts a namespace from a name by this when it hashes both.
SEPARATOR = b"\x1f"
WORD = 0xFFFFFFFF
GOLDEN = 0x9E3779B9
# Of how the bits of three words are mixed, three lines at a time.
SHIFTS = ((13, 8, 13), (12, 16, 5), (3, 10, 15))
# The only hash that Ceph gives its pools: CEPH_STR_HASH_RJENKINS.
RJENKINS = 2


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for first, second, third in SHIFTS:
        a = (a - b - c & WORD) ^ (c >> first)
        b = (b - c - a & WORD) ^ (a << second & WORD)
        c = (c - a - b & WORD) ^ (b >> third)
    return a, b, c


def rjenkins(text: bytes) -> int:
    a = b = GOLDEN
    c = 0
    whole = len(text) // 12 * 12
    for at in range(0, whole, 12):
        a = a + int.from_bytes(text[at : at + 4], "little") & WORD
        b = b + int.from_bytes(text[at + 4 : at + 8], "little") & WORD
        c = c + int.from_bytes(text[at + 8 : at + 12], "little") & WORD
        a, b, c = _mix(a, b, c)
    rest = text[whole:]
    a = a + int.from_bytes(rest[:4], "little") & WORD
    b = b + int.from_bytes(rest[4:8], "little") & WORD
    # The lowest byte of the last word holds the length.
    c = c + len(text) + (int.from_bytes(rest[8:], "little") << 8) & WORD
    return _mix(a, b, c)[2]


def group(name: str, groups: int) -> int:
    """The placement group of an object of our namespace in a pool of so many groups. A number of groups that is no
    power of two lets some of them stand for two."""
    hashed = rjenkins(NAMESPACE.encode() + SEPARATOR + name.encode())
    mask = (1 << (groups - 1).bit_length()) - 1
    low = hashed & mask
    return low if low < groups else hashed & mask >> 1


@functools.lru_cache(maxsize=16)
def names(groups: int) -> Sequence[str]:
    """A name for each placement group, by its number."""
    found: dict[int, str] = {}
    for number in itertools.count():
        name = f"fence.{number}"
        found.setdefault(group(name, groups), name)
        if len(found) == groups:
            return tuple(found[one] for one in range(groups))
    raise AssertionError("there is always a next number")
