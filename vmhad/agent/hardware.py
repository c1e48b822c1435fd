# SPDX-License-Identifier: Apache-2.0
"""Cheap complaints of the hardware, out of /sys: memory that gave uncorrectable errors, network links without carrier.

A complaint is what the kernel says and no diagnosis; a host without the sensors complains of nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vmhad.agent.routes import LINKS, has_carrier
from vmhad.agent.told import Rounds, Told

MEMORY_CONTROLLERS = Path("/sys/devices/system/edac/mc")
INTERVAL_S = 5.0
# A beat stays small however broken its host is.
COMPLAINTS_MAX = 16


class Hardware:
    """The eye on /sys. links: the network interfaces that must have a carrier."""

    def __init__(self, links: Sequence[str], controllers: Path = MEMORY_CONTROLLERS) -> None:
        self._links = tuple(links)
        self._controllers = controllers
        self._rounds = Rounds("hardware", self._look, INTERVAL_S)
        self._word: tuple[str, ...] = ()

    def start(self) -> None:
        self._rounds.start()

    def stop(self) -> None:
        self._rounds.stop()

    def tell(self, now: float) -> Told:
        return Told(hardware=self._word)

    def _look(self) -> None:
        self._word = tuple([*self._memory(), *self._cables()][:COMPLAINTS_MAX])

    def _memory(self) -> Iterator[str]:
        for path in sorted(self._controllers.glob("mc*/ue_count")):
            count = path.read_text().strip()
            if count != "0":
                yield f"memory controller {path.parent.name}: {count} uncorrectable errors since the host booted"

    def _cables(self) -> Iterator[str]:
        for link in self._links:
            if not (LINKS / link).exists():
                yield f"link {link}: there is none of that name"
            elif not has_carrier(link):
                yield f"link {link}: no carrier"
