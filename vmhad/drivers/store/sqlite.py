# SPDX-License-Identifier: Apache-2.0
"""The journal's store for a single engine: one SQLite file, no server.

Durable at every commit (WAL with synchronous=FULL): what was answered survives a power cut. Processes of one machine
may share the file; machines may not, so this is for «no other engine in this cloud» only.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from vmhad.drivers.store.ranges import check_commit, mark_covering, marks_of, prefix_end
from vmhad.ports import Compare, Conflict, Unanswered

_Run = Callable[..., sqlite3.Cursor]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mark (name TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO mark VALUES ('', 0);
"""


class SqliteStore:
    """path: a file, or ':memory:'. timeout_s: the longest wait for another process's write. Open it after any fork."""

    def __init__(self, path: str, timeout_s: float = 5.0) -> None:
        """Raises Unanswered when the file cannot be opened or is no database."""
        self._path = path
        self._lock = threading.Lock()
        with self._answering():
            self._connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def get(self, key: str) -> bytes | None:
        row = self._one("SELECT value FROM entry WHERE key = ?", (key.encode(),))
        return None if row is None else bytes(row[0])

    def list(self, prefix: str) -> Mapping[str, bytes]:
        start = prefix.encode()
        with self._answering(), self._lock:
            if start:
                sql = "SELECT key, value FROM entry WHERE key >= ? AND key < ? ORDER BY key"
                rows = self._connection.execute(sql, (start, prefix_end(start))).fetchall()
            else:
                rows = self._connection.execute("SELECT key, value FROM entry ORDER BY key").fetchall()
        return {bytes(key).decode(): bytes(value) for key, value in rows}

    def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        check_commit(compares, puts, deletes)
        with self._answering(), self._lock, self._transaction() as run:
            for compare in compares:
                row = run("SELECT value FROM entry WHERE key = ?", (compare.key.encode(),)).fetchone()
                if (None if row is None else bytes(row[0])) != compare.value:
                    raise Conflict(f"{compare.key} is not as compared")
            if not puts and not deletes:
                return self._revision(run)
            run("UPDATE mark SET revision = revision + 1 WHERE name = ''")
            revision = self._revision(run)
            for key, value in puts.items():
                run("INSERT OR REPLACE INTO entry VALUES (?, ?)", (key.encode(), value))
            for key in deletes:
                run("DELETE FROM entry WHERE key = ?", (key.encode(),))
            for mark in marks_of(puts, deletes):
                run("INSERT OR REPLACE INTO mark VALUES (?, ?)", (mark, revision))
            return revision

    def revision(self, prefix: str) -> int:
        row = self._one("SELECT revision FROM mark WHERE name = ?", (mark_covering(prefix) or "",))
        return 0 if row is None else int(row[0])

    @staticmethod
    def _revision(run: _Run) -> int:
        return int(run("SELECT revision FROM mark WHERE name = ''").fetchone()[0])

    def _one(self, sql: str, values: tuple[object, ...]) -> tuple[Any, ...] | None:
        with self._answering(), self._lock:
            row: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
            return row

    @contextmanager
    def _transaction(self) -> Iterator[_Run]:
        # IMMEDIATE: the write lock is had before the compares are read, so nobody writes between the two.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection.execute
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise Unanswered(f"the journal file {self._path} does not answer: {error}") from error
