# SPDX-License-Identifier: Apache-2.0
"""One request to Nova, Placement, Cinder or Keystone: sent once, counted, and its answer sorted into three.

A parsed answer; Refused, when the service itself says no in its own words; Unanswered for all else. A proxy's or web
server's error page is Unanswered too: only the service's own fault document proves that it understood.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from keystoneauth1 import loading
from keystoneauth1.plugin import BaseAuthPlugin
from keystoneauth1.session import Session
from openstack import connection
from openstack.proxy import Proxy

from vmhad.drivers.compute.wire import Limit, Wire, http_session
from vmhad.ports import Refused, Unanswered

NOT_UNDERSTOOD = frozenset({401, 407, 408, 425, 429})
TEXT_MAX = 500
COMPUTE, PLACEMENT, CINDER, KEYSTONE = "compute", "placement", "cinder", "keystone"
# How the catalog calls them, and the major version that is spoken; Placement has one only, and is not asked for it.
SERVICES = {
    COMPUTE: ("compute", 2),
    PLACEMENT: ("placement", 0),
    CINDER: ("block-storage", 3),
    KEYSTONE: ("identity", 3),
}


class Missing(Refused):
    """The service's own 404: the thing named does not exist."""


def asked_of(kind: str) -> str:
    """Whom calls of this kind go to."""
    return next((name for name in (PLACEMENT, CINDER, KEYSTONE) if kind.startswith(name)), COMPUTE)


class Calls:
    """A cloud's compute, placement, block storage and identity APIs behind one log-in. Safe in many threads.

    auth: a keystoneauth plugin, or the options of one: auth_url, username, password, ... and optionally auth_type
    (default password). timeout_s bounds every request, its log-in included. calls counts requests by (method, kind).
    """

    def __init__(
        self,
        auth: BaseAuthPlugin | Mapping[str, str],
        *,
        region: str = "",
        interface: str = "public",
        timeout_s: float = 10.0,
        verify: bool | str = True,
    ) -> None:
        self.timeout_s = timeout_s
        self.limit = Limit()
        self.calls: Counter[tuple[str, str]] = Counter()
        self._wire = Wire(self.limit)
        self._http = http_session(self._wire)
        plugin = auth if isinstance(auth, BaseAuthPlugin) else plugin_of(auth)
        self._session = Session(auth=plugin, session=self._http, verify=verify, app_name="vmhad")
        self._where: dict[str, Any] = {"region_name": region or None, "interface": interface}
        self._proxies: dict[str, Proxy] = {}
        self._ahead_s = 0.0
        self._lock = threading.Lock()
        # One each: a service that is silent when it is first asked keeps nobody from asking another.
        self._opening = {name: threading.Lock() for name in SERVICES}

    @property
    def http_requests(self) -> int:
        """Every HTTP request that was sent, log-ins and discovery included."""
        return self._wire.sent

    def ask(self, kind: str, method: str, path: str, microversion: str | None, **request: Any) -> dict[str, Any]:
        """The answer's JSON object ({} if it has no body). kind: counted, and named in errors; it says who is asked.
        microversion: None where the service has none.

        Raises Missing, Refused, Unanswered.
        """
        with self.limit.within(self.timeout_s):
            try:
                proxy = self._proxy(asked_of(kind))
                with self._lock:
                    self.calls[method, kind] += 1
                response = proxy.request(path, method, microversion=microversion, connect_retries=0, **request)
            except Exception as exc:
                raise Unanswered(f"{kind}: {_said(exc)}") from exc
        self._hear_time(response)
        return _answer(kind, method, response)

    def time_there(self) -> datetime:
        """What the services' clocks say, by their last answer; ours where none of them said. To a second or so."""
        return datetime.now(UTC) + timedelta(seconds=self._ahead_s)

    def _hear_time(self, response: requests.Response) -> None:
        try:
            theirs = parsedate_to_datetime(response.headers["Date"])
            self._ahead_s = (theirs - datetime.now(UTC)).total_seconds()
        except (KeyError, TypeError, ValueError):
            return

    def pages(self, kind: str, path: str, microversion: str, rows: str, params: Mapping[str, str]) -> Iterator[Any]:
        """The rows of a listing, page after page, by the marker in the service's own «next» link."""
        markers: set[str] = set()
        query = dict(params)
        while True:
            answer = self.ask(kind, "GET", path, microversion, params=query)
            page = answer.get(rows)
            if not isinstance(page, list):
                raise Unanswered(f"{kind}: the answer has no list «{rows}»")
            yield from page
            marker = _next_marker(answer.get(f"{rows}_links"))
            if not marker:
                return
            if marker in markers:
                raise Unanswered(f"{kind}: the listing goes round in circles")
            markers.add(marker)
            query["marker"] = marker

    def parsed(self, kind: str, parse: Callable[[Any], Any], rows: Iterator[Any] | list[Any]) -> list[Any]:
        """Every row through parse; Unanswered if one of them is garbage."""
        try:
            return [parse(row) for row in rows]
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise Unanswered(f"{kind}: a row cannot be read: {_said(exc)}") from exc

    def close(self) -> None:
        self._http.close()

    def _proxy(self, service: str) -> Proxy:
        """The SDK's adapter of one service. Built once, with its endpoint fixed, so that no call needs discovery."""
        with self._opening[service]:
            if service not in self._proxies:
                self._proxies[service] = self._open(service)
            return self._proxies[service]

    def _open(self, service: str) -> Proxy:
        kind, major = SERVICES[service]
        wanted: dict[str, Any] = {"min_version": (major,), "max_version": (major, "latest")} if major else {}
        endpoint = self._session.get_endpoint(service_type=kind, **self._where, **wanted)
        if not endpoint:
            raise Unanswered(f"the service catalog has no {kind} endpoint for this region and interface")
        name = kind.replace("-", "_")
        fixed: dict[str, Any] = {
            f"{name}_endpoint_override": endpoint,
            f"{name}_api_version": str(major or 1),
            "region_name": self._where["region_name"],
        }
        opened = connection.Connection(session=self._session, **fixed)
        proxy = getattr(opened, name)
        assert isinstance(proxy, Proxy)
        return proxy


def plugin_of(auth: Mapping[str, str]) -> BaseAuthPlugin:
    """A keystoneauth plugin from its options; raises keystoneauth's own errors when they do not fit."""
    options = dict(auth)
    loader: loading.BaseLoader[Any] = loading.get_plugin_loader(options.pop("auth_type", "password"))
    plugin: BaseAuthPlugin = loader.load_from_options(**options)
    return plugin


def _answer(kind: str, method: str, response: requests.Response) -> dict[str, Any]:
    status = response.status_code
    if 200 <= status < 300:
        return _body(kind, method, response)
    words = fault_text(response)
    if 400 <= status < 500 and status not in NOT_UNDERSTOOD and words is not None:
        raise (Missing if status == 404 else Refused)(words)
    raise Unanswered(f"{kind}: HTTP {status}" + (f": {words}" if words else " without a word of the service's own"))


def _body(kind: str, method: str, response: requests.Response) -> dict[str, Any]:
    if method == "POST" or not response.content:
        return {}
    try:
        body = response.json()
    except ValueError as exc:
        raise Unanswered(f"{kind}: the answer is not JSON") from exc
    if not isinstance(body, dict):
        raise Unanswered(f"{kind}: the answer is not a JSON object")
    return body


def fault_text(response: requests.Response) -> str | None:
    """What the service says in its fault document, shortened; None if the body is no such document."""
    try:
        body = response.json()
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    faults = [fault for fault in body.values() if isinstance(fault, dict) and isinstance(fault.get("message"), str)]
    if len(body) == 1 and faults:
        return str(faults[0]["message"])[:TEXT_MAX]
    errors = body.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        return " ".join(str(errors[0].get("detail") or errors[0].get("title") or "").split())[:TEXT_MAX]
    return None


def _next_marker(links: object) -> str:
    if not isinstance(links, list):
        return ""
    for link in links:
        if isinstance(link, dict) and link.get("rel") == "next":
            return parse_qs(urlsplit(str(link.get("href"))).query).get("marker", [""])[0]
    return ""


def _said(exc: Exception) -> str:
    first = str(exc).strip().splitlines()[:1]
    return f"{type(exc).__name__}{': ' + first[0][:TEXT_MAX] if first else ''}"
