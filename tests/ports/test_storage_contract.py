# SPDX-License-Identifier: Apache-2.0
"""What every Storage behind the port does, each on a real server of its kind with clients that write.

| what was done                             | read    | cut and restore  | the host's clients                        |
|-------------------------------------------|---------|------------------|-------------------------------------------|
| nothing                                   | OPEN    |                  | write                                     |
| cut                                       | CUT     | cut returns      | none that is open goes on, no new one may |
| cut while it has no client open           | CUT     | cut returns      | no new one may                            |
| cut again                                 | CUT     | return           | as before                                 |
| restored                                  | OPEN    | restore returns  | a new one writes, the old one never again |
|                                           |         |                  | where the storage can see to that         |
| restored without a cut                    | OPEN    | restore returns  | write                                     |
| a host that is no client of the storage   | UNKNOWN | Refused          |                                           |
| the server hangs                          | UNKNOWN | Unanswered       |                                           |
| the server went on after that             | as was  | return           |                                           |

The other host reads OPEN and writes on, whatever was done to the first one. Every call ends within its limit. The
simulated one is worse than any real one: there the old client writes on when it is restored.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Protocol

import pytest

from vmhad.kernel.signal import Access
from vmhad.ports import Refused, Storage, Unanswered

OPEN, CUT, UNKNOWN = Access.OPEN, Access.CUT, Access.UNKNOWN
HOST, OTHER, STRANGER = "h", "other", "stranger"
LIMIT_S = 4.0
PROOF_S = 5.0
WAKES_S = 3.0
# The driver, and the module that holds its `lacks()` (why it cannot run here, or "") and its `bench(where, limit_s)`.
BENCHES = {
    "ceph": "storage_ceph",
    "nfs_ganesha": "storage_nfs_ganesha",
    "scsi_pr": "storage_scsi_pr",
    "scsi_pr on LIO": "storage_scsi_pr_lio",
    "simulated": "storage_simulated",
}
# The drivers of storages that keep nothing of their clients (NFSv3): who may write again may do so with what it had
# open at the cut. So a host has to be off before its cut is taken back.
FORGETFUL = {"nfs_ganesha", "simulated"}


class Bench(Protocol):
    """A storage with two hosts that are clients of it: "h" and "other"."""

    @property
    def storage(self) -> Storage:
        """The driver, with the limit that the bench was made for."""

    def fresh(self) -> None:
        """Nobody is cut off, the server runs, and each host has one new client open that has written once."""

    def writes(self, host: str) -> bool:
        """Whether a write through the client that was opened first is accepted, now. It ends by itself."""

    def writes_anew(self, host: str) -> bool:
        """Whether a new client of this host may open and write. It is closed again."""

    def leave(self, host: str) -> None:
        """The host's client is closed."""

    def hang(self) -> None:
        """All of the server stands still, and its connections stay."""

    def go_on(self) -> None: ...


@pytest.fixture(scope="module", params=sorted(BENCHES))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A server takes seconds to start, so that all tests of a driver share one."""
    module = import_module(f"tests.ports.{BENCHES[request.param]}")
    lacks = module.lacks()
    if lacks:
        pytest.skip(lacks)
    where: Path = tmp_path_factory.mktemp(request.param)
    opened: AbstractContextManager[Bench] = module.bench(where, LIMIT_S)
    with opened as bench:
        yield bench


@pytest.fixture
def bench(server: Bench) -> Bench:
    server.fresh()
    return server


def proven(storage: Storage, host: str) -> None:
    """CUT is read, and soon."""
    until = time.monotonic() + PROOF_S
    while (seen := storage.read(host))[0] is not CUT:
        assert time.monotonic() < until, seen
    assert seen[1]


def cut(bench: Bench, host: str = HOST) -> None:
    bench.storage.cut(host)
    proven(bench.storage, host)


def test_an_open_host_reads_open(bench: Bench) -> None:
    for host in (HOST, OTHER):
        access, said = bench.storage.read(host)
        assert access is OPEN and said
        assert bench.writes(host)


def test_a_host_that_is_cut_off_writes_no_more(bench: Bench) -> None:
    cut(bench)
    assert not bench.writes(HOST)
    assert not bench.writes_anew(HOST)


def test_the_other_host_loses_nothing(bench: Bench) -> None:
    cut(bench)
    assert bench.storage.read(OTHER)[0] is OPEN
    assert bench.writes(OTHER)
    assert bench.writes_anew(OTHER)


def test_a_host_without_a_client_is_cut_off_as_well(bench: Bench) -> None:
    """No client to be seen is no proof: one that lost its link comes back when the link does."""
    bench.leave(HOST)
    cut(bench)
    assert not bench.writes_anew(HOST)


def test_to_cut_twice_is_no_error(bench: Bench) -> None:
    cut(bench)
    cut(bench)
    assert not bench.writes(HOST)


def test_one_restore_takes_back_two_cuts(bench: Bench) -> None:
    cut(bench)
    cut(bench)
    bench.storage.restore(HOST)
    assert bench.storage.read(HOST)[0] is OPEN
    assert bench.writes_anew(HOST)


def test_both_hosts_cut_off_are_taken_back_one_by_one(bench: Bench) -> None:
    cut(bench, HOST)
    cut(bench, OTHER)
    bench.storage.restore(OTHER)
    assert bench.storage.read(HOST)[0] is CUT and bench.storage.read(OTHER)[0] is OPEN
    assert not bench.writes_anew(HOST) and bench.writes_anew(OTHER)


def _stays_dead(bench: Bench) -> None:
    """Some clients take a while to notice that they might go on."""
    until = time.monotonic() + WAKES_S
    while time.monotonic() < until:
        assert not bench.writes(HOST)


def test_what_was_open_stays_dead_when_the_cut_is_taken_back(bench: Bench, request: pytest.FixtureRequest) -> None:
    cut(bench)
    assert not bench.writes(HOST)
    bench.storage.restore(HOST)
    assert bench.storage.read(HOST)[0] is OPEN
    if request.node.callspec.params["server"] in FORGETFUL:
        assert bench.writes(HOST)
    else:
        _stays_dead(bench)
    assert bench.writes_anew(HOST)


def test_to_restore_what_was_not_cut_is_no_error(bench: Bench) -> None:
    bench.storage.restore(HOST)
    assert bench.storage.read(HOST)[0] is OPEN
    assert bench.writes(HOST)


def test_a_host_that_is_no_client(bench: Bench) -> None:
    access, said = bench.storage.read(STRANGER)
    assert access is UNKNOWN and STRANGER in said
    with pytest.raises(Refused, match=STRANGER):
        bench.storage.cut(STRANGER)


@contextmanager
def within_the_limit() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began <= LIMIT_S + 0.5


def test_a_server_that_hangs_is_unknown_and_unanswered(bench: Bench) -> None:
    bench.hang()
    with within_the_limit():
        access, said = bench.storage.read(HOST)
    assert access is UNKNOWN and said
    for act in (bench.storage.cut, bench.storage.restore):
        with within_the_limit(), pytest.raises(Unanswered):
            act(HOST)


def test_a_cut_does_not_read_cut_while_the_server_hangs(bench: Bench) -> None:
    cut(bench)
    bench.hang()
    assert bench.storage.read(HOST)[0] is UNKNOWN
    bench.go_on()
    proven(bench.storage, HOST)
