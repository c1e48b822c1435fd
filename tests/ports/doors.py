# SPDX-License-Identifier: Apache-2.0
"""A TCP port that accepts, refuses or is silent, and says to whoever asks it over HTTP what a test wants."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Talk = Callable[[socket.socket, threading.Event], None]


def says(text: bytes) -> Talk:
    def talk(link: socket.socket, over: threading.Event) -> None:
        link.recv(4096)
        link.sendall(text)

    return talk


WELL = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def says_slowly(text: bytes, every_s: float) -> Talk:
    """A byte at a time."""

    def talk(link: socket.socket, over: threading.Event) -> None:
        link.recv(4096)
        for byte in text:
            if over.wait(every_s):
                return
            link.sendall(bytes([byte]))

    return talk


def says_nothing(link: socket.socket, over: threading.Event) -> None:
    over.wait(30.0)


def resets(link: socket.socket, over: threading.Event) -> None:
    link.recv(4096)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


class Door:
    """One port of the machine, closed at first."""

    def __init__(self, address: str) -> None:
        self.address, self.family = address, socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(self.family) as probe:
            probe.bind((address, 0))
            self.port: int = probe.getsockname()[1]
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def open(self, talk: Talk = WELL) -> None:
        self.close()
        listener = self._listener(16)
        self._start(lambda over: self._serve(listener, talk, over))

    def fall_silent(self) -> None:
        """Its queue is full, so the kernel answers nobody any more."""
        self.close()
        self._listener(0)
        for _ in range(4):
            waiting = socket.socket(self.family)
            waiting.setblocking(False)
            self._sockets.append(waiting)
            with suppress(BlockingIOError):
                waiting.connect((self.address, self.port))

    def close(self) -> None:
        self._over.set()
        for one in self._sockets:
            one.close()
        for thread in self._threads:
            thread.join(5.0)
            assert not thread.is_alive()
        self._over, self._threads, self._sockets = threading.Event(), [], []

    def _listener(self, backlog: int) -> socket.socket:
        listener = socket.socket(self.family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.address, self.port))
        listener.listen(backlog)
        listener.settimeout(0.05)
        self._sockets.append(listener)
        return listener

    def _start(self, call: Callable[[threading.Event], None]) -> None:
        thread = threading.Thread(target=call, args=(self._over,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, listener: socket.socket, talk: Talk, over: threading.Event) -> None:
        while not over.is_set():
            try:
                link, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            link.settimeout(5.0)
            self._start(lambda over, link=link: self._talk(link, talk, over))

    @staticmethod
    def _talk(link: socket.socket, talk: Talk, over: threading.Event) -> None:
        with link, suppress(OSError):
            talk(link, over)


@contextmanager
def door(address: str = "127.0.0.1") -> Iterator[Door]:
    one = Door(address)
    try:
        yield one
    finally:
        one.close()
