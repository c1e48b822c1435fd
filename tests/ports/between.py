# SPDX-License-Identifier: Apache-2.0
"""Peers that garble, delay or lose what a BMC says, over UDP, or over TCP with and without TLS; real packets over the
loopback."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable

Reply = Callable[[bytes], bytes | None]

GARBAGE: dict[str, Reply] = {
    "one byte": lambda packet: b"\x06",
    "noise": lambda packet: os.urandom(60),
    "echo": lambda packet: packet,
    "zeroes": lambda packet: bytes(64),
    "rmcp and noise": lambda packet: bytes.fromhex("0600ff07") + os.urandom(40),
    "text": lambda packet: b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


class Between:
    """A UDP server that answers by reply; with a BMC behind it, what reply lets through (None) goes on to the BMC."""

    def __init__(self, reply: Reply, behind: int = 0) -> None:
        self._reply, self._behind = reply, behind
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.port = int(self._socket.getsockname()[1])
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Between:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as onward:
            onward.settimeout(0.5)
            while not self._over.is_set():
                try:
                    packet, client = self._socket.recvfrom(4096)
                except TimeoutError:
                    continue
                answer = self._reply(packet)
                if answer is None and self._behind:
                    onward.sendto(packet, ("127.0.0.1", self._behind))
                    try:
                        answer = onward.recv(4096)
                    except TimeoutError:  # it has nothing to say to a packet that came too late
                        continue
                if answer:
                    self._socket.sendto(answer, client)


def deaf_after_the_command(bmc_port: int) -> Reply:
    """Lets a session open and its first command pass; the answer to that, and all that follows, is lost."""
    seen: list[bytes] = []

    def reply(packet: bytes) -> bytes | None:
        if len(seen) >= 2:
            return b""
        # Encrypted and authenticated payloads begin once the session stands: privilege first, then the command.
        if packet[4:6] == b"\x06\xc0":
            seen.append(packet)
            if len(seen) == 2:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as onward:
                    onward.settimeout(1.0)
                    onward.sendto(packet, ("127.0.0.1", bmc_port))
                    onward.recv(4096)
                return b""
        return None

    return reply


def slowly(seconds: float) -> Reply:
    """Every packet takes that much longer."""

    def reply(packet: bytes) -> bytes | None:
        time.sleep(seconds)
        return None

    return reply


class Babble:
    """A TCP server that says the same to everybody who has said something, and hangs up. certificate: with TLS."""

    def __init__(self, says: Callable[[], bytes], certificate: tuple[str, str] | None = None) -> None:
        self._says = says
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
        if self._context is not None and certificate is not None:
            self._context.load_cert_chain(*certificate)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.port = int(self._socket.getsockname()[1])
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Babble:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._socket.accept()
            except TimeoutError:
                continue
            client.settimeout(1.0)
            try:
                with self._context.wrap_socket(client, server_side=True) if self._context else client as talk:
                    talk.recv(4096)
                    talk.sendall(self._says())
            except OSError:
                client.close()
