# SPDX-License-Identifier: Apache-2.0
"""ports.Workers in virtual time: a call runs when its thread starts; its result is there when its time is spent.

The call runs in one piece, its port calls add what they took to the clock (SimClock.spend), and the result comes that
much later: an effect may thus land up to one call's length early, never late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from vmhad.sim.clock import SimClock
from vmhad.sim.life import Killed, Life

THREAD_START_S = 0.002


class SimWorkers:
    """One engine's workers. size: calls at the same time, further ones queue; as many as an engine has by default."""

    def __init__(self, life: Life, clock: SimClock, size: int = 32) -> None:
        self._life = life
        self._clock = clock
        self._idle = size
        self._queued: deque[tuple[str, Callable[[], object]]] = deque()
        self._running: set[str] = set()
        self._finished: list[tuple[str, object]] = []

    def submit(self, name: str, call: Callable[[], object]) -> bool:
        if name in self._running:
            return False
        self._running.add(name)
        self._queued.append((name, call))
        self._next()
        return True

    def finished(self) -> Sequence[tuple[str, object]]:
        finished, self._finished = self._finished, []
        return finished

    def _next(self) -> None:
        if self._queued and self._idle:
            self._idle -= 1
            name, call = self._queued.popleft()
            self._life.after(THREAD_START_S, lambda: self._run(name, call))

    def _run(self, name: str, call: Callable[[], object]) -> None:
        if self._life.stops_before(name):
            self._life.after(0.0, lambda: self._run(name, call))
            return
        self._clock.spent_s = 0.0
        try:
            result: object = call()
        except Killed:
            return
        except Exception as failure:  # noqa: BLE001 - as the port says: the result is the exception
            result = failure
        finally:
            took_s, self._clock.spent_s = self._clock.spent_s, 0.0
        self._life.after(took_s, lambda: self._end(name, result))

    def _end(self, name: str, result: object) -> None:
        self._idle += 1
        self._next()
        self._running.discard(name)
        self._finished.append((name, result))
        self._clock.wake()
