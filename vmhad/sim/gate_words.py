# SPDX-License-Identifier: Apache-2.0
"""The word of stories about what is asked at the gates of recovered VMs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING

from vmhad.sim.draft import StoryError, seconds

if TYPE_CHECKING:
    from vmhad.sim.directives import Stage


class GateWords:
    """One method a directive, as in directives.py."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.directives: dict[str, Callable[[list[str]], Sequence[str] | None]] = {"ready": self._ready}

    def _ready(self, words: list[str]) -> None:
        """ready db-1 after 20s | ready db-1 never | ready db-1 lost | ready db-1 now | ready db-1 silent 30s -- after:
        so long after each start of its guest; lost: not any more; silent: whoever asks at its gate gets no answer"""
        world, does = self._stage.world, words[1]
        service, now = world.datacentre.vms[words[0]].service, world.agenda.now
        if does == "after":
            service.takes_s = seconds(words[2])
        elif does == "never":
            service.takes_s = inf
        elif does == "lost":
            service.lost_at = now
        elif does == "now":
            service.takes_s, service.lost_at = 0.0, None
        elif does == "silent":
            service.silent_until = now + seconds(words[2])
        else:
            raise StoryError(f"a VM is not ready {does}")
