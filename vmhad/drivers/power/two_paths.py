# SPDX-License-Identifier: Apache-2.0
"""Power of hosts that two devices can cut: the BMC, and a chassis manager, say, or outlets.

The rules kept: the second path is asked at once where the first one is silent or declines, and also where the first
one accepted before and is told again, for that one keeps no word. OFF is said only where the path that was switched
reads OFF and no path reads ON: one that reads ON beside it has power from elsewhere, or one of the two is not this
host's. Of an outlet ON says nothing of the host, which may be off all the same; its OFF says that there is no power,
and so an outlet is a second path only where it alone feeds the host; where several do, all of them together are that
path (all_of.py). Every word names its path. Each path gets half of a call's time from whoever makes the two drivers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from vmhad.drivers.power.by_host import Polled, Reader
from vmhad.kernel.signal import Reading
from vmhad.ports import Refused, Unanswered

FIRST, SECOND = "first path", "second path"


class TwoPaths:
    """ports.Power. hosts: those with a second path; outlets: those among them whose second path is of outlets."""

    def __init__(self, first: Polled, second: Polled, hosts: Collection[str], outlets: Collection[str] = ()) -> None:
        self._first, self._second = first, second
        self._hosts, self._outlets = frozenset(hosts), frozenset(outlets)
        # What accepted the last off of a host and was not told to switch it on since. An engine that takes over tells
        # a host that it fences to go off once more, so it knows it, too.
        self._switched: dict[str, frozenset[str]] = {}
        self._lock = threading.Lock()

    def read(self, host: str) -> tuple[Reading, str]:
        if host not in self._hosts:
            return self._first.read(host)
        return self._joined(host, lambda: self._first.read(host), lambda: self._second.read(host))

    def off(self, host: str) -> None:
        """Raises Refused where it is certain that no path switched anything, Unanswered otherwise."""
        if host not in self._hosts:
            self._first.off(host)
            return
        with self._lock:
            is_told_again = FIRST in self._switched.get(host, ())
        failures: list[Refused | Unanswered] = []
        accepted = _told(FIRST, self._first.off, host, failures)
        if is_told_again or not accepted:
            accepted |= _told(SECOND, self._second.off, host, failures)
        if not accepted:
            raise _neither(failures)
        with self._lock:
            self._switched[host] = self._switched.get(host, frozenset()) | accepted

    def on(self, host: str) -> None:
        """As off. The second path comes first, for behind an outlet without power there is no BMC to be asked."""
        if host not in self._hosts:
            self._first.on(host)
            return
        failures: list[Refused | Unanswered] = []
        accepted = _told(SECOND, self._second.on, host, failures) | _told(FIRST, self._first.on, host, failures)
        if not accepted:
            raise _neither(failures)
        with self._lock:
            self._switched.pop(host, None)

    def poll_session(self, host: str, timeout_s: float = 2.0) -> Reader:
        if host not in self._hosts:
            return self._first.poll_session(host, timeout_s)
        first, second = (path.poll_session(host, timeout_s / 2) for path in (self._first, self._second))
        return _TwoReaders(first, second, lambda: self._joined(host, first.read, second.read))

    def _joined(
        self, host: str, read_first: Callable[[], tuple[Reading, str]], read_second: Callable[[], tuple[Reading, str]]
    ) -> tuple[Reading, str]:
        first, words = read_first()
        if first is Reading.ON:
            return first, f"{FIRST}: {words}"
        second, more = read_second()
        said = f"{FIRST}: {words}; {SECOND}: {more}"
        if second is Reading.ON and host not in self._outlets:
            return second, said
        with self._lock:
            switched = self._switched.get(host, frozenset())
        off = {path for path, reading in ((FIRST, first), (SECOND, second)) if reading is Reading.OFF}
        return (Reading.OFF if off and (not switched or off & switched) else Reading.UNKNOWN), said


class _TwoReaders:
    """Of one host, for a watch."""

    def __init__(self, first: Reader, second: Reader, read: Callable[[], tuple[Reading, str]]) -> None:
        self._both = (first, second)
        self._read = read

    def read(self) -> tuple[Reading, str]:
        return self._read()

    def close(self) -> None:
        for one in self._both:
            one.close()


def _told(path: str, switch: Callable[[str], None], host: str, failures: list[Refused | Unanswered]) -> frozenset[str]:
    """The path if it accepted; else what it said is among the failures."""
    try:
        switch(host)
    except (Refused, Unanswered) as error:
        failures.append(type(error)(f"{path}: {error}"))
        return frozenset()
    return frozenset({path})


def _neither(failures: list[Refused | Unanswered]) -> Refused | Unanswered:
    kind = Refused if all(isinstance(one, Refused) for one in failures) else Unanswered
    return kind("; ".join(str(one) for one in failures))
