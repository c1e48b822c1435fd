# SPDX-License-Identifier: Apache-2.0
"""The consensus store of the simulated datacentre: a dict with compare-and-swap. What fails it stands around it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from vmhad.ports import Compare, Conflict

_OPERATIONS_MAX = 100


class MemoryStore:
    """Never Unanswered. revision() is exact for prefixes that end with '/', and the whole store's for others."""

    def __init__(self) -> None:
        self.writer = ""
        self.on_commit: Callable[[str, Mapping[str, bytes], Sequence[str]], None] = lambda who, puts, deletes: None
        self._lock = threading.Lock()
        self._entries: dict[str, bytes] = {}
        self._changed: dict[str, int] = {}
        self._revision = 0

    def get(self, key: str) -> bytes | None:
        with self._lock:
            return self._entries.get(key)

    def list(self, prefix: str) -> Mapping[str, bytes]:
        with self._lock:
            return {key: self._entries[key] for key in sorted(k for k in self._entries if k.startswith(prefix))}

    def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        written = [*puts, *deletes]
        if len(compares) + len(written) > _OPERATIONS_MAX:
            raise ValueError(f"a commit of more than {_OPERATIONS_MAX} operations")
        if len(set(written)) < len(written) or not all(written):
            raise ValueError("a commit writes one key twice, or an empty one")
        with self._lock:
            for compare in compares:
                if self._entries.get(compare.key) != compare.value:
                    raise Conflict(f"{compare.key} is not as compared")
            if written:
                self._revision += 1
            self._entries.update(puts)
            for key in deletes:
                self._entries.pop(key, None)
            self._changed.update(dict.fromkeys((folder for key in written for folder in _folders(key)), self._revision))
            revision = self._revision
        if written:
            self.on_commit(self.writer, puts, deletes)
        return revision

    def revision(self, prefix: str) -> int:
        with self._lock:
            return self._changed.get(prefix, 0) if prefix.endswith("/") else self._revision


def _folders(key: str) -> Iterator[str]:
    """'/a/b/c' -> '/', '/a/', '/a/b/'."""
    for index, letter in enumerate(key):
        if letter == "/":
            yield key[: index + 1]
