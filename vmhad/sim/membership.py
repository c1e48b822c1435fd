# SPDX-License-Identifier: Apache-2.0
"""ports.Membership in virtual time: a ring over the engines that beat lately. A hint, as late as the real one."""

from __future__ import annotations

import zlib

from vmhad.sim.clock import Agenda
from vmhad.sim.life import Life

MEMBER_FOR_S = 10.0
BEAT_EVERY_S = 2.5


class Ring:
    """Who beat when. A member that stopped beating stays one for MEMBER_FOR_S."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self.beats: dict[str, float] = {}
        self.unseen_until = 0.0
        self.apart: dict[str, float] = {}

    def beat(self, name: str) -> None:
        self.beats[name] = self._agenda.now

    def members(self, me: str) -> list[str]:
        """As one of them sees it. apart: who is alone on its side of the ring, and until when."""
        now = self._agenda.now
        apart = {name for name, until in self.apart.items() if now < until}
        if me in apart:
            return [me]
        return sorted(name for name, at in self.beats.items() if now - at <= MEMBER_FOR_S and name not in apart)

    def heal(self) -> None:
        self.unseen_until = 0.0
        self.apart.clear()

    @property
    def unseen(self) -> bool:
        return self._agenda.now < self.unseen_until


class SimMembership:
    """One engine's place in the ring. Its process beats while it runs; the real one by its loop, tick for tick."""

    def __init__(self, ring: Ring, life: Life) -> None:
        self._ring, self._life = ring, life
        self._beat_on()

    def _beat_on(self) -> None:
        self.beat()
        self._life.after(BEAT_EVERY_S, self._beat_on, periodic=True)

    def beat(self) -> None:
        self._ring.beat(self._life.name)

    def should_own(self, segment: str) -> bool:
        members = self._ring.members(self._life.name)
        if self._ring.unseen or self._life.name not in members:  # a view that old tells nothing
            return True
        return members[zlib.crc32(segment.encode()) % len(members)] == self._life.name
