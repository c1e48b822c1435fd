# SPDX-License-Identifier: Apache-2.0
"""ONC RPC over TCP, as much of it as clients of NFS in tests need."""

from __future__ import annotations

import itertools
import socket
import struct

LIMIT_S = 5.0
_LAST = 0x80000000
_RPCBIND, _GETPORT, _TCP = 100000, 3, 6


class Said(Exception):
    """An error that the server said, by its number."""


def u32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def u64(value: int) -> bytes:
    return struct.pack(">Q", value)


def opaque(data: bytes) -> bytes:
    return u32(len(data)) + data + bytes(-len(data) % 4)


class Answer:
    """XDR, from its beginning on."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, size: int) -> bytes:
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def u32(self) -> int:
        return int(struct.unpack(">I", self.take(4))[0])

    def opaque(self) -> bytes:
        size = self.u32()
        return self.take(size + -size % 4)[:size]

    def good(self) -> Answer:
        """Past a status. Raises Said where that is an error."""
        status = self.u32()
        if status:
            raise Said(status)
        return self


class Link:
    """A connection to one port. Every call raises OSError, and Said(-1) where it is not let in."""

    def __init__(self, server: str, port: int) -> None:
        self._link = socket.create_connection((server, port), LIMIT_S)
        self._calls = itertools.count(1)

    def call(self, program: int, version: int, procedure: int, arguments: bytes) -> Answer:
        number = next(self._calls)
        credentials = u32(1) + opaque(u32(0) + opaque(b"host") + u32(0, 0, 0))
        body = u32(number, 0, 2, program, version, procedure) + credentials + u32(0, 0) + arguments
        self._link.sendall(u32(_LAST | len(body)) + body)
        answer = Answer(self._record())
        assert answer.u32() == number and answer.u32() == 1
        if answer.u32():
            raise Said(-1)
        answer.u32()
        answer.opaque()
        if answer.u32():
            raise Said(-1)
        return answer

    def _record(self) -> bytes:
        whole = b""
        while True:
            mark = struct.unpack(">I", self._bytes(4))[0]
            whole += self._bytes(mark & ~_LAST)
            if mark & _LAST:
                return whole

    def _bytes(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._link.recv(size - len(data))
            if not more:
                raise ConnectionResetError
            data += more
        return data


def port_of(server: str, program: int, version: int) -> int:
    return Link(server, 111).call(_RPCBIND, 2, _GETPORT, u32(program, version, _TCP, 0)).u32()
