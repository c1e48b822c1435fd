# SPDX-License-Identifier: Apache-2.0
"""Nova's eye: the list of compute services, polled, because no notification is ever sent for a missed heartbeat.

A sign of life is a heartbeat seen to move. Nova's updated_at moves with it, but also whenever anybody forces the
service down, enables or disables it; such a change is nobody's heartbeat, and our own fencing must not look like life.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Mapping

from vmhad.drivers.watch.gathered import Gathered
from vmhad.kernel.cloud import ComputeService
from vmhad.kernel.signal import Channel, Reading, Signal
from vmhad.ports import Clock, Compute, Refused, Unanswered

LOG = logging.getLogger(__name__)
KEPT_PER_HOST = 16
STOP_WITHIN_S = 2.0
MOVED_LATELY_S = 60.0
# A host that begins to read DOWN is read again this much later, whoever looked in between, for one reading is no death:
# more than readings_apart_s (0.8) by default, and less than a round.
AGAIN_S = 0.9
# While a heartbeat is overdue by so much (two of them are missed, by Nova's default), it may be called down any moment:
# Nova is asked as often as this.
OVERDUE_S = (25.0, 90.0)
OVERDUE_EVERY_S = 0.5


class NovaServicesWatch:
    """ports.Watch over Compute.services(). interval_s: from one poll's begin to the next; look() polls at once."""

    def __init__(self, compute: Compute, hosts: Iterable[str], clock: Clock, interval_s: float = 2.0) -> None:
        self._compute = compute
        self._hosts = tuple(sorted(set(hosts)))
        self._clock = clock
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._gathered = Gathered(KEPT_PER_HOST * max(1, len(self._hosts)))
        self._last: dict[str, ComputeService] = {}
        self._moved_at: dict[str, float] = {}
        self._down_from: dict[str, float] = {}
        self._in_doubt: set[str] = set()
        self._trouble = ""
        self._look = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """The first poll begins at once, in the watch's own thread."""
        if self._thread is None:
            self._ending = threading.Event()
            self._thread = threading.Thread(target=self._run, name="watch-nova", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Returns soon; a poll that is under way ends by itself and says nothing more."""
        self._ending.set()
        self._look.set()
        if self._thread is not None:
            self._thread.join(STOP_WITHIN_S)
            self._thread = None

    def read(self) -> Iterable[Signal]:
        with self._lock:
            return self._gathered.read()

    def latest(self, host: str) -> Signal | None:
        with self._lock:
            return self._gathered.latest(host)

    def look(self, hosts: Iterable[str]) -> None:
        """One list answers for every host, so any host asked for brings them all."""
        if any(True for _ in hosts):
            self._look.set()

    def poll(self) -> None:
        """One look at Nova, in the caller's thread; wakes the clock if a reading changed, or a DOWN was borne out."""
        at = self._clock.now()
        try:
            services = {service.host: service for service in self._compute.services()}
        except (Unanswered, Refused) as exc:
            self._keep([Signal(host, Channel.NOVA, Reading.UNKNOWN, at, f"Nova: {exc}") for host in self._hosts])
            self._tell(f"Nova's services cannot be read: {exc}")
            return
        self._keep([self._signal(host, services.get(host), at) for host in self._hosts])
        self._last = {**self._last, **services}
        self._tell("")

    def _run(self) -> None:
        ending = self._ending
        while not ending.is_set():
            began = self._clock.now()
            self._look.clear()
            try:
                self.poll()
            except Exception:
                LOG.exception("A poll of Nova's services failed for a reason of our own; the next one follows.")
            self._look.wait(max(0.0, self._next_at(began) - self._clock.now()))

    def _next_at(self, began: float) -> float:
        """The next round, or sooner where it can bring news."""
        overdue = (began - self._moved_at[one] for one in self._moved_at.keys() - self._down_from.keys())
        is_due = any(OVERDUE_S[0] < silent_s < OVERDUE_S[1] for silent_s in overdue)
        interval_s = min(OVERDUE_EVERY_S, self._interval_s) if is_due else self._interval_s
        return min([began + interval_s, *(self._down_from[one] + AGAIN_S for one in self._in_doubt)])

    def _signal(self, host: str, service: ComputeService | None, at: float) -> Signal:
        if service is None:
            return Signal(host, Channel.NOVA, Reading.UNKNOWN, at, "Nova does not know a nova-compute on this host")
        life = _heartbeat_moved(self._last.get(host), service)
        if life:
            self._moved_at[host] = at
        moved_lately = at - self._moved_at.get(host, float("-inf")) <= MOVED_LATELY_S
        up = moved_lately if service.forced_down else service.up
        return Signal(host, Channel.NOVA, Reading.UP if up else Reading.DOWN, at, _detail(service), life)

    def _keep(self, signals: Collection[Signal]) -> None:
        changed, borne_out = False, self._doubt(signals)
        with self._lock:
            if self._ending.is_set():
                return
            for signal in signals:
                changed = self._gathered.put(signal) or changed
        if changed or borne_out:
            self._clock.wake()

    def _doubt(self, signals: Collection[Signal]) -> bool:
        """Whether one that began to read DOWN still does, long enough after."""
        down = {one.host: self._down_from.get(one.host, one.at) for one in signals if one.reading is Reading.DOWN}
        new = down.keys() - self._down_from.keys()
        borne_out = {
            one.host
            for one in signals
            if one.host in self._in_doubt & down.keys() and one.at - down[one.host] >= AGAIN_S
        }
        self._down_from, self._in_doubt = down, ((self._in_doubt | new) & down.keys()) - borne_out
        return bool(borne_out)

    def _tell(self, trouble: str) -> None:
        """Logs when reading Nova begins to fail and when it works again, not every time."""
        if trouble and not self._trouble:
            LOG.warning("%s", trouble)
        elif self._trouble and not trouble:
            LOG.info("Nova's services can be read again.")
        self._trouble = trouble


def _heartbeat_moved(before: ComputeService | None, now: ComputeService) -> bool:
    if before is None or before.updated_at == now.updated_at:
        return False
    return _set_by_people(before) == _set_by_people(now)


def _set_by_people(service: ComputeService) -> Mapping[str, object]:
    return {"forced": service.forced_down, "enabled": service.enabled, "reason": service.disabled_reason}


def _detail(service: ComputeService) -> str:
    words = ["up" if service.up else "down"]
    if service.forced_down:
        words.append("forced down")
    if not service.enabled:
        words.append(f"disabled ({service.disabled_reason})" if service.disabled_reason else "disabled")
    return ", ".join([*words, f"last update {service.updated_at or 'never'}"])
