# SPDX-License-Identifier: Apache-2.0
"""Talk with one Redfish service that ends when its time is up, whatever the service sends or does not send.

sushy asks three times with pauses, and bounds each wait for a packet, not the whole. Both are closed here: one attempt,
and one deadline over the connection, the TLS handshake, and every byte. Each request carries its authentication, so
there is no session on the BMC that could be left behind. The certificate is always verified, and only against what was
configured: neither the environment nor a bundle of requests' own has a say, and no proxy is asked.
"""

from __future__ import annotations

import functools
import logging
import os
import ssl
import threading
import time
from math import inf
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from sushy.connector import Connector
from sushy.resources.base import Field, MappedField, ResourceBase
from sushy.resources.constants import PowerState, ResetType
from sushy.resources.system.system import System, SystemCollection

from vmhad.drivers.power.redfish_bmc import RedfishBmc

# At every reading of a BMC that does not answer it would tell an error, beside what is told of that here.
logging.getLogger("sushy").setLevel(logging.CRITICAL)

SYSTEMS = "/redfish/v1/Systems"
# A part of the path of every outlet of a power distribution unit.
OUTLETS = "/Outlets/"
REDIRECTS_MAX = 3
FORCE_OFF = (ResetType.FORCE_OFF,)
# Some BMCs know only one of the two words.
SWITCH_ON = (ResetType.ON, ResetType.FORCE_ON)


class NotThisSystem(Exception):
    """The service has not the system that was configured, or cannot show that it is the one."""


class NoTrust(Exception):
    """The file to hold certificates against cannot be used."""


class _Limit(threading.local):
    """Until when the call of this thread may take; on time.monotonic()."""

    until = inf

    def left_s(self) -> float:
        left_s = self.until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s


_LIMIT = _Limit()


class _BoundedSocket(ssl.SSLSocket):
    """Waits for a byte no longer than the call has left; a server that trickles gains nothing."""

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(_LIMIT.left_s())
        super().do_handshake(block)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_LIMIT.left_s())
        return super().recv_into(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_LIMIT.left_s())
        return super().send(*args, **kwargs)


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        return _context_of(ca_file, os.stat(ca_file).st_mtime_ns if ca_file else 0)
    except (OSError, ssl.SSLError):
        raise NoTrust(f"ca_file {ca_file} cannot be used") from None


@functools.lru_cache(maxsize=1024)
def _context_of(ca_file: str, changed_at: int) -> ssl.SSLContext:
    """Reading the certificates that a machine trusts takes longer than asking a BMC. A new file makes a new one."""
    context = ssl.create_default_context(cafile=ca_file or None)
    context.sslsocket_class = _BoundedSocket
    return context


class _OneTrust(HTTPAdapter):
    """requests adds certificates of its own to a context; here it adds none."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(max_retries=0, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"


class _BoundedConnector(Connector):  # type: ignore[misc]
    def __init__(self, bmc: RedfishBmc) -> None:
        super().__init__(f"https://{bmc.place}", verify=True, server_side_retries=1)
        self.deadline = inf
        session: requests.Session = self._session
        session.trust_env = False
        session.max_redirects = REDIRECTS_MAX
        # One handshake a call is enough: it is what costs a BMC most.
        session.headers.pop("Connection", None)
        # Without an adapter for http a redirect out of TLS leads nowhere.
        session.adapters.clear()
        session.mount("https://", _OneTrust(_context(bmc.ca_file)))
        self.set_http_basic_auth(bmc.user.encode(), bmc.password.encode())

    def _op(self, *args: Any, **kwargs: Any) -> Any:
        _LIMIT.until = self.deadline
        return super()._op(*args, **{**kwargs, "timeout": _LIMIT.left_s(), "server_side_retries_left": 0})


class RedfishSession:
    """A connection to one system, for one thread at a time. Every method may raise any exception of sushy's or
    requests', or OSError."""

    def __init__(self, bmc: RedfishBmc, deadline: float) -> None:
        """Says nothing to the service yet. deadline: on time.monotonic()."""
        self._bmc = bmc
        self._connector = _BoundedConnector(bmc)
        self._connector.deadline = deadline
        self._path = bmc.system

    def allow_until(self, deadline: float) -> None:
        """A kept connection gets a new deadline for each use."""
        self._connector.deadline = deadline

    def system(self) -> System | Outlet:
        """As it is now."""
        if not self._path:
            paths = SystemCollection(self._connector, SYSTEMS).members_identities
            if len(paths) != 1:
                raise NotThisSystem(f"has {len(paths)} systems, and no name says which")
            self._path = paths[0]
        return (Outlet if OUTLETS in self._path else System)(self._connector, self._path)

    def close(self) -> None:
        self._connector.close()


class Outlet(ResourceBase):  # type: ignore[misc]
    """Of a power distribution unit. sushy has no word for it; the schema is DMTF's."""

    power_state = MappedField("PowerState", PowerState)
    uuid = None
    _target = Field(["Actions", "#Outlet.PowerControl", "target"])

    def switch(self, on: bool) -> None:
        if not self._target:
            raise NotThisSystem("offers no way to switch this outlet")
        self._conn.post(self._target, data={"PowerState": "On" if on else "Off"})


def switch(system: System | Outlet, on: bool) -> None:
    """Off is what a hand on the button does, without a word to whatever runs."""
    if isinstance(system, Outlet):
        system.switch(on)
        return
    ways, offered = SWITCH_ON if on else FORCE_OFF, system.get_allowed_reset_system_values()
    way = next((way for way in ways if way in offered), None)
    if way is None:
        raise NotThisSystem(f"does not offer {' or '.join(way.value for way in ways)}")
    system.reset_system(way)


def is_on(system: System | Outlet) -> bool | None:
    """None where it does not say. What is still going off has power."""
    return None if system.power_state is None else system.power_state is not PowerState.OFF
