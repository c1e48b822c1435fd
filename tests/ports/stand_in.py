# SPDX-License-Identifier: Apache-2.0
"""A stand-in for nova-api that says over real HTTP whatever a test wants to have said."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, bytes]


class StandIn(ThreadingHTTPServer):
    """A Nova whose next answers are set by the test: answer(method, path) -> (status, body)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Talk)
        self.answer: Callable[[str, str], Answer] = lambda method, path: (200, b"{}")
        self.asked: list[tuple[str, str]] = []
        self.delay_s = 0.0
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v2.1"

    def versions(self) -> bytes:
        """Nova's version document."""
        link = {"rel": "self", "href": self.url}
        version = {"id": "v2.1", "status": "CURRENT", "version": "2.104", "min_version": "2.1", "links": [link]}
        return json.dumps({"version": version}).encode()


class Talk(BaseHTTPRequestHandler):
    """One connection to the stand-in; kept alive."""

    protocol_version = "HTTP/1.1"
    server: StandIn

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path in ("", "/", "/v2.1", "/v2.1/"):
            status, body = 200, self.server.versions()
        else:
            self.server.asked.append((self.command, self.path))
            if self.server.delay_s:
                self.server.released.wait(self.server.delay_s)
            status, body = self.server.answer(self.command, self.path)
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


@contextmanager
def running() -> Iterator[StandIn]:
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()
