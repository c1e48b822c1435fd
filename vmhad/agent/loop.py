# SPDX-License-Identifier: Apache-2.0
"""The agent's heart: once a second a beat of all that its eyes know, whatever hangs.

Two threads and no more are concerned with a beat: one makes it of words that lie ready, the other hands it to the bus.
A bus that hangs holds the second one; the newest beat waits in its place, and those between are forgotten.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vmhad.agent.bootclock import boot_s
from vmhad.agent.told import Eye, Told
from vmhad.kernel.beat import Beat, Dump, PeerView, Plane, StorageBeat, Unit
from vmhad.kernel.signal import Reading

LOG = logging.getLogger(__name__)
# How long the last beat may take to leave before the agent goes without it.
LAST_WORD_S = 3.0
# News hasten the next beat, but never to more than so many in the time of one.
BEATS_PER_INTERVAL = 4


@dataclass(frozen=True, slots=True)
class Identity:
    """Who beats. run: drawn when the agent started."""

    host: str
    boot: str
    run: str


def compose(who: Identity, count: int, now: float, sent_at: float, told: Iterable[Told], leaving: bool = False) -> Beat:
    """One beat of what the eyes told. Of two eyes that look at one service the later one is believed."""
    services: dict[str, Reading] = {}
    storages: dict[str, Reading] = {}
    planes: dict[str, Mapping[Plane, Reading]] = {}
    records: dict[str, dict[str, StorageBeat]] = {}
    dumps: dict[str, Dump] = {}
    domains = None
    hardware: list[str] = []
    units: dict[str, Unit] = {}
    for part in told:
        services.update(part.services)
        units.update(part.units)
        storages.update(part.storages)
        planes.update(part.planes)
        dumps.update(part.dumps)
        for peer, seen in part.records.items():
            records.setdefault(peer, {}).update(seen)
        domains = part.domains if part.domains is not None else domains
        hardware += part.hardware
    peers = {
        peer: PeerView(planes.get(peer, {}), records.get(peer, {}), dumps.get(peer))
        for peer in sorted({*planes, *records, *dumps})
    }
    return Beat(
        who.host, who.boot, who.run, count, now, sent_at, leaving, services, storages, peers, domains,
        tuple(hardware), units,
    )  # fmt: skip


class Agent:
    """Beats until it is told to end. say: may block and may raise; it delays nothing but itself. farewell: called with
    the last beat, while the eyes still see."""

    def __init__(
        self,
        who: Identity,
        eyes: Sequence[Eye],
        say: Callable[[Beat], None],
        interval_s: float,
        farewell: Callable[[Beat], None],
    ) -> None:
        self._who = who
        self._eyes = eyes
        self._say = say
        self._interval_s = interval_s
        self._farewell = farewell
        self._count = 0
        self._news = threading.Event()
        self._ending = threading.Event()
        self._changed = threading.Condition()
        self._newest: Beat | None = None
        self._said = 0
        self._speaking = threading.Thread(target=self._speak, name="voice", daemon=True)

    def news(self) -> None:
        """An eye saw something that should not wait for the next beat. From any thread."""
        self._news.set()

    def end(self) -> None:
        """From any thread or a signal handler; run() then makes its last beat and returns."""
        self._ending.set()
        self._news.set()

    def run(self) -> None:
        for eye in self._eyes:
            eye.start()
        self._speaking.start()
        least_s = self._interval_s / BEATS_PER_INTERVAL
        while not self._ending.is_set():
            began = boot_s()
            self._news.clear()
            self._hand_over(self._make())
            if self._ending.wait(max(0.0, began + least_s - boot_s())):
                break
            self._news.wait(max(0.0, began + self._interval_s - boot_s()))
        last = self._make(leaving=True)
        self._hand_over(last)
        self._farewell(last)
        for eye in self._eyes:
            eye.stop()
        with self._changed:
            self._changed.wait_for(lambda: self._said == self._count, LAST_WORD_S)

    def _make(self, leaving: bool = False) -> Beat:
        self._count += 1
        now = boot_s()
        told = [part for eye in self._eyes if (part := self._told(eye, now)) is not None]
        return compose(self._who, self._count, now, time.time(), told, leaving)

    @staticmethod
    def _told(eye: Eye, now: float) -> Told | None:
        try:
            return eye.tell(now)
        except Exception:
            LOG.exception("an eye of the agent cannot say what it saw; the beat goes without it")
            return None

    def _hand_over(self, beat: Beat) -> None:
        with self._changed:
            self._newest = beat
            self._changed.notify_all()

    def _speak(self) -> None:
        said = ""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None)
                beat, self._newest = self._newest, None
            assert beat is not None
            try:
                self._say(beat)
                said = ""
            except Exception as error:
                if said != (said := f"{type(error).__name__}: {error}"):
                    LOG.warning("a beat was not said: %s", said)
            with self._changed:
                self._said = beat.count
                self._changed.notify_all()
