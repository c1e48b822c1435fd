# SPDX-License-Identifier: Apache-2.0
"""Power of hosts whose BMCs do not all speak the same: each host's own driver is asked.

The hosts of one driver may also be split over several of it, by how long a call to them may take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from vmhad.kernel.signal import Reading
from vmhad.ports import Power, Refused


class Reader(Protocol):
    def read(self) -> tuple[Reading, str]: ...

    def close(self) -> None: ...


class Polled(Power, Protocol):
    def poll_session(self, host: str, timeout_s: float) -> Reader: ...


class ByHost:
    """ports.Power. drivers: of each host."""

    def __init__(self, drivers: Mapping[str, Polled]) -> None:
        self._drivers = dict(drivers)

    def read(self, host: str) -> tuple[Reading, str]:
        if host not in self._drivers:
            return Reading.UNKNOWN, f"no BMC is configured for {host}"
        return self._drivers[host].read(host)

    def off(self, host: str) -> None:
        """Raises Refused where it is certain that nothing was switched, Unanswered otherwise."""
        self._driver(host).off(host)

    def on(self, host: str) -> None:
        """As off."""
        self._driver(host).on(host)

    def poll_session(self, host: str, timeout_s: float = 2.0) -> Reader:
        """Raises KeyError where the host has no BMC."""
        return self._drivers[host].poll_session(host, timeout_s)

    def _driver(self, host: str) -> Polled:
        if host not in self._drivers:
            raise Refused(f"no BMC is configured for {host}")
        return self._drivers[host]
