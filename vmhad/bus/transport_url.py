# SPDX-License-Identifier: Apache-2.0
"""oslo.messaging's transport URLs, read without oslo.messaging: it would cost an agent more memory than all it does.

rabbit://user:password@host:port,user:password@host:port/virtual_host; one URL is one broker, its hosts are ways to it.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from vmhad.bus.names import HEARTBEAT_S

SCHEMES = ("rabbit", "kombu", "amqp")
WHOLE = re.compile(r"(?P<scheme>\w+)://(?P<places>[^/?#]*)(/(?P<virtual_host>[^?#]*))?([?#].*)?")
PORT = 5672
# Who comes without a name, as every client of RabbitMQ has it.
GUEST = "guest"
CONNECT_WITHIN_S = 3.0
# A read or a write that takes longer is a connection that is lost; the broker's word that it lives comes oftener.
STALLED_S = 10.0
# What the peer has not acknowledged for so long was not sent: nothing old can come out of a buffer later.
UNACKNOWLEDGED_MS = 4000


@dataclass(frozen=True, slots=True)
class Place:
    """One host of a broker."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Broker:
    places: tuple[Place, ...]
    virtual_host: str
    ca_file: str = ""

    def arguments(self, place: Place) -> dict[str, Any]:
        """What amqp.Connection is made with: it never waits for ever, and with a CA the server proves its name."""
        tls = {"ca_certs": self.ca_file, "cert_reqs": ssl.CERT_REQUIRED, "server_hostname": place.host}
        return {
            "host": str(place),
            "userid": place.user,
            "password": place.password,
            "login_method": "PLAIN",
            "virtual_host": self.virtual_host,
            "ssl": tls if self.ca_file else False,
            "connect_timeout": CONNECT_WITHIN_S,
            "read_timeout": STALLED_S,
            "write_timeout": STALLED_S,
            "heartbeat": HEARTBEAT_S,
            "socket_settings": {socket.TCP_USER_TIMEOUT: UNACKNOWLEDGED_MS},
        }


def read_urls(urls: Sequence[str], ca_file: str) -> list[Broker]:
    """Raises ValueError with «number N» and what is wrong with it."""
    brokers = []
    for number, url in enumerate(urls, 1):
        try:
            brokers.append(read_url(url, ca_file))
        except ValueError as error:
            raise ValueError(f"number {number} {error}") from None
    return brokers


def read_url(url: str, ca_file: str = "") -> Broker:
    """Raises ValueError in words without the password, which those of urllib are not."""
    parts = WHOLE.fullmatch(url)
    if parts is None or parts["scheme"] not in SCHEMES:
        raise ValueError("is not a URL of rabbit://")
    places = tuple(_place(one) for one in parts["places"].split(",") if one)
    if not places:
        raise ValueError("names no host")
    return Broker(places, unquote(parts["virtual_host"] or "") or "/", ca_file)


def _place(text: str) -> Place:
    login, _, address = text.rpartition("@")
    user, _, password = login.partition(":")
    if address.startswith("["):
        host, closed, port = address[1:].partition("]")
        if not closed:
            raise ValueError("has a host in brackets that do not close")
        port = port.removeprefix(":")
    else:
        host, _, port = address.partition(":")
    if not host or (port and not (port.isdigit() and 0 < int(port) <= 65535)):
        raise ValueError("has a host without a name, or a port that is none")
    return Place(host, int(port or PORT), unquote(user) or GUEST, unquote(password) or GUEST)
