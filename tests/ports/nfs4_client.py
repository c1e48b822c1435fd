# SPDX-License-Identifier: Apache-2.0
"""A client of NFSv4.0 with one open file, as a process of its own: the operations that matter here, and no others.

`nfs4_client SERVER PSEUDO FILE` opens the file for writing and says «open»; for each line that it reads it does what
the line says (write; renew: keep its state alive; reclaim: after the server was restarted) and says ok, or no and the
number of NFSv4's error.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import sys

from tests.ports.onc_rpc import Answer, Link, Said, opaque, u32, u64

PORT, PROGRAM = 2049, 100003
PUTROOTFH, PUTFH, GETFH, LOOKUP, OPEN, OPEN_CONFIRM = 24, 22, 10, 15, 18, 20
RENEW, SETCLIENTID, SETCLIENTID_CONFIRM, WRITE = 30, 35, 36, 38
CONFIRM_IT = 2


class Results:
    """Of one compound, in the order of its operations."""

    def __init__(self, answer: Answer) -> None:
        self.rest = answer

    def of(self, operation: int) -> Answer:
        """Raises Said where it failed."""
        assert self.rest.u32() == operation
        return self.rest.good()


class Session:
    """One file, open for writing. Every call raises Said and OSError."""

    def __init__(self, server: str, pseudo: str, name: str) -> None:
        self._server = server
        self._link = Link(server, PORT)
        self._places = itertools.count(1)
        self._client = self._set_client()
        self._handle, self._state = self._open(pseudo.strip("/").split("/"), name.strip("/"))

    def write(self) -> None:
        number = next(self._places)
        block = struct.pack("<Q", number).ljust(4096, b"v")
        write = u32(WRITE) + self._state + u64(4096 * (number % 256)) + u32(2) + opaque(block)
        results = self._compound([u32(PUTFH) + opaque(self._handle), write])
        results.of(PUTFH)
        results.of(WRITE)

    def renew(self) -> None:
        self._compound([u32(RENEW) + self._client]).of(RENEW)

    def reclaim(self) -> None:
        """From a server that was restarted: I had this file open."""
        self._link = Link(self._server, PORT)
        self._client = self._set_client()
        how = u32(OPEN, 1, 2, 0) + self._client + opaque(b"owner") + u32(0, 1, 0)
        results = self._compound([u32(PUTFH) + opaque(self._handle), how])
        results.of(PUTFH)
        results.of(OPEN)

    def _set_client(self) -> bytes:
        owner = f"{socket.gethostname()} {os.getpid()}".encode()
        nobody = u32(0) + opaque(b"tcp") + opaque(b"0.0.0.0.0.0") + u32(0)
        answer = self._compound([u32(SETCLIENTID) + os.urandom(8) + opaque(owner) + nobody]).of(SETCLIENTID)
        client, verifier = answer.take(8), answer.take(8)
        self._compound([u32(SETCLIENTID_CONFIRM) + client + verifier]).of(SETCLIENTID_CONFIRM)
        return client

    def _open(self, folders: list[str], name: str) -> tuple[bytes, bytes]:
        walk = [u32(PUTROOTFH), *(u32(LOOKUP) + opaque(folder.encode()) for folder in folders)]
        # For writing, denying nobody; made if it is not there, without attributes; by its name in the folder.
        how = u32(OPEN, 1, 2, 0) + self._client + opaque(b"owner") + u32(1, 0, 0) + opaque(b"") + u32(0)
        results = self._compound([*walk, how + opaque(name.encode()), u32(GETFH)])
        results.of(PUTROOTFH)
        for _ in folders:
            results.of(LOOKUP)
        answer = results.of(OPEN)
        state = answer.take(16)
        answer.take(20)
        flags = answer.u32()
        answer.take(4 * answer.u32())
        assert answer.u32() == 0, "a delegation was given"
        handle = results.of(GETFH).opaque()
        if flags & CONFIRM_IT:
            results = self._compound([u32(PUTFH) + opaque(handle), u32(OPEN_CONFIRM) + state + u32(2)])
            results.of(PUTFH)
            state = results.of(OPEN_CONFIRM).take(16)
        return handle, state

    def _compound(self, operations: list[bytes]) -> Results:
        arguments = opaque(b"") + u32(0, len(operations)) + b"".join(operations)
        answer = self._link.call(PROGRAM, 4, 1, arguments)
        answer.u32()
        answer.opaque()
        answer.u32()
        return Results(answer)


def main() -> None:
    session = Session(*sys.argv[1:4])
    print("open", flush=True)
    for line in sys.stdin:
        try:
            {"write": session.write, "renew": session.renew, "reclaim": session.reclaim}[line.strip()]()
            print("ok", flush=True)
        except (Said, OSError) as error:
            print("no", error, flush=True)


if __name__ == "__main__":
    main()
