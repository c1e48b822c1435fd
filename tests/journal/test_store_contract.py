# SPDX-License-Identifier: Apache-2.0
"""One contract for every store, then what only a driver can get wrong: files, lost answers, dead or hanging members."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vmhad.drivers.store.etcd import EtcdStore
from vmhad.drivers.store.sqlite import SqliteStore
from vmhad.ports import Compare, Conflict, Store, Unanswered

K = "/vmhad/v1/"


def test_get_of_an_absent_key_is_none_and_an_empty_value_is_a_value(store: Store) -> None:
    assert store.get(K + "a/1") is None
    store.commit([], {K + "a/1": b""})
    assert store.get(K + "a/1") == b""
    store.commit([Compare(K + "a/1", b"")], {K + "a/1": b"\x00\xff full"})
    assert store.get(K + "a/1") == b"\x00\xff full"


def test_list_is_sorted_and_keeps_neighbours_apart(store: Store) -> None:
    store.commit([], {K + "a/2": b"2", K + "a/10": b"10", K + "a/\u00fc": b"u", K + "ab/1": b"no", K + "A/1": b"no"})
    assert list(store.list(K + "a/").items()) == [(K + "a/10", b"10"), (K + "a/2", b"2"), (K + "a/\u00fc", b"u")]
    assert store.list(K + "none/") == {}
    assert len(store.list("")) == 5


def test_a_commit_is_all_or_nothing(store: Store) -> None:
    store.commit([], {K + "a/1": b"old", K + "a/2": b"stays"})
    with pytest.raises(Conflict):
        store.commit(
            [Compare(K + "a/1", b"old"), Compare(K + "a/2", b"other")],
            {K + "a/1": b"new", K + "a/3": b"new"},
            [K + "a/2"],
        )
    assert store.list(K) == {K + "a/1": b"old", K + "a/2": b"stays"}
    store.commit([Compare(K + "a/1", b"old"), Compare(K + "a/3", None)], {K + "a/3": b"new"}, [K + "a/2", K + "a/9"])
    assert store.list(K) == {K + "a/1": b"old", K + "a/3": b"new"}


@pytest.mark.parametrize("wrong", [None, b"", b"other"])
def test_a_compare_of_a_present_key(store: Store, wrong: bytes | None) -> None:
    store.commit([], {K + "a/1": b"here"})
    with pytest.raises(Conflict):
        store.commit([Compare(K + "a/1", wrong)], {K + "a/1": b"new"})
    assert store.get(K + "a/1") == b"here"


@pytest.mark.parametrize("wrong", [b"", b"here"])
def test_a_compare_of_an_absent_key(store: Store, wrong: bytes) -> None:
    with pytest.raises(Conflict):
        store.commit([Compare(K + "a/1", wrong)], {K + "a/1": b"new"})
    assert store.get(K + "a/1") is None


def test_a_deleted_key_is_absent_again(store: Store) -> None:
    store.commit([], {K + "a/1": b"1"})
    store.commit([Compare(K + "a/1", b"1")], {}, [K + "a/1"])
    store.commit([Compare(K + "a/1", None)], {K + "a/1": b"2"})
    assert store.get(K + "a/1") == b"2"


def test_revision_grows_with_puts_and_deletes_under_its_prefix(store: Store) -> None:
    seen = [store.revision(K + "order/s1/")]
    for puts, deletes in [({K + "order/s1/1": b"1"}, []), ({K + "order/s1/1": b"1"}, []), ({}, [K + "order/s1/1"])]:
        store.commit([], puts, deletes)
        seen.append(store.revision(K + "order/s1/"))
    assert seen == sorted(set(seen)), "every change must show, the deletion of the last key as well"
    store.commit([], {K + "step/s1/i/1": b"1"})
    assert store.revision(K + "order/s1/") == seen[-1], "other kinds of keys must not wake an orders' reader"
    whole = store.revision("/vmhad/")
    store.commit([], {K + "step/s1/i/2": b"1"})
    assert store.revision("/vmhad/") > whole, "a prefix wider than any mark"


def test_a_refused_commit_moves_no_revision(store: Store) -> None:
    first = store.commit([], {K + "a/1": b"1"})
    with pytest.raises(Conflict):
        store.commit([Compare(K + "a/1", b"2")], {K + "a/1": b"3"})
    assert store.revision(K + "a/") <= first
    assert store.commit([], {K + "a/1": b"4"}) > first


def test_a_full_commit_passes_and_a_larger_one_is_refused_before_it_is_sent(store: Store) -> None:
    puts = {f"{K}kind{number % 20}/{number}": b"x" * 600 for number in range(99)}
    store.commit([Compare(K + "none", None)], puts)
    assert len(store.list(K)) == 99
    with pytest.raises(ValueError):
        store.commit([Compare(K + "none", None)], puts | {K + "one/more": b""})
    with pytest.raises(ValueError):
        store.commit([], {K + "a/1": b""}, [K + "a/1"])
    assert store.get(K + "a/1") is None


def test_a_long_list_is_whole(store: Store) -> None:
    for start in range(0, 2550, 50):
        store.commit([], {f"{K}many/{number:05}": b"%d" % number for number in range(start, start + 50)})
    found = store.list(K + "many/")
    assert [int(value) for value in found.values()] == list(range(2550))


def test_eight_threads_lose_no_update(store: Store) -> None:
    increment_by_threads([store] * 8)


def increment_by_threads(stores: list[Any], each: int = 25) -> None:
    """One thread a store (which may be the same one)."""
    key = K + "count/1"
    stores[0].commit([], {key: b"0"})
    troubles: list[Exception] = []

    def increment(store: Store) -> None:
        try:
            for _ in range(each):
                while True:
                    raw = store.get(key)
                    assert raw is not None
                    try:
                        store.commit([Compare(key, raw)], {key: b"%d" % (int(raw) + 1)})
                        break
                    except Conflict:
                        continue
        except Exception as error:
            troubles.append(error)

    threads = [threading.Thread(target=increment, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not troubles
    assert stores[0].get(key) == b"%d" % (len(stores) * each)


# SQLite only


def test_sqlite_in_memory_keeps_the_contract_too() -> None:
    store = SqliteStore(":memory:")
    revision = store.commit([Compare(K + "a/1", None)], {K + "a/1": b"1"})
    assert store.list(K) == {K + "a/1": b"1"} and store.revision(K + "a/") == revision
    store.close()


def test_sqlite_survives_and_is_shared_by_two_connections(tmp_path: Path) -> None:
    path = str(tmp_path / "j.sqlite")
    one, other = SqliteStore(path), SqliteStore(path)
    one.commit([], {K + "a/1": b"1"})
    other.commit([Compare(K + "a/1", b"1")], {K + "a/1": b"2"})
    with pytest.raises(Conflict):
        one.commit([Compare(K + "a/1", b"1")], {K + "a/1": b"3"})
    revision = one.revision(K + "a/")
    one.close()
    other.close()
    again = SqliteStore(path)
    assert again.get(K + "a/1") == b"2" and again.revision(K + "a/") == revision
    again.close()


def test_sqlite_processes_wait_for_each_other_and_lose_no_update(tmp_path: Path) -> None:
    stores = [SqliteStore(str(tmp_path / "j.sqlite")) for _ in range(4)]
    increment_by_threads(stores, each=50)
    for store in stores:
        store.close()


def test_sqlite_that_cannot_answer_says_so(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, and long enough to be seen as none" * 40)
    for path in (tmp_path / "text", tmp_path / "no such folder" / "j.sqlite"):
        with pytest.raises(Unanswered, match=path.name):
            SqliteStore(str(path))
    store, blocker = SqliteStore(str(tmp_path / "j"), timeout_s=0.1), SqliteStore(str(tmp_path / "j"))
    blocker._connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unanswered, match="locked"):
        store.commit([], {K + "a/1": b"1"})
    assert store.get(K + "a/1") is None
    blocker._connection.execute("ROLLBACK")
    store.commit([], {K + "a/1": b"1"})
    assert blocker.get(K + "a/1") == b"1"
    store.close()
    blocker.close()


# etcd only


@contextmanager
def dead_endpoint() -> Iterator[str]:
    """A port that refuses, held so that nobody else listens on it meanwhile."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}"


@contextmanager
def talker(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Takes one request a connection, says answer and hangs up; what it was sent is kept."""
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    got.append(peer.recv(65536))
                    peer.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", got
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5.0)


def test_etcd_goes_on_where_nothing_was_sent(etcd_store: EtcdStore, etcd: Any) -> None:
    with dead_endpoint() as dead:
        store = EtcdStore([dead, etcd.client], 3.0)
        store.commit([Compare(K + "a/1", None)], {K + "a/1": b"1"})
        fresh = EtcdStore([dead, etcd.client], 3.0)
        assert fresh.get(K + "a/1") == b"1"
        alone = EtcdStore([dead], 1.0)
        with pytest.raises(Unanswered, match=dead):
            alone.get(K + "a/1")
        with pytest.raises(Unanswered, match="nothing was sent"):
            alone.commit([], {K + "a/1": b"2"})


HANGS_UP = b""
GARBAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnull"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\nConnection: close\r\n\r\nno leader"


@pytest.mark.parametrize("answer", [HANGS_UP, GARBAGE, UNAVAILABLE])
def test_etcd_never_sends_a_commit_twice(etcd_store: EtcdStore, etcd: Any, answer: bytes) -> None:
    with talker(answer) as (url, got):
        store = EtcdStore([url, etcd.client], 3.0)
        with pytest.raises(Unanswered, match="may have been applied") as caught:
            store.commit([], {K + "a/1": b"1"})
        assert url in str(caught.value)
        assert len(got) == 1
        assert etcd_store.get(K + "a/1") is None, "the commit went to the other endpoint as well"
        store.commit([], {K + "a/1": b"2"})
        assert len(got) == 1, "the next commit starts at the endpoint that works"
        assert EtcdStore([url, etcd.client], 3.0).get(K + "a/1") == b"2", "a read may go round"


def test_etcd_that_hangs_is_unanswered_in_time_and_the_commit_may_still_land(
    etcd_store: EtcdStore, etcd: Any, wait_until: Callable[..., None]
) -> None:
    store = EtcdStore([etcd.client], 1.0)
    store.commit([], {K + "a/1": b"1"})
    etcd.send(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(Unanswered, match="may have been applied"):
            store.commit([Compare(K + "a/1", b"1")], {K + "a/1": b"2"})
        with pytest.raises(Unanswered, match="no etcd endpoint answered"):
            store.get(K + "a/1")
        assert time.monotonic() - began < 3.0
    finally:
        etcd.send(signal.SIGCONT)
    wait_until(etcd.healthy, 10.0, "etcd is back")
    assert store.get(K + "a/1") in (b"1", b"2")


def test_etcd_lists_one_revision_over_all_pages(etcd_store: EtcdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for start in range(0, 1100, 50):
        etcd_store.commit([], {f"{K}many/{number:05}": b"old" for number in range(start, start + 50)})
    read, pages = etcd_store._read, 0

    def read_slowly(body: Any) -> Any:
        nonlocal pages
        pages += 1
        answer = read(body)
        etcd_store.commit([], {K + "many/01098": b"new", K + "many/99999": b"new"}, [K + "many/01099"])
        return answer

    monkeypatch.setattr(etcd_store, "_read", read_slowly)
    found = etcd_store.list(K + "many/")
    assert pages == 2 and len(found) == 1100 and set(found.values()) == {b"old"}


def test_etcd_is_not_asked_through_a_proxy(etcd_store: EtcdStore, etcd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with dead_endpoint() as dead:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", dead)
        EtcdStore([etcd.client], 2.0).commit([], {K + "a/1": b"1"})
    assert etcd_store.get(K + "a/1") == b"1"


def test_etcd_needs_endpoints_and_takes_no_password_in_them() -> None:
    for endpoints in ([], ["ftp://127.0.0.1:1"], ["http://root:secret@127.0.0.1:2379"]):
        with pytest.raises(ValueError) as caught:
            EtcdStore(endpoints, 1.0)
        assert "secret" not in str(caught.value)


def test_etcd_cluster_loses_a_member_and_goes_on(etcd_cluster: list[Any], wait_until: Callable[..., None]) -> None:
    """Counts by compare-and-swap through kill and hang: no increment is lost, none is made twice unknown."""
    store = EtcdStore([member.client for member in etcd_cluster], 3.0)
    key = K + "count/1"
    store.commit([], {key: b"0"})
    sure = unsure = 0

    def increment() -> bool:
        nonlocal sure, unsure
        try:
            raw = store.get(key)
            assert raw is not None
            store.commit([Compare(key, raw)], {key: b"%d" % (int(raw) + 1)})
        except Conflict:
            return False
        except Unanswered as error:
            unsure += "may have been applied" in str(error)
            return False
        sure += 1
        return True

    assert all(increment() for _ in range(10))
    etcd_cluster[0].send(signal.SIGSTOP)
    wait_until(increment, 20.0, "a commit passes while the first member hangs")
    assert all(increment() for _ in range(10)), "once moved to a live member, nothing goes back to the hanging one"
    etcd_cluster[0].stop()
    wait_until(increment, 20.0, "a commit passes after the first member was killed")
    assert all(increment() for _ in range(10))
    final = int(store.get(key) or b"0")
    assert sure <= final <= sure + unsure
    etcd_cluster[1].stop()
    with pytest.raises(Unanswered) as caught:
        store.commit([], {key: b"no quorum"})
    assert any(member.client in str(caught.value) for member in etcd_cluster)
