# SPDX-License-Identifier: Apache-2.0
"""When a recovered VM counts as ready for those that come after it: what is asked, and what was seen.

As an operator writes it: «port», «agent», «tcp:5432», «http:8080/healthz»; with an address where its own cannot be
reached, or another one is meant: «tcp:198.51.100.7:5432», «http:[2001:db8::7]:8080/healthz».
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

PORT_MAX = 65535
PATH_MAX = 255
PROBE = re.compile(
    r"(?P<kind>tcp|http):(?:\[(?P<v6>[^\]]+)\]:|(?P<v4>[0-9.]+):)?(?P<port>[0-9]{1,5})(?P<path>/[!-~]*)?"
)
WAYS = "port, agent, tcp:PORT, http:PORT/PATH; tcp:ADDRESS:PORT and http:ADDRESS:PORT/PATH, where ADDRESS is an IP"


class Kind(StrEnum):
    """PORT: all of its ports in Neutron are ACTIVE. AGENT: its guest agent has its port open. TCP: something accepts a
    connection. HTTP: something answers a GET with a status from 200 to 399."""

    PORT = "port"
    AGENT = "agent"
    TCP = "tcp"
    HTTP = "http"


class Ready(StrEnum):
    """READY is said only of what was observed. UNKNOWN is waited for as what is not ready."""

    READY = "ready"
    NOT_READY = "not ready"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Gate:
    """address: '' for those that Nova has of the VM. port, path: of TCP and HTTP only."""

    kind: Kind
    address: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if not self.port:
            return self.kind.value
        place = f"{spoken(self.address, self.port)}" if self.address else f"{self.port}"
        return f"{self.kind.value}:{place}{self.path}"


@dataclass(frozen=True, slots=True)
class GateSeen:
    """What one look at the gate of a VM saw. words: why, for an operator. at: when the look began."""

    gate: str
    ready: Ready
    words: str
    at: float


@dataclass(frozen=True, slots=True)
class GateAsk:
    """One that somebody waits for. name: the VM's, for the log."""

    server: str
    gate: str
    name: str = ""


def spoken(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def read_gate(text: str) -> Gate:
    """Raises ValueError, which says what is wrong."""
    if text in (Kind.PORT, Kind.AGENT):
        return Gate(Kind(text))
    found = PROBE.fullmatch(text)
    if found is None:
        raise ValueError(f"must be one of {WAYS}")
    kind, port, path = Kind(found["kind"]), int(found["port"]), found["path"] or ""
    if not 0 < port <= PORT_MAX:
        raise ValueError(f"names port {port}; ports go from 1 to {PORT_MAX}")
    if path and kind is Kind.TCP:
        raise ValueError("has a path, which only http asks for")
    if len(path) > PATH_MAX:
        raise ValueError(f"has a path of more than {PATH_MAX} characters")
    return Gate(kind, _address(found["v6"] or found["v4"] or ""), port, path or ("/" if kind is Kind.HTTP else ""))


def _address(text: str) -> str:
    if not text:
        return ""
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError(f"names {text!r}, which is no IP address") from None
    if address.is_multicast or address.is_unspecified or "%" in text:
        raise ValueError(f"names {text}, which is the address of no one machine")
    return str(address)
