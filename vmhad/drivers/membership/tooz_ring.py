# SPDX-License-Identifier: Apache-2.0
"""Which engines live, seen through tooz; and the ring that says which of them should own a segment.

A hint and no more: tooz never says that a membership was lost, so what is seen is read back after every heartbeat, and
a view that has grown old counts as none. Only beat() keeps the membership alive: an engine whose deciding thread hangs
must drop out of the ring, even while its other threads run.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tooz import coordination
from tooz.hashring import HashRing

LOG = logging.getLogger(__name__)

FIRST_VIEW_S = 1.0


class ToozMembership:
    """ports.Membership. All calls of tooz are made by one thread of its own."""

    def __init__(
        self, url: str, member_id: bytes, group: str = "vmhad", lease_s: float = 15.0, call_timeout_s: float = 3.0
    ) -> None:
        """url: a tooz URL; for etcd3+http and etcd3+https with one or several host:port, separated by commas.

        member_id: unique among the engines. lease_s: how long a member that was not heard of stays one.
        """
        self._urls = itertools.cycle(endpoint_urls(url, lease_s, call_timeout_s))
        self._member_id = member_id
        self._group = group.encode()
        self._lease_s = lease_s
        self._call_timeout_s = call_timeout_s
        self._lock = threading.Lock()
        self._ring: HashRing | None = None
        self._seen_at = -math.inf
        self._wanted = threading.Event()
        self._seen = threading.Event()
        self._stopping = threading.Event()
        self._coordinator: Any = None
        self._thread: threading.Thread | None = None

    def beat(self) -> None:
        """Asks for a heartbeat. Returns at once, but for the very first, which waits up to 1 s for a first view."""
        self._wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="membership", daemon=True)
            self._thread.start()
            self._seen.wait(FIRST_VIEW_S)

    def should_own(self, segment: str) -> bool:
        with self._lock:
            ring, age_s = self._ring, time.monotonic() - self._seen_at
        if ring is None or age_s > self._lease_s or not ring.nodes:
            return True
        return self._member_id in ring.get_nodes(segment.encode())

    def members(self) -> Sequence[bytes]:
        """Those seen last, sorted; empty where the ring cannot be seen."""
        with self._lock:
            fresh = self._ring is not None and time.monotonic() - self._seen_at <= self._lease_s
            return sorted(self._ring.nodes) if fresh and self._ring is not None else []

    def stop(self) -> None:
        """Leaves the group, so that the others need not wait for the lease."""
        self._stopping.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(self._call_timeout_s * 3)

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait()
            self._wanted.clear()
            if self._stopping.is_set():
                break
            try:
                self._round()
            except Exception as error:
                LOG.warning("the ring of engines cannot be seen: %s: %s", type(error).__name__, error)
                self._hang_up()
        self._leave()

    def _round(self) -> None:
        """Heartbeat, read back, re-join if missing; then the view is what was read."""
        if self._coordinator is None:
            self._dial()
            self._join()
        self._coordinator.heartbeat()
        began = time.monotonic()
        members = self._members()
        if self._member_id not in members:
            self._join()
            began = time.monotonic()
            members = self._members()
        with self._lock:
            self._ring, self._seen_at = HashRing(sorted(members)), began
        self._seen.set()

    def _dial(self) -> None:
        coordinator = coordination.get_coordinator(next(self._urls), self._member_id)
        coordinator.start(start_heart=False)
        self._coordinator = coordinator

    def _members(self) -> set[bytes]:
        try:
            return set(self._answer(self._coordinator.get_members(self._group)))
        except coordination.GroupNotCreated:
            return set()

    def _join(self) -> None:
        try:
            self._answer(self._coordinator.create_group(self._group))
        except coordination.GroupAlreadyExist:
            pass
        try:
            self._answer(self._coordinator.join_group(self._group))
        except coordination.MemberAlreadyExist:
            # What an earlier life of this engine left, which nobody renews.
            self._answer(self._coordinator.leave_group(self._group))
            self._answer(self._coordinator.join_group(self._group))

    def _answer(self, asked: Any) -> Any:
        return asked.get(timeout=self._call_timeout_s)

    def _hang_up(self) -> None:
        """The next beat begins anew, at the next endpoint."""
        coordinator, self._coordinator = self._coordinator, None
        if coordinator is not None:
            try:
                coordinator.stop()
            except Exception as error:
                LOG.debug("closing a lost coordinator: %s", type(error).__name__)

    def _leave(self) -> None:
        if self._coordinator is not None:
            try:
                self._answer(self._coordinator.leave_group(self._group))
            except Exception as error:
                LOG.debug("leaving the ring: %s", type(error).__name__)
        self._hang_up()


def endpoint_urls(url: str, lease_s: float, call_timeout_s: float) -> list[str]:
    """One URL per endpoint, with the time limits in it. tooz itself knows a single host."""
    parts = urlsplit(url)
    lease = max(2, math.ceil(lease_s))
    limits = {"timeout": lease}
    hosts = [parts.netloc]
    if parts.scheme.startswith("etcd3"):
        limits = {"timeout": max(1, math.ceil(call_timeout_s)), "membership_timeout": lease}
        hosts = [host for host in parts.netloc.split(",") if host]
    given = parts.query.split("&") if parts.query else []
    named = {item.partition("=")[0] for item in given}
    query = "&".join([*given, *(f"{name}={value}" for name, value in limits.items() if name not in named)])
    return [urlunsplit((parts.scheme, host, parts.path, query, "")) for host in hosts]
