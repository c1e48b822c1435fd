# SPDX-License-Identifier: Apache-2.0
"""The beats of all agents, over every broker: proven, held to the replay window, the newest of each host.

Every engine hears all segments, whoever owns them, so that a take-over begins with what is known already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vmhad.bus.codec import Reader, UnreadableBeat
from vmhad.bus.signature import Forged, Verifier
from vmhad.bus.transport_url import Broker
from vmhad.bus.window import REPLAY_WINDOW_S, Dropped, Window
from vmhad.drivers.beats.complaints import Complaints
from vmhad.drivers.beats.listener import Listener
from vmhad.kernel.beat import Beat, HeardBeat
from vmhad.ports import Clock

# A host that was not heard for longer is news when it is heard again.
SILENCE_S = 2.0
NOT_OURS = "it is none of ours."
NOT_ITS_OWN = "they are signed by one host and speak of another."
UNREADABLE = "they cannot be read:"


@dataclass(frozen=True, slots=True)
class _Before:
    """The last beat of a host that counted, and when it came."""

    heard: HeardBeat
    arrived: float


class AgentBeats:
    """ports.Beats. masters: key id -> master key. hosts: those whose beats are kept; a beat of any other is dropped.

    wall: the engine's Unix time, which only the replay window asks for.
    """

    def __init__(
        self,
        brokers: Sequence[Broker],
        segments: Sequence[str],
        hosts: Collection[str],
        masters: Mapping[str, bytes],
        clock: Clock,
        *,
        replay_window_s: float = REPLAY_WINDOW_S,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._hosts = frozenset(hosts)
        self._verifier = Verifier(masters)
        self._reader = Reader()
        self._window = Window(replay_window_s)
        self._clock = clock
        self._wall = wall
        self._complaints = Complaints(self._hosts)
        # Held for the taking-in of one beat at most, so that read() waits for nothing that is slow.
        self._lock = threading.Lock()
        self._before: dict[str, _Before] = {}
        self._unread: dict[str, HeardBeat] = {}
        self._listeners = [Listener(broker, segments, self.take, self._idle) for broker in brokers]

    def start(self) -> None:
        """Returns at once, whether or not a broker is there."""
        for listener in self._listeners:
            listener.start()

    def stop(self) -> None:
        for listener in self._listeners:
            listener.stop()

    def is_listening(self) -> bool:
        """True while there is a connection to every broker, as far as is known."""
        return all(listener.is_listening for listener in self._listeners)

    def read(self) -> Iterable[HeardBeat]:
        with self._lock:
            unread, self._unread = self._unread, {}
        return sorted(unread.values(), key=lambda heard: (heard.at, heard.beat.host))

    def take(self, message: bytes) -> None:
        """One message of the bus, whatever it is. From any thread."""
        with self._lock:
            is_news = self._take(message)
        if is_news:
            self._clock.wake()

    def _take(self, message: bytes) -> bool:
        try:
            claims, body = self._verifier.open(message)
        except Forged as forged:
            self._complaints.add(forged.claims, str(forged))
            return False
        if claims not in self._hosts:
            self._complaints.add(claims, NOT_OURS)
            return False
        try:
            beat = self._reader.decode(claims, body)
        except UnreadableBeat as error:
            self._complaints.add(claims, UNREADABLE, str(error))
            return False
        if beat.host != claims:
            self._complaints.add(claims, NOT_ITS_OWN)
            return False
        return self._hear(beat)

    def _hear(self, beat: Beat) -> bool:
        """True if it is news."""
        arrived = self._clock.now()
        heard = self._window.take(beat, arrived, self._wall())
        if isinstance(heard, Dropped):
            if heard is Dropped.REPLAYED:
                self._complaints.add(beat.host, f"{heard}.")
            return False
        before = self._before.get(beat.host)
        self._before[beat.host] = _Before(heard, arrived)
        self._unread[beat.host] = heard
        return before is None or arrived - before.arrived > SILENCE_S or _differs(before.heard, heard)

    def _idle(self) -> None:
        self._complaints.tell(self._clock.now())


def _differs(old: HeardBeat, new: HeardBeat) -> bool:
    """What an engine should not wait a tick for. Who sees whom changes all the time, and waits."""
    was, now = old.beat, new.beat
    return (
        (was.boot, was.leaving, bool(old.refused)) != (now.boot, now.leaving, bool(new.refused))
        or was.services != now.services
        or was.units != now.units
        or was.storages != now.storages
        # Where nothing changed the reader gives the same guests again, and they need not be compared.
        or (was.domains is not now.domains and was.domains != now.domains)
    )
