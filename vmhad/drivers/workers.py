# SPDX-License-Identifier: Apache-2.0
"""Threads that wait for slow calls, so that the deciding thread never does.

What a call raised is handed back as a value: an exception that nobody collects would hide a failed act.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

import futurist

from vmhad.ports import Clock, Unanswered

LOG = logging.getLogger(__name__)


class ThreadWorkers:
    """ports.Workers over a pool of native threads."""

    def __init__(self, size: int, clock: Clock) -> None:
        """size: calls at the same time; further ones queue."""
        self._clock = clock
        self._lock = threading.Lock()
        self._running: set[str] = set()
        self._finished: deque[tuple[str, object]] = deque()
        self._stopping = False
        self._pool = futurist.ThreadPoolExecutor(max_workers=size)

    def submit(self, name: str, call: Callable[[], object]) -> bool:
        """False as well once stop() was called."""
        with self._lock:
            if self._stopping or name in self._running:
                return False
            self._running.add(name)
        try:
            self._pool.submit(self._run, name, call)
        except BaseException:
            with self._lock:
                self._running.discard(name)
            raise
        return True

    def finished(self) -> Sequence[tuple[str, object]]:
        with self._lock:
            ended = tuple(self._finished)
            self._finished.clear()
        return ended

    def running(self) -> Sequence[str]:
        """The names of the calls that have not ended, sorted."""
        with self._lock:
            return sorted(self._running)

    def stop(self, wait: bool = True) -> None:
        """Takes no more calls. wait: until those that were taken have ended; each has a time limit of its own."""
        with self._lock:
            self._stopping = True
        self._pool.shutdown(wait=wait)

    def _run(self, name: str, call: Callable[[], object]) -> None:
        result: object
        try:
            result = call()
        except Exception as error:
            result = error
        except BaseException as error:  # e.g. SystemExit in a library: the thread must not take the name with it
            LOG.exception("call %s ended its thread", name)
            result = Unanswered(f"the call was ended by {type(error).__name__}")
        with self._lock:
            self._running.discard(name)
            self._finished.append((name, result))
        self._clock.wake()
