# SPDX-License-Identifier: Apache-2.0
"""Tells NFS-Ganesha that a client of NFSv3 has gone down, so that it lets go of the client's locks.

NFSv3's locks (NLM) have no lease: those of a host that died stay for good, also where the host itself is shut out. What
ends them is the word of the server's own status monitor (NSM), which Ganesha takes from the loopback alone.
"""

from __future__ import annotations

import socket
import struct

_LOOPBACK = "127.0.0.1"
_RPCBIND_PORT, _RPCBIND, _GETPORT, _TCP = 111, 100000, 3, 6
_NLM, _NLM_VERSION, _SM_NOTIFY = 100021, 4, 16
# An even number of NSM's says that the host is down, an odd one that it is up: no lock bears this one.
_DOWN = 0x7FFFFFFE
_LAST = 0x80000000


class NoLocks(Exception):
    """Ganesha does not serve NLM here, so there is no lock of NFSv3."""


def let_go(address: str) -> None:
    """Raises OSError, or NoLocks."""
    answer = _call(_RPCBIND_PORT, _RPCBIND, 2, _GETPORT, struct.pack(">4I", _NLM, _NLM_VERSION, _TCP, 0))
    port = struct.unpack(">I", answer)[0]
    if not port:
        raise NoLocks
    name = address.encode()
    padded = struct.pack(">I", len(name)) + name + bytes(-len(name) % 4)
    _call(port, _NLM, _NLM_VERSION, _SM_NOTIFY, padded + struct.pack(">i", _DOWN) + bytes(16))


def _call(port: int, program: int, version: int, procedure: int, arguments: bytes) -> bytes:
    """What an ONC RPC call without credentials answers."""
    head = struct.pack(">10I", 1, 0, 2, program, version, procedure, 0, 0, 0, 0)
    with socket.create_connection((_LOOPBACK, port)) as link:
        link.sendall(struct.pack(">I", _LAST | len(head + arguments)) + head + arguments)
        size = struct.unpack(">I", _exactly(link, 4))[0] & ~_LAST
        answer = _exactly(link, size)
    if len(answer) < 24 or struct.unpack(">6I", answer[:24]) != (1, 1, 0, 0, 0, 0):
        raise OSError("the call was not accepted")
    return answer[24:]


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        if not more:
            raise OSError("the connection was closed")
        data += more
    return data
