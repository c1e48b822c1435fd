# SPDX-License-Identifier: Apache-2.0
"""The keys that vmhad registers by itself, as marks for whoever reads a LUN: an engine, its heir, a host's agent."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from vmhad.scsi.scsi_bytes import KEY_MAX

# The two upper bytes of every key that is registered here: «vm».
PREFIX = 0x766D
PREFIX_MAX = 0xFFFF
ACTOR, BEGUN, CUT, OPEN = 0x0A, 0x0B, 0x0C, 0x0F
# The port that acts, whichever engine it is. Those that only hold a mark have theirs of the host's name.
ACTOR_PORT = 0x766D0A0000


@dataclass(frozen=True, slots=True)
class Marks:
    """What stands of a host among the keys of a LUN, by ourselves: that a cut began, that it is complete, that it was
    taken back. They outlive the engine that registered them, and every engine makes out the same ones. actor: the key
    of the nexus that acts, for all hosts. port: of the nexus that holds the mark."""

    begun: int
    cut: int
    opened: int
    actor: int
    port: int

    @property
    def all(self) -> frozenset[int]:
        return frozenset((self.begun, self.cut, self.opened))

    @property
    def forbid(self) -> frozenset[int]:
        """While one of these stands nobody registers the host."""
        return frozenset((self.begun, self.cut))


def marks_of(host: str, prefix: int) -> Marks:
    """Two bytes of prefix, one of what it says, five of the host's name."""
    name = int.from_bytes(hashlib.sha256(host.encode()).digest()[:5])
    begun, cut, opened = ((prefix << 48) | (says << 40) | name for says in (BEGUN, CUT, OPEN))
    return Marks(begun, cut, opened, (prefix << 48) | (ACTOR << 40), name)


def prefix_of(said: object) -> int:
    """Raises ValueError."""
    if isinstance(said, bool) or not isinstance(said, int) or not 0 < said <= PREFIX_MAX:
        raise ValueError("prefix must be a number from 1 to 0xffff")
    return said


def key_of(host: str, text: str) -> int:
    """Raises ValueError."""
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text) or not 0 < int(text, 16) <= KEY_MAX:
        raise ValueError(f"clients: {host} must have reservation keys like 0x1f, of at most 16 hex digits and not zero")
    return int(text, 16)
