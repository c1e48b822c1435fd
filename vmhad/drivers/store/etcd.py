# SPDX-License-Identifier: Apache-2.0
"""The journal's store for several engines: etcd v3 (3.4 or newer) through its JSON gateway, with etcd3gw.

Reads go round the endpoints until one answers. A commit is sent once. It goes on to the next endpoint only when the
connection to this one could not be made, so that nothing was sent; once a request may have left, any answer but a clear
one is Unanswered: the commit may have been applied, or may be applied later by a member that was only slow. Sending it
again elsewhere would turn «we do not know» into a Conflict with ourselves. After any failure the next call starts at
another endpoint.

revision(prefix) reads marks (ranges.py) that each commit sets beside its puts; etcd's own range by modification
forgets deletions and sorts the whole range, and the header's revision moves with every renewal of every lease.

etcd keeps every old version until it is compacted, and by default (3.4) never compacts: run it with
--auto-compaction-retention, or it stops taking writes at its space quota.
"""

from __future__ import annotations

import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from etcd3gw.client import Etcd3Client
from etcd3gw.exceptions import Etcd3Exception
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError

from vmhad.drivers.store.ranges import check_commit, mark_covering, marks_of, prefix_end
from vmhad.ports import Compare, Conflict, Unanswered

_PAGE = 1000
# The part of a try's time that may go by before a connection stands.
_CONNECT_SHARE = 0.25
_POOL = 8
# Keys of the journal start with '/', so the marks are in nobody's list.
_MARK = "mark:"
# What a call may end with when there is no clear answer; the last two come of garbage in place of JSON.
_TROUBLES = (Etcd3Exception, requests.RequestException, ValueError, TypeError)


class _Endpoint:
    def __init__(self, url: str, ca_file: str, cert_file: str, key_file: str) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError("an etcd endpoint is http(s)://host:port, with no user in it")
        self._protocol, self._host, self._port = parts.scheme, parts.hostname, parts.port or 2379
        self.name = f"{self._protocol}://{parts.netloc}"
        self._session = requests.Session()
        # No proxy from the environment: it would answer for a dead member.
        self._session.trust_env = False
        self._session.verify = ca_file or True
        if cert_file and key_file:
            self._session.cert = (cert_file, key_file)
        self._session.mount(f"{self._protocol}://", HTTPAdapter(pool_connections=1, pool_maxsize=_POOL))

    def post(self, path: str, body: Mapping[str, Any], connect_s: float, answer_s: float) -> Mapping[str, Any]:
        """One request. A client each time, as its timeout is the client's and calls come from several threads."""
        client = Etcd3Client(
            host=self._host,
            port=self._port,
            protocol=self._protocol,
            timeout=cast(float, (connect_s, answer_s)),
            api_path="/v3/",
            session=self._session,
        )
        answer = client.post(client.get_url(path), json=body)
        if not isinstance(answer, dict) or not isinstance(answer.get("header"), dict):
            raise ValueError("the answer is not etcd's")
        return answer

    def close(self) -> None:
        self._session.close()


class EtcdStore:
    """endpoints: URLs of the members, tried in order. timeout_s: for one get, commit, revision, or page of a list."""

    def __init__(
        self, endpoints: Sequence[str], timeout_s: float, ca_file: str = "", cert_file: str = "", key_file: str = ""
    ) -> None:
        """Raises ValueError for endpoints that are none; connects only when first used."""
        if not endpoints:
            raise ValueError("etcd needs at least one endpoint")
        self._endpoints = tuple(_Endpoint(url, ca_file, cert_file, key_file) for url in endpoints)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._first = 0

    def close(self) -> None:
        for endpoint in self._endpoints:
            endpoint.close()

    def get(self, key: str) -> bytes | None:
        rows = self._read({"key": _text(key.encode())}).get("kvs", [])
        return _bytes(rows[0], "value") if rows else None

    def list(self, prefix: str) -> Mapping[str, bytes]:
        start = prefix.encode() or b"\0"
        body: dict[str, Any] = {"range_end": _text(prefix_end(start) if prefix else b"\0"), "limit": _PAGE}
        found: dict[str, bytes] = {}
        while True:
            answer = self._read(body | {"key": _text(start)})
            rows = answer.get("kvs", [])
            found |= {_bytes(row, "key").decode(): _bytes(row, "value") for row in rows}
            if not answer.get("more"):
                return {key: value for key, value in found.items() if not key.startswith(_MARK)}
            # Later pages at the first one's revision: one consistent view.
            body.setdefault("revision", answer["header"]["revision"])
            start = _bytes(rows[-1], "key") + b"\0"

    def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        """As the port says. Unanswered: it may have been applied, or may still be, except where it says otherwise."""
        check_commit(compares, puts, deletes)
        marks = {_MARK + mark: b"" for mark in marks_of(puts, deletes)}
        answer = self._send(
            {
                "compare": [_compare(compare) for compare in compares],
                "success": [_put(key, value) for key, value in {**puts, **marks}.items()]
                + [{"request_delete_range": {"key": _text(key.encode())}} for key in deletes],
            }
        )
        if not answer.get("succeeded"):
            raise Conflict("etcd found other values than those compared")
        return int(answer["header"]["revision"])

    def revision(self, prefix: str) -> int:
        mark = mark_covering(prefix)
        answer = self._read({"key": _text((_MARK + (mark or "")).encode()), "keys_only": True})
        if mark is None:
            return int(answer["header"]["revision"])
        rows = answer.get("kvs", [])
        return int(rows[0]["mod_revision"]) if rows else 0

    def _read(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        troubles = []
        for index, endpoint, left_s, left in self._round():
            share_s = left_s / left
            try:
                return endpoint.post("/kv/range", body, share_s * _CONNECT_SHARE, share_s * (1 - _CONNECT_SHARE))
            except _TROUBLES as error:
                self._leave(index)
                troubles.append(f"{endpoint.name}: {_words(error)}")
        raise Unanswered("no etcd endpoint answered: " + "; ".join(troubles))

    def _send(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        troubles = []
        for index, endpoint, left_s, left in self._round():
            connect_s = left_s / left * _CONNECT_SHARE
            try:
                return endpoint.post("/kv/txn", body, connect_s, left_s - connect_s)
            except _TROUBLES as error:
                self._leave(index)
                if not _never_sent(error):
                    text = f"etcd at {endpoint.name} gave no clear answer to a commit; it may have been applied"
                    raise Unanswered(f"{text}: {_words(error)}") from error
                troubles.append(f"{endpoint.name}: {_words(error)}")
        raise Unanswered("no etcd endpoint could be reached, nothing was sent: " + "; ".join(troubles))

    def _round(self) -> Iterator[tuple[int, _Endpoint, float, int]]:
        """Each endpoint once, from the one that answered last: (index, endpoint, seconds left, endpoints left)."""
        deadline = time.monotonic() + self._timeout_s
        count = len(self._endpoints)
        with self._lock:
            first = self._first
        for turn in range(count):
            index = (first + turn) % count
            # Never zero: the transport takes that for a mistake.
            yield index, self._endpoints[index], max(deadline - time.monotonic(), 0.01), count - turn

    def _leave(self, index: int) -> None:
        with self._lock:
            if self._first == index:
                self._first = (index + 1) % len(self._endpoints)


def _text(raw: bytes) -> str:
    return b64encode(raw).decode()


def _bytes(row: Mapping[str, str], name: str) -> bytes:
    # The gateway leaves empty values out.
    return b64decode(row.get(name, ""))


def _put(key: str, value: bytes) -> dict[str, Any]:
    return {"request_put": {"key": _text(key.encode()), "value": _text(value)}}


def _compare(compare: Compare) -> dict[str, Any]:
    wanted = {"key": _text(compare.key.encode()), "result": "EQUAL"}
    if compare.value is None:
        return wanted | {"target": "VERSION", "version": 0}
    return wanted | {"target": "VALUE", "value": _text(compare.value)}


def _never_sent(error: Exception) -> bool:
    """True only if no connection stood, so that nothing of the request has left; False for what is not recognised."""
    cause = error.__context__
    if isinstance(cause, requests.exceptions.ConnectTimeout):
        return True
    reason = getattr(cause.args[0], "reason", None) if cause is not None and cause.args else None
    return isinstance(cause, requests.exceptions.ConnectionError) and isinstance(reason, NewConnectionError)


def _words(error: Exception) -> str:
    """What went wrong, for an operator; etcd3gw keeps the server's words out of str()."""
    text = getattr(error, "detail_text", None) or str(error) or type(error).__name__
    return str(text)[:200]
