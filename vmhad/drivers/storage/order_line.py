# SPDX-License-Identifier: Apache-2.0
"""One process that is kept to carry out orders, most often by ssh on another machine: a line of JSON in, a line out.

The rules kept: several orders may be under way at a time, and a slow one delays no other. A call ends in time, whatever
the process does; a process that answered nothing in time is taken for dead, and the next call starts another one. An
order is sent once.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

# What ssh itself ends with, whatever it would carry out.
SSH_FAILED = 255


class Silent(Exception):
    """No answer, and in words why."""


class _Call:
    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.answer: Mapping[str, Any] | None = None


class _Process:
    """The process with the calls that wait for it. Its reader is a thread that ends with it."""

    def __init__(self, command: Sequence[str]) -> None:
        """Raises OSError."""
        self._process = subprocess.Popen(  # noqa: S603 - words of the settings, and no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
        self._lock = threading.Lock()
        self._waiting: dict[int, _Call] = {}
        self._ended = False
        self._is_given_up = False
        threading.Thread(target=self._read, name="order-line", daemon=True).start()

    @property
    def has_ended(self) -> bool:
        return self._ended or self._is_given_up

    def send(self, number: int, order: Mapping[str, object]) -> _Call:
        """A call that is over at once where the process has ended."""
        call = _Call()
        with self._lock:
            if self._ended:
                call.is_over.set()
                return call
            self._waiting[number] = call
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({**order, "id": number}) + "\n")
            self._process.stdin.flush()
        except OSError:
            self.end()
        return call

    def forget(self, number: int) -> None:
        with self._lock:
            self._waiting.pop(number, None)

    def end(self) -> None:
        self._is_given_up = True
        self._process.kill()

    def code(self) -> int:
        """What it ended with, of one that has."""
        return self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                answer = json.loads(line)
                number = answer["id"]
            except (ValueError, TypeError, KeyError):
                break
            with self._lock:
                call = self._waiting.pop(number, None)
            if call is not None:
                call.answer = answer
                call.is_over.set()
        self._process.kill()
        self._process.wait()
        with self._lock:
            self._ended = True
            left, self._waiting = self._waiting, {}
        for call in left.values():
            call.is_over.set()


class OrderLine:
    """For any number of threads. Its process is started when the first order is sent."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._kept: list[_Process] = []
        weakref.finalize(self, _end_all, self._kept)

    def ask(self, order: Mapping[str, object], limit_s: float) -> Mapping[str, Any]:
        """The answer. Raises Silent."""
        until = time.monotonic() + limit_s
        number = next(self._numbers)
        process = self._opened()
        call = process.send(number, order)
        if not call.is_over.wait(max(until - time.monotonic(), 0.0)):
            process.forget(number)
            process.end()
            raise Silent(f"no answer within {limit_s:.3g} s")
        if call.answer is None:
            raise Silent(_words(self._command[0], process.code()))
        return call.answer

    def close(self) -> None:
        with self._lock:
            _end_all(self._kept)

    def _opened(self) -> _Process:
        with self._lock:
            if not self._kept or self._kept[0].has_ended:
                try:
                    self._kept[:] = [_Process(self._command)]
                except OSError as error:
                    raise Silent(f"{self._command[0]} cannot be started: {error.strerror}") from None
            return self._kept[0]


def _words(program: str, code: int) -> str:
    if program == "ssh" and code == SSH_FAILED:
        return "ssh does not reach the server, or is not let in"
    return f"{program} ended ({code}), or said what is not understood"


def _end_all(kept: list[_Process]) -> None:
    while kept:
        kept.pop().end()
