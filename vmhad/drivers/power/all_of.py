# SPDX-License-Identifier: Apache-2.0
"""Power of hosts that several devices must cut together: a host with two power supplies on two outlets, say.

The rules kept: OFF is said only where every one of them reads OFF, ON where any reads ON, and one that says nothing
leaves it UNKNOWN. Every order goes to all of them, also where one declines or is silent, and they are asked side by
side, so that one that is dead takes none of the others' time. An order was taken only where all took it. Every word
says which of them it is of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from vmhad.drivers.power.by_host import Polled, Reader
from vmhad.kernel.signal import Reading
from vmhad.ports import Refused, Unanswered

Said = TypeVar("Said")


class AllOf:
    """ports.Power. parts: each knows every host of this one, and one of its devices."""

    def __init__(self, parts: Sequence[Polled]) -> None:
        if len(parts) < 2:
            raise ValueError("all of less than two devices is no level of its own, and all of none would be OFF")
        self._parts = tuple(parts)

    def read(self, host: str) -> tuple[Reading, str]:
        return _read([partial(part.read, host) for part in self._parts])

    def off(self, host: str) -> None:
        """Raises Refused where it is certain that none of them switched anything, Unanswered where not all did."""
        _order([partial(part.off, host) for part in self._parts])

    def on(self, host: str) -> None:
        """As off."""
        _order([partial(part.on, host) for part in self._parts])

    def poll_session(self, host: str, timeout_s: float = 2.0) -> Reader:
        return _Readers([part.poll_session(host, timeout_s) for part in self._parts])


class _Readers:
    """Of one host, for a watch."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = tuple(readers)

    def read(self) -> tuple[Reading, str]:
        return _read([one.read for one in self._readers])

    def close(self) -> None:
        for one in self._readers:
            one.close()


def _read(calls: Sequence[Callable[[], tuple[Reading, str]]]) -> tuple[Reading, str]:
    answers = _side_by_side(calls)
    said = "; ".join(f"{number} of {len(answers)}: {words}" for number, (_, words) in enumerate(answers, 1))
    readings = {reading for reading, _ in answers}
    if Reading.ON in readings:
        return Reading.ON, said
    return (Reading.OFF if readings == {Reading.OFF} else Reading.UNKNOWN), said


def _order(calls: Sequence[Callable[[], None]]) -> None:
    failures = _side_by_side([partial(_failure, call) for call in calls])
    if not any(failures):
        return
    # Where one switched and another declined something was switched: that is no refusal.
    kind = Refused if all(isinstance(one, Refused) for one in failures) else Unanswered
    raise kind("; ".join(f"{n} of {len(failures)}: {one or 'accepted'}" for n, one in enumerate(failures, 1)))


def _failure(call: Callable[[], None]) -> Refused | Unanswered | None:
    try:
        call()
    except (Refused, Unanswered) as error:
        return type(error)(str(error))
    return None


def _side_by_side(calls: Sequence[Callable[[], Said]]) -> list[Said]:
    """Each call ends by its own limit, and so all do."""
    with ThreadPoolExecutor(len(calls), "all-of") as threads:
        return [one.result() for one in [threads.submit(call) for call in calls]]
