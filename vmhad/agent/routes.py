# SPDX-License-Identifier: Apache-2.0
"""Which of this host's links the kernel would use for an address, and whether there is a carrier on it."""

from __future__ import annotations

import ipaddress
import socket
import struct
from pathlib import Path

LINKS = Path("/sys/class/net")
# From linux/rtnetlink.h: ask for one route; the attributes for «to where» and «out of which link».
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
NLM_F_REQUEST = 1
RTA_DST, RTA_OIF = 1, 4
HEADER = struct.Struct("=IHHII")
ROUTE = struct.Struct("=BBBBBBBBI")
ATTRIBUTE = struct.Struct("=HH")
ANSWER_WITHIN_S = 0.5


def way_is_open(address: str) -> bool:
    """There is a route to the address and its link has a carrier. A look past that says nothing of the peer."""
    link = link_towards(address)
    return link != "" and has_carrier(link)


def has_carrier(link: str) -> bool:
    """A link that is switched off has none, and the kernel then refuses to say."""
    try:
        return (LINKS / link / "carrier").read_text().strip() == "1"
    except OSError:
        return False


def link_towards(address: str) -> str:
    """'' where there is no route."""
    packed = ipaddress.ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    body = ROUTE.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
    body += ATTRIBUTE.pack(ATTRIBUTE.size + len(packed), RTA_DST) + packed
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asked:
        asked.settimeout(ANSWER_WITHIN_S)
        asked.send(HEADER.pack(HEADER.size + len(body), RTM_GETROUTE, NLM_F_REQUEST, 1, 0) + body)
        answer = asked.recv(65536)
    kind = HEADER.unpack_from(answer)[1]
    if kind != RTM_NEWROUTE:
        return ""
    at = HEADER.size + ROUTE.size
    while at + ATTRIBUTE.size <= len(answer):
        length, attribute = ATTRIBUTE.unpack_from(answer, at)
        if attribute == RTA_OIF:
            (index,) = struct.unpack_from("=I", answer, at + ATTRIBUTE.size)
            return socket.if_indextoname(index)
        at += max(length + 3 & ~3, ATTRIBUTE.size)
    return ""
