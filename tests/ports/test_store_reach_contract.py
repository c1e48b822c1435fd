# SPDX-License-Identifier: Apache-2.0
"""The way to a store that fails: the same cases on the simulated way and on the etcd driver behind a TCP relay.

What a store itself does is one suite for memory, SQLite and etcd: tests/journal/test_store_contract.py.

| what                                                                    | case                                   |
|-------------------------------------------------------------------------|----------------------------------------|
| out of reach: every call is Unanswered, nothing was written             | test_out_of_reach                      |
| one engine may be cut off while another is not                          | test_one_alone_is_cut_off              |
| a commit that lands and whose answer is lost is Unanswered; whoever     | test_a_lost_answer_says_nothing        |
|   sends it again meets Conflict, and a read tells                       |                                        |
| a Conflict is an answer, not a failure                                  | test_a_conflict_is_an_answer           |
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Protocol

import pytest

from vmhad.drivers.store.etcd import EtcdStore
from vmhad.ports import Compare, Conflict, Store, Unanswered
from vmhad.sim.clock import Agenda
from vmhad.sim.life import Life
from vmhad.sim.reach import ReachedStore, StoreFaults
from vmhad.sim.store import MemoryStore


class Bench(Protocol):
    """One store, and two engines' ways to it."""

    one: Store
    other: Store
    prefix: str

    def down(self, away: bool) -> None:
        """For both."""

    def cut_off(self, away: bool) -> None:
        """For one alone."""

    def deaf(self, lost: bool) -> None:
        """What one sends gets there; what comes back does not."""


class SimBench:
    prefix = "/"

    def __init__(self) -> None:
        self._agenda, self._faults, store = Agenda(), StoreFaults(), MemoryStore()
        self.one: Store = ReachedStore(store, self._faults, self._agenda, Life(self._agenda, "one"))
        self.other: Store = ReachedStore(store, self._faults, self._agenda, Life(self._agenda, "other"))

    def down(self, away: bool) -> None:
        self._faults.down_until = self._agenda.now + 1e6 * away

    def cut_off(self, away: bool) -> None:
        self._faults.cut_off["one"] = self._agenda.now + 1e6 * away

    def deaf(self, lost: bool) -> None:
        self._faults.deaf["one"] = self._agenda.now + 1e6 * lost


class Relay:
    """Passes bytes on to a server and back, or drops what it is told to."""

    def __init__(self, behind: tuple[str, int]) -> None:
        self._behind = behind
        self.refuses = self.swallows = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._behind) as server:
            back = threading.Thread(target=self._pass, args=(server, client, True), daemon=True)
            back.start()
            self._pass(client, server, False)
            server.shutdown(socket.SHUT_RDWR)
            back.join(5)

    def _pass(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        try:
            while data := source.recv(65536):
                if self.refuses:
                    return
                if not (self.swallows and is_answer):
                    sink.sendall(data)
        except OSError:
            return

    def end(self) -> None:
        self._server.close()


class EtcdBench:
    prefix = "/reach/"

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.partition(":")
        self._ways = (Relay((host, int(port))), Relay((host, int(port))))
        stores = [EtcdStore([way.address], 1.0) for way in self._ways]
        self.one: Store = stores[0]
        self.other: Store = stores[1]
        self._stores = stores
        for key in stores[0].list(self.prefix):
            stores[0].commit([], {}, [key])

    def down(self, away: bool) -> None:
        for way in self._ways:
            way.refuses = away

    def cut_off(self, away: bool) -> None:
        self._ways[0].refuses = away

    def deaf(self, lost: bool) -> None:
        self._ways[0].swallows = lost

    def end(self) -> None:
        for store, way in zip(self._stores, self._ways, strict=True):
            store.close()
            way.end()


@pytest.fixture(params=["sim", "etcd"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "sim":
        yield SimBench()
        return
    begun = EtcdBench(request.getfixturevalue("etcd"))
    yield begun
    begun.end()


def unreachable(store: Store, key: str) -> None:
    for call in (
        lambda: store.get(key),
        lambda: store.list(key),
        lambda: store.revision(key),
        lambda: store.commit([], {key: b"never"}),
    ):
        with pytest.raises(Unanswered):
            call()


def test_out_of_reach(bench: Bench) -> None:
    key = bench.prefix + "a/1"
    bench.one.commit([], {key: b"1"})
    bench.down(True)
    unreachable(bench.one, key)
    unreachable(bench.other, key)
    bench.down(False)
    assert bench.one.get(key) == b"1" == bench.other.get(key)


def test_one_alone_is_cut_off(bench: Bench) -> None:
    key = bench.prefix + "a/1"
    bench.cut_off(True)
    unreachable(bench.one, key)
    bench.other.commit([], {key: b"2"})
    bench.cut_off(False)
    assert bench.one.get(key) == b"2"


def test_a_lost_answer_says_nothing(bench: Bench) -> None:
    key = bench.prefix + "a/1"
    bench.one.commit([], {key: b"1"})
    bench.deaf(True)
    with pytest.raises(Unanswered):
        bench.one.commit([Compare(key, b"1")], {key: b"2"})
    assert bench.other.get(key) == b"2", "it landed"
    bench.deaf(False)
    with pytest.raises(Conflict):
        bench.one.commit([Compare(key, b"1")], {key: b"2"})
    assert bench.one.get(key) == b"2"


def test_a_conflict_is_an_answer(bench: Bench) -> None:
    key = bench.prefix + "a/1"
    bench.other.commit([], {key: b"1"})
    with pytest.raises(Conflict):
        bench.one.commit([Compare(key, None)], {key: b"2"})
    assert bench.other.get(key) == b"1"
