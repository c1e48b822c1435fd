# SPDX-License-Identifier: Apache-2.0
"""The eye on every host's power, through the BMCs.

Rules kept: an OFF is seen twice, apart, before anyone needs to ask; one hung BMC costs the others nothing, and many
hung ones at most half of the threads; the management network never sees more reads a second than was allowed.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vmhad.drivers.watch.gathered import Gathered
from vmhad.kernel.signal import OFF_IS_NEWS_S, Channel, Reading, Signal
from vmhad.ports import Clock

LOG = logging.getLogger(__name__)

AGAIN_S = 0.9
SLOW_S = 1.0
AT_ONCE = 0.0
SIGNALS_KEPT_PER_HOST = 16


class PowerReader(Protocol):
    """One host's power, as PollSession reads it. Used by one thread at a time, not always the same."""

    def read(self) -> tuple[Reading, str]: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class _Subject:
    """One host's place in the rounds. due: on time.monotonic(), AT_ONCE when asked for.

    turn: names its only valid entry in a line. again: its next reading is to be followed by another, again_s later.
    asked: look() named it while it was being read. last: what was read last; since: when the first of it began.
    """

    host: str
    due: float
    turn: int = 0
    busy: bool = False
    slow: bool = False
    again: bool = False
    asked: bool = False
    reader: PowerReader | None = None
    last: Reading | None = None
    since: float = 0.0


class BmcPowerWatch:
    """ports.Watch for Channel.POWER."""

    def __init__(
        self,
        open_reader: Callable[[str], PowerReader],
        hosts: Sequence[str],
        clock: Clock,
        interval_s: float = 2.0,
        workers: int = 16,
        reads_per_s_max: float = 500.0,
        again_s: float = AGAIN_S,
        off_is_news_s: float = OFF_IS_NEWS_S,
    ) -> None:
        """open_reader: called once per host, from a thread of the watch; the reader bounds its own time.

        interval_s is stretched so that all hosts together stay within reads_per_s_max. again_s: how long after the
        beginning of a first OFF reading the second one begins.
        """
        self._open_reader = open_reader
        self._clock = clock
        self._interval_s = max(interval_s, len(hosts) / reads_per_s_max)
        self._gap_s = 1.0 / reads_per_s_max
        self._again_s = again_s
        self._off_is_news_s = off_is_news_s
        self._workers = max(1, min(workers, len(hosts)))
        self._slow_max = max(1, self._workers // 2)
        self._lock = threading.Lock()
        # One idle thread keeps the time; the others sleep until they are passed the watch.
        self._keeper = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._keeping = False
        self._turns = itertools.count(1)
        began = time.monotonic()
        step_s = self._interval_s / max(1, len(hosts))
        self._subjects = {host: _Subject(host, began + i * step_s) for i, host in enumerate(hosts)}
        # Hosts whose last read was slow wait in a line of their own.
        self._lines: dict[bool, list[tuple[float, int, str]]] = {False: [], True: []}
        for subject in self._subjects.values():
            self._enqueue(subject)
        self._slow_now = 0
        self._next_read = began
        self._gathered = Gathered(SIGNALS_KEPT_PER_HOST * max(1, len(hosts)))
        self._stopping = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for number in range(self._workers):
            thread = threading.Thread(target=self._work, name=f"bmc-power-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ends the threads and closes the sessions; a read under way is waited for, timeout_s over all."""
        with self._lock:
            self._stopping = True
            self._keeper.notify_all()
            self._idle.notify_all()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for subject in self._subjects.values():
            if subject.reader is not None and not subject.busy and time.monotonic() < deadline:
                subject.reader.close()

    def read(self) -> Iterable[Signal]:
        with self._lock:
            return self._gathered.read()

    def latest(self, host: str) -> Signal | None:
        with self._lock:
            return self._gathered.latest(host)

    def look(self, hosts: Iterable[str]) -> None:
        """Reads them next, and once more again_s later. Unknown hosts are ignored."""
        with self._lock:
            for host in hosts:
                subject = self._subjects.get(host)
                if subject is None:
                    continue
                if subject.busy:
                    subject.asked = True
                    continue
                subject.again = True
                if subject.due != AT_ONCE:  # else it would lose its place
                    subject.due = AT_ONCE
                    self._enqueue(subject)
            self._stir()

    def _enqueue(self, subject: _Subject) -> None:
        subject.turn = next(self._turns)
        heapq.heappush(self._lines[subject.slow], (subject.due, subject.turn, subject.host))

    def _work(self) -> None:
        while True:
            subject = self._next()
            if subject is None:
                return
            at, began = self._clock.now(), time.monotonic()
            reading, detail = self._read_one(subject)
            self._settle(subject, at, began, reading, detail)

    def _next(self) -> _Subject | None:
        """The next host whose turn it is, marked busy; None when stopping."""
        with self._lock:
            while not self._stopping:
                if self._keeping:
                    self._idle.wait()
                    continue
                now = time.monotonic()
                line, due = self._foremost()
                wait_s = max(due, self._next_read) - now
                if line is not None and wait_s <= 0:
                    self._next_read = max(self._next_read, now - self._gap_s) + self._gap_s
                    self._idle.notify()
                    return self._take(line)
                self._keeping = True
                self._keeper.wait(None if line is None else wait_s)
                self._keeping = False
        return None

    def _take(self, line: list[tuple[float, int, str]]) -> _Subject:
        subject = self._subjects[heapq.heappop(line)[2]]
        subject.busy = True
        self._slow_now += subject.slow
        return subject

    def _stir(self) -> None:
        """Something may be due earlier than the waiting threads know."""
        if self._keeping:
            self._keeper.notify()
        else:
            self._idle.notify()

    def _foremost(self) -> tuple[list[tuple[float, int, str]] | None, float]:
        """The line whose first entry is due first, and when; the slow line only while it may have more threads."""
        best: list[tuple[float, int, str]] | None = None
        for slow, line in self._lines.items():
            while line and self._subjects[line[0][2]].turn != line[0][1]:
                heapq.heappop(line)  # that host was queued anew since
            if line and not (slow and self._slow_now >= self._slow_max) and (best is None or line[0] < best[0]):
                best = line
        return best, best[0][0] if best else 0.0

    def _read_one(self, subject: _Subject) -> tuple[Reading, str]:
        try:
            if subject.reader is None:
                subject.reader = self._open_reader(subject.host)
            return subject.reader.read()
        except Exception as error:
            LOG.exception("power reader of %s failed", subject.host)
            return Reading.UNKNOWN, f"power reader failed: {type(error).__name__}"

    def _settle(self, subject: _Subject, at: float, began: float, reading: Reading, detail: str) -> None:
        """Hands the reading out and fixes the host's next turn."""
        ended = time.monotonic()
        with self._lock:
            self._slow_now -= subject.slow
            subject.slow = ended - began > SLOW_S
            first_off = reading is Reading.OFF and subject.last is not Reading.OFF
            subject.since = subject.since if reading is subject.last else began
            news = reading is not subject.last or (
                reading is Reading.OFF and began - subject.since < self._off_is_news_s
            )
            if subject.asked:
                subject.due, subject.again = AT_ONCE, True
            else:
                wait_s = self._again_s if first_off or subject.again else self._interval_s
                subject.due, subject.again = max(ended, began + wait_s), False
            subject.last, subject.busy, subject.asked = reading, False, False
            self._enqueue(subject)
            self._gathered.put(Signal(subject.host, Channel.POWER, reading, at, detail, reading is Reading.ON))
            self._stir()
        if news:
            self._clock.wake()
