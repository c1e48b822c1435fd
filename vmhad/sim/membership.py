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

    def beat(self, name: str) -> None:
        self.beats[name] = self._agenda.now

    def members(self) -> list[str]:
        return sorted(name for name, at in self.beats.items() if self._agenda.now - at <= MEMBER_FOR_S)

    @property
    def unseen(self) -> bool:
        return self._agenda.now < self.unseen_until


class SimMembership:
    """One engine's place in the ring. A thread of its process beats, as the real one's does."""

    def __init__(self, ring: Ring, life: Life) -> None:
        self._ring, self._life = ring, life
        self._beat_on()

    def _beat_on(self) -> None:
        self.beat()
        self._life.after(BEAT_EVERY_S, self._beat_on)

    def beat(self) -> None:
        self._ring.beat(self._life.name)

    def should_own(self, segment: str) -> bool:
        members = self._ring.members()
        if self._ring.unseen or not members:
            return True
        return members[zlib.crc32(segment.encode()) % len(members)] == self._life.name
