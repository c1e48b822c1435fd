# SPDX-License-Identifier: Apache-2.0
"""The consensus store of the simulated datacentre: a dict with compare-and-swap. What fails it stands around it."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
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
        self._sorted: list[str] = []
        self._changed: dict[str, int] = {}
        self._revision = 0

    def get(self, key: str) -> bytes | None:
        with self._lock:
            return self._entries.get(key)

    def list(self, prefix: str) -> Mapping[str, bytes]:
        with self._lock:
            found, keys = {}, self._sorted
            for place in range(bisect_left(keys, prefix), len(keys)):
                if not keys[place].startswith(prefix):
                    break
                found[keys[place]] = self._entries[keys[place]]
            return found

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
            for key in puts.keys() - self._entries.keys():
                insort(self._sorted, key)
            self._entries.update(puts)
            for key in deletes:
                if self._entries.pop(key, None) is not None:
                    del self._sorted[bisect_left(self._sorted, key)]
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
