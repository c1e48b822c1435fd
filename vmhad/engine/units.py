# SPDX-License-Identifier: Apache-2.0
"""What the agents' beats say of the services of their hosts. Soft: in memory, told anew every second, and believed only
while its agent is heard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from vmhad.kernel.beat import HeardBeat, Unit, UnitState


class Told(NamedTuple):
    """A host's newest beat that tells of its services. at: when it was made, by our clock."""

    at: float
    uptime_s: float
    units: Mapping[str, Unit]


@dataclass
class Units:
    """not_running: the hosts of which a service does not. What a worker reads while the deciding thread takes a beat is
    the one before it, or this one."""

    told: dict[str, Told] = field(default_factory=dict)
    not_running: set[str] = field(default_factory=set)

    def take(self, heard: HeardBeat) -> None:
        """Of a beat that came twice, or late, the newer one stays."""
        beat, old = heard.beat, self.told.get(heard.beat.host)
        if not beat.units or heard.refused or (old is not None and heard.at < old.at):
            return
        self.told[beat.host] = Told(heard.at, beat.uptime_s, beat.units)
        if all(unit.state is UnitState.RUNS for unit in beat.units.values()):
            self.not_running.discard(beat.host)
        else:
            self.not_running.add(beat.host)

    def of(self, host: str, now: float, fresh_s: float) -> Told | None:
        told = self.told.get(host)
        return told if told is not None and now - told.at < fresh_s else None
