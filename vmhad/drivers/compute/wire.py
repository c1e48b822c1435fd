# SPDX-License-Identifier: Apache-2.0
"""How HTTP is spoken: one pool of kept-alive connections, every request counted and held to the caller's time limit.

Keystone's log-in, version discovery and the call itself all pass here, so a limit holds for their sum. Nothing is
tried twice, with one exception that HTTP itself provides for: a GET that met a kept-alive connection which the server
had just closed is sent once more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from keystoneauth1.session import TCPKeepAliveAdapter
from urllib3.exceptions import ProtocolError

POOL_SIZE = 32
CONNECT_LIMIT_S = 2.0


class Limit(threading.local):
    """The moment at which the calling thread's present call must be over."""

    def __init__(self) -> None:
        self.until = float("inf")

    def left(self) -> float:
        """Seconds; negative when time is over."""
        return self.until - time.monotonic()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """The block's calls end within seconds; an outer, shorter limit goes on to hold."""
        outer = self.until
        self.until = min(outer, time.monotonic() + seconds)
        try:
            yield
        finally:
            self.until = outer

    @contextmanager
    def same_as(self, until: float) -> Iterator[None]:
        """The block's calls end when those of another thread must."""
        outer, self.until = self.until, until
        try:
            yield
        finally:
            self.until = outer


class Wire(TCPKeepAliveAdapter):
    """The transport under the requests session. sent: how many HTTP requests left this process through it."""

    def __init__(self, limit: Limit) -> None:
        self.sent = 0
        self._limit = limit
        self._lock = threading.Lock()
        super().__init__(pool_connections=8, pool_maxsize=POOL_SIZE)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """As requests' own; raises requests.Timeout once the caller's limit is over."""
        try:
            return self._send_once(request, kwargs)
        except requests.ConnectionError as exc:
            closed_by_server = bool(exc.args) and isinstance(exc.args[0], ProtocolError)
            if request.method != "GET" or not closed_by_server:
                raise
            return self._send_once(request, kwargs)

    def _send_once(self, request: requests.PreparedRequest, kwargs: dict[str, Any]) -> requests.Response:
        left = self._limit.left()
        if left <= 0:
            raise requests.Timeout("the time limit of this call is over")
        with self._lock:
            self.sent += 1
        if left != float("inf"):
            connect = min(CONNECT_LIMIT_S, left / 2)
            kwargs["timeout"] = (connect, left - connect)
        return super().send(request, **kwargs)


def http_session(wire: Wire) -> requests.Session:
    """A requests session that speaks through the wire only."""
    session = requests.Session()
    session.mount("http://", wire)
    session.mount("https://", wire)
    return session
