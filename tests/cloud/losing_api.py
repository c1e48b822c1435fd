# SPDX-License-Identifier: Apache-2.0
"""A door before the lab's real nova-api that loses answers: Nova has done what was asked, and the asker is told 500, or
nothing. Everything else passes as it is."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

FORWARD_LIMIT_S = 60.0
NOT_FORWARDED = {"connection", "keep-alive", "transfer-encoding", "content-length"}
LOST = b'{"computeFault": {"code": 500, "message": "the answer was lost"}}'


class LosingApi:
    """url: what takes the place of nova-api's own. The first `errors` evacuations are done and answered with 500, the
    next `silences` are done and never answered. lost: the server ids of those, in order."""

    def __init__(self, nova_url: str, errors: int, silences: int) -> None:
        self.real = urlsplit(nova_url)
        self.losses = ["error"] * errors + ["silence"] * silences
        self.lost: list[str] = []
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._door())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}{self.real.path}"

    def __enter__(self) -> LosingApi:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def loss(self, path: str, body: bytes) -> str:
        """'' or how the answer to this request is lost; each loss happens once."""
        if not path.endswith("/action") or b'"evacuate"' not in body:
            return ""
        with self._lock:
            if not self.losses:
                return ""
            self.lost.append(path.split("/")[-2])
            return self.losses.pop(0)

    def _door(api: LosingApi) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler below has the self
        class Door(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                onward = http.client.HTTPConnection(api.real.hostname or "", api.real.port, timeout=FORWARD_LIMIT_S)
                try:
                    onward.request(self.command, self.path, body or None, dict(self.headers))
                    answer = onward.getresponse()
                    status, headers, text = answer.status, answer.getheaders(), answer.read()
                finally:
                    onward.close()
                loss = api.loss(self.path, body) if status < 300 else ""
                if loss == "silence":
                    api.ended.wait()
                    self.close_connection = True
                    return
                if loss == "error":
                    status, headers, text = 500, [("Content-Type", "application/json")], LOST
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in NOT_FORWARDED:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_DELETE = forward

            def log_message(self, format: str, *args: object) -> None:
                """The lab's own log has every request."""

        return Door
