# SPDX-License-Identifier: Apache-2.0
"""What is nfs_ganesha's own, on a real server: which export files and settings it trusts, what it takes for proof, and
that whatever hangs or was changed by somebody else never reads CUT."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.ports.ganesha_server import LEASE_S, Ganesha, eventually, lacks
from tests.ports.storage_nfs_ganesha import Client, driver
from vmhad.drivers.storage.ganesha_server import answer
from vmhad.drivers.storage.nfs_ganesha import NfsGanesha
from vmhad.kernel.signal import Access
from vmhad.ports import Refused, Unanswered

OPEN, CUT, UNKNOWN = Access.OPEN, Access.CUT, Access.UNKNOWN
LIMIT_S = 4.0
SOON_S = 5.0
# What NFSv4 says to whom an export is closed.
ACCESS = 13
pytestmark = pytest.mark.skipif(bool(lacks()), reason=lacks() or "it is there")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Ganesha]:
    """Export 1 and export 2, each of files of its own."""
    made = Ganesha(tmp_path / "server")
    made.export(2, path="more")
    with made:
        yield made


@contextmanager
def client(server: Ganesha, host: str = "h", path: str = "data", program: str = "nfs_client") -> Iterator[Client]:
    made = Client(server.on_host(host, path=path, program=program))
    try:
        yield made
    finally:
        made.end()


def reads(storage, access: Access, host: str = "h", within_s: float = SOON_S) -> str:
    """What is said with it, which is soon."""
    until = time.monotonic() + within_s
    while (seen := storage.read(host))[0] is not access:
        assert time.monotonic() < until, seen
    return seen[1]


def test_a_cut_outlives_a_restart_of_the_server(server: Ganesha) -> None:
    storage = driver(server, LIMIT_S)
    storage.cut("h")
    reads(storage, CUT)
    server.stop()
    assert storage.read("h")[0] is UNKNOWN
    server.start()
    reads(storage, CUT)
    with client(server) as cut, client(server, "other") as other:
        assert not cut.is_open()
        assert other.is_open() and other.writes()


def test_what_another_hand_opens_is_read_as_it_is(server: Ganesha) -> None:
    """Its file was written anew without the cut, as a deployment does: a restart would open it. And then it did."""
    storage = driver(server, LIMIT_S)
    storage.cut("h")
    reads(storage, CUT)
    server.export(1)
    access, said = storage.read("h")
    assert access is UNKNOWN and "restart" in said
    server.stop()
    server.start()
    assert storage.read("h")[0] is OPEN
    storage.cut("h")
    reads(storage, CUT)


def test_a_late_order_to_take_a_cut_back_takes_no_newer_one_back(server: Ganesha) -> None:
    """It was sent, nobody waited for it any more, and its host was cut off again before the server came to it."""
    storage = driver(server, LIMIT_S)
    storage.cut("h")
    late = {"act": "restore", "exports": [1], "addresses": [server.addresses["h"]], "limit_s": LIMIT_S}
    late["cuts"] = answer({**late, "act": "cuts"}, server.bus, server.files)["cuts"]
    storage.cut("h")
    assert "anew" in str(answer(late, server.bus, server.files)["failed"])
    reads(storage, CUT)
    storage.restore("h")
    assert storage.read("h")[0] is OPEN


def test_all_exports_have_to_be_closed(server: Ganesha) -> None:
    first, both = driver(server, LIMIT_S), driver(server, LIMIT_S, (1, 2))
    first.cut("h")
    reads(first, CUT)
    access, said = both.read("h")
    assert access is OPEN and "export 2" in said
    both.cut("h")
    reads(both, CUT)
    both.restore("h")
    assert both.read("h")[0] is OPEN
    with client(server, path="data") as one, client(server, path="more") as two:
        assert one.is_open() and one.writes() and two.is_open() and two.writes()


def test_an_export_that_there_is_not(server: Ganesha) -> None:
    storage = driver(server, LIMIT_S, (1, 9))
    access, said = storage.read("h")
    assert access is UNKNOWN and "no export 9" in said
    for act in (storage.cut, storage.restore):
        with pytest.raises(Refused, match="no export 9"):
            act("h")
    assert driver(server, LIMIT_S).read("h")[0] is OPEN


def test_an_export_without_a_place_is_refused_and_no_other_is_changed(server: Ganesha) -> None:
    file = server.where / "export.d/2.conf"
    file.write_text(file.read_text().replace("# vmhad: shut out\n", ""))
    both = driver(server, LIMIT_S, (1, 2))
    with pytest.raises(Refused, match="# vmhad: shut out"):
        both.cut("h")
    assert driver(server, LIMIT_S).read("h")[0] is OPEN
    assert "10.213.1.2;" not in (server.where / "export.d/1.conf").read_text()


@pytest.mark.parametrize(
    "clients",
    [
        "CLIENT { Clients = 10.213.2.2; Access_Type = RO; } CLIENT { Clients = 10.213.0.0/16; Access_Type = RW; }",
        "CLIENT { Clients = 10.213.2.2; Access_Type = RW; } CLIENT { Clients = *; Access_Type = RW; }",
        "Access_Type = RW;",
    ],
    ids=["a network after another host", "everybody", "the export itself"],
)
def test_whoever_the_export_lets_in_can_be_shut_out(server: Ganesha, clients: str) -> None:
    server.export(1, clients)
    server.stop()
    server.start()
    storage = driver(server, LIMIT_S)
    with client(server) as one:
        assert one.is_open() and one.writes()
        storage.cut("h")
        reads(storage, CUT)
        assert not one.writes()
    assert storage.read("other")[0] is OPEN
    storage.restore("h")
    with client(server) as anew:
        assert anew.is_open() and anew.writes()


@pytest.mark.parametrize("first", ["10.213.1.0/24", "*", "10.213.?.2", "@computes"])
def test_one_who_comes_before_the_place_wins(server: Ganesha, first: str) -> None:
    """Of a name that only Ganesha can resolve it is not known whom it fits."""
    file = server.export(1)
    allowed = f"CLIENT {{ Clients = {first}; Access_Type = RW; }}\n  # vmhad: shut out\n"
    file.write_text(file.read_text().replace("# vmhad: shut out\n", allowed))
    server.stop()
    server.start()
    storage = driver(server, LIMIT_S)
    storage.cut("h")
    assert storage.read("h")[0] is OPEN


def test_another_export_of_the_same_files_is_no_way_round(server: Ganesha) -> None:
    (server.where / "data/below").mkdir()
    server.export(3, path="data/below")
    server.stop()
    server.start()
    storage = driver(server, LIMIT_S)
    storage.cut("h")
    access, said = storage.read("h")
    assert access is UNKNOWN and "export 3" in said
    driver(server, LIMIT_S, (3,)).cut("h")
    reads(storage, CUT)


def test_two_clients_of_one_host_and_one_of_another(server: Ganesha) -> None:
    storage = driver(server, LIMIT_S)
    with client(server) as one, client(server) as two, client(server, "other") as other:
        assert all(each.is_open() and each.writes() for each in (one, two, other))
        storage.cut("h")
        reads(storage, CUT)
        assert not one.writes() and not two.writes() and other.writes()


def test_a_host_is_shut_out_by_all_its_addresses(server: Ganesha) -> None:
    server.export(1, "CLIENT { Clients = *; Access_Type = RW; }")
    server.stop()
    server.start()
    known = {"h": (server.addresses["h"], server.addresses6["h"])}
    storage = NfsGanesha("nfs-a", {"exports": [1], "files": server.files, "dbus_address": server.bus}, known, LIMIT_S)
    driver(server, LIMIT_S).cut("h")
    access, said = storage.read("h")
    assert access is OPEN and "fd00:213:1::2" in said
    one = Client(server.on_host("h", over6=True))
    try:
        assert one.is_open() and one.writes()
        storage.cut("h")
        reads(storage, CUT)
        assert not one.writes()
    finally:
        one.end()
    storage.restore("h")
    assert storage.read("h")[0] is OPEN


def test_a_silent_bus_is_unknown(server: Ganesha) -> None:
    storage = driver(server, LIMIT_S)
    storage.cut("h")
    reads(storage, CUT)
    os.kill(server.bus_pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert storage.read("h")[0] is UNKNOWN
        with pytest.raises(Unanswered):
            storage.restore("h")
        assert time.monotonic() - began <= 2 * LIMIT_S + 0.5
    finally:
        os.kill(server.bus_pid, signal.SIGCONT)
    reads(storage, CUT)


def test_a_bus_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    storage = driver(Ganesha(tmp_path / "never"), LIMIT_S)
    assert storage.read("h")[0] is UNKNOWN
    with pytest.raises(Unanswered, match="D-Bus"):
        storage.cut("h")


@pytest.fixture
def slow_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which can be frozen."""
    image, where = tmp_path / "image", tmp_path / "server/data"
    if shutil.which("fsfreeze") is None or shutil.which("mkfs.ext4") is None:
        pytest.skip("fsfreeze or mkfs.ext4 is not installed")
    with ExitStack() as ends:
        image.write_bytes(b"")
        os.truncate(image, 64 << 20)
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        where.mkdir(parents=True)
        if subprocess.run(["mount", "-o", "loop", str(image), str(where)]).returncode:
            pytest.skip("this machine mounts no loop device")
        ends.callback(subprocess.run, ["umount", "-l", str(where)], check=True)
        yield where


@pytest.mark.parametrize("listens_at", ["", "10.213.1.1"], ids=["IPv6 and IPv4", "IPv4"])
def test_a_write_that_the_server_has_in_hand_is_waited_for(slow_disk: Path, tmp_path: Path, listens_at: str) -> None:
    """It was let in before the cut, and its disk is stuck: it lands when the disk goes on, and until then there is no
    proof."""
    with ExitStack() as ends:
        server = ends.enter_context(Ganesha(tmp_path / "server", listens_at=listens_at))
        storage = driver(server, LIMIT_S)
        stuck = ends.enter_context(client(server))
        assert stuck.is_open() and stuck.writes()
        before = server.landed("h")
        subprocess.run(["fsfreeze", "-f", str(slow_disk)], check=True)
        thaw = ends.enter_context(ExitStack())
        thaw.callback(subprocess.run, ["fsfreeze", "-u", str(slow_disk)], check=True)
        assert not stuck.writes()
        storage.cut("h")
        access, said = storage.read("h")
        assert access is UNKNOWN and "still has" in said
        assert server.landed("h") == before
        thaw.close()
        reads(storage, CUT)
        eventually("the write that was in hand", lambda: server.landed("h") == before + 1)


def test_a_client_of_nfs4_writes_no_more_and_is_proven_when_its_lease_is_over(server: Ganesha) -> None:
    """As long as it keeps its state alive the server cannot tell that from a request in hand."""
    storage = driver(server, LIMIT_S)
    with client(server, path="/e1", program="nfs4_client") as one:
        assert one.is_open() and one.writes()
        storage.cut("h")
        assert not one.writes()
        until = time.monotonic() + 2 * LEASE_S
        while time.monotonic() < until:
            assert one.does("renew") == "ok" and one.does("write") == f"no {ACCESS}"
            access, said = storage.read("h")
            assert access is UNKNOWN and "open files" in said
        reads(storage, CUT, within_s=3 * LEASE_S)
        storage.restore("h")
        assert not one.writes()
    with client(server, path="/e1", program="nfs4_client") as anew:
        assert anew.is_open() and anew.writes()


def test_a_client_of_nfs4_reclaims_nothing_from_a_server_that_was_restarted(tmp_path: Path) -> None:
    with Ganesha(tmp_path / "server", graceless=False) as server:
        storage = driver(server, LIMIT_S)
        with ExitStack() as ends:
            eventually("an open after the grace of a first start", lambda: _lets_in(server))
            one, other = (
                ends.enter_context(client(server, host, path="/e1", program="nfs4_client")) for host in ("h", "other")
            )
            assert one.is_open() and one.writes() and other.is_open() and other.writes()
            storage.cut("h")
            server.stop()
            server.start()
            reads(storage, CUT)
            assert other.does("reclaim") == "ok"
            assert not one.writes() and one.does("reclaim") == f"no {ACCESS}"
            reads(storage, CUT, within_s=3 * LEASE_S)


def test_locks_of_nfs3_are_let_go_so_that_another_host_gets_them(tmp_path: Path) -> None:
    """They have no lease: without a word to the server they would stay when the host is dead."""
    with Ganesha(tmp_path / "server") as server:
        storage = driver(server, LIMIT_S, way=server.let_in())
        (server.where / "data/disk").write_bytes(b"")
        with ExitStack() as ends:
            mine, others = (
                ends.enter_context(_locker(server, host))
                for host in ("h", "other")
            )  # fmt: skip
            assert mine.does("lock") == "ok" and others.does("lock") != "ok"
            storage.cut("h")
            reads(storage, CUT)
            assert others.does("lock") == "ok" and mine.does("lock") != "ok"
            assert storage.read("h")[0] is CUT


def _lets_in(server: Ganesha) -> bool:
    with client(server, path="/e1", program="nfs4_client") as probe:
        return probe.is_open()


@contextmanager
def _locker(server: Ganesha, host: str) -> Iterator[Client]:
    made = Client(server.on_host(host, name="disk", program="nlm_client"))
    try:
        assert made.is_open()
        yield made
    finally:
        made.end()


def test_an_engine_elsewhere_may_do_this_and_nothing_else(tmp_path: Path) -> None:
    """Its key is good for vmhad-ganesha alone, a server whose own key is another is not spoken to, and an engine that
    has no key is not asked for a password."""
    with Ganesha(tmp_path / "server") as server:
        way = server.let_in()
        assert driver(server, LIMIT_S, way=way).read("h")[0] is OPEN
        asked = ["ssh", "-o", "BatchMode=yes", "-i", str(way["identity_file"]), "-o", "IdentitiesOnly=yes"]
        asked += ["-o", f"UserKnownHostsFile={way['known_hosts_file']}", str(way["ssh"]), "cat /etc/hostname"]
        said = subprocess.run(
            asked, input='{"act": "shell", "limit_s": 1}\n', capture_output=True, text=True, timeout=20
        )
        assert said.stdout.startswith('{"failed"')
        known = Path(str(way["known_hosts_file"]))
        for change in (
            lambda: known.write_text(known.read_text().replace("AAAA", "AAAB")),
            lambda: known.write_text(""),
        ):
            before = known.read_text()
            change()
            access, words = driver(server, LIMIT_S, way=way).read("h")
            assert access is UNKNOWN and "ssh" in words
            known.write_text(before)
        stranger = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
        storage = driver(server, LIMIT_S, way={**way, "identity_file": str(stranger)})
        with pytest.raises(Unanswered, match="ssh"):
            storage.cut("h")
        assert driver(server, LIMIT_S, way=way).read("h")[0] is OPEN
