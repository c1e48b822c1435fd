# SPDX-License-Identifier: Apache-2.0
"""Storage beats on real file systems: what peers read of a host that lives, stops, hangs, or was never there."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from vmhad.agent.bootclock import boot_s
from vmhad.agent.directory import MARKER, RECORDS, Directory
from vmhad.agent.loop import Identity
from vmhad.agent.record import BLOCK, Record, Torn, from_block, to_block
from vmhad.agent.storage import SharedStorage
from vmhad.kernel.beat import StorageBeat
from vmhad.kernel.signal import Reading

INTERVAL_S = 0.1
DOWN_AFTER_S = 2.0
LIMIT_S = 20.0
RECORD = Record("h1", "boot-1", "run-1", 7, 30.0)


def wait(what: str, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.01)


def marked(place: Path, marker: str = "m1") -> Path:
    (place / MARKER).write_text(marker + "\n")
    return place


@contextmanager
def host(
    name: str, place: Path, peers: tuple[str, ...] = (), *, run: str = "run-1", marker: str = "m1", writes: bool = True
) -> Iterator[SharedStorage]:
    """The eye of one host on the storage."""
    eye = SharedStorage(
        "s",
        marker,
        Directory(str(place)),
        Identity(name, f"boot-of-{name}", run),
        peers,
        interval_s=INTERVAL_S,
        down_after_s=DOWN_AFTER_S,
        writes=writes,
    )
    eye.promise_s = lambda: 42.0
    eye.start()
    try:
        yield eye
    finally:
        eye.stop()


def reading(eye: SharedStorage) -> Reading:
    return eye.tell(boot_s()).storages["s"]


def record(eye: SharedStorage, peer: str) -> StorageBeat | None:
    return eye.tell(boot_s()).records.get(peer, {}).get("s")


def complaint(eye: SharedStorage) -> str:
    return " ".join(eye.tell(boot_s()).hardware)


def test_peers_read_each_other(disk: Path) -> None:
    marked(disk)
    with host("h1", disk, ("h2",)) as one, host("h2", disk, ("h1", "h3")) as two:
        wait("both are read", lambda: record(one, "h2") is not None and record(two, "h1") is not None)
        first = record(two, "h1")
        assert first is not None and (first.boot, first.self_fence_s) == ("boot-of-h1", 42.0)
        wait("it moves", lambda: (now := record(two, "h1")) is not None and now.count > first.count + 3)
        last = record(two, "h1")
        assert last is not None and last.still_s < DOWN_AFTER_S
        assert reading(one) is reading(two) is Reading.UP
        assert record(two, "h3") is None
        assert complaint(one) == ""
        renewed = one.renewed()
        assert renewed is not None and renewed[0] <= boot_s() and renewed[1] == 42.0


def test_a_record_that_stands_still_is_still_for_longer_and_longer(disk: Path) -> None:
    marked(disk)
    with host("h1", disk):
        wait("it is written", lambda: (disk / RECORDS / "h1").exists())
    with host("h2", disk, ("h1",)) as two:
        wait("it is read", lambda: record(two, "h1") is not None)
        first = record(two, "h1")
        wait("it stands still", lambda: (now := record(two, "h1")) is not None and now.still_s > DOWN_AFTER_S)
        last = record(two, "h1")
        assert first is not None and last is not None and last.count == first.count
        with host("h1", disk, run="run-2"):
            # A new run begins to count anew; whatever changes is a move.
            wait("it moves again", lambda: (now := record(two, "h1")) is not None and now.still_s < DOWN_AFTER_S / 2)


def test_whoever_only_looks_writes_nothing(disk: Path) -> None:
    marked(disk)
    with host("h1", disk, writes=False) as one:
        wait("it is seen", lambda: reading(one) is Reading.UP)
        assert not (disk / RECORDS).exists()


@pytest.mark.parametrize(("marker", "why"), [(None, "it has no marker"), ("m2", "its marker is another one's")])
def test_nothing_is_written_where_the_marker_is_not(disk: Path, marker: str | None, why: str) -> None:
    if marker:
        marked(disk, marker)
    with host("h1", disk) as one:
        wait("it is down", lambda: reading(one) is Reading.DOWN)
        assert why in complaint(one)
        assert not (disk / RECORDS).exists()
        marked(disk)
        wait("it is up", lambda: reading(one) is Reading.UP)
        wait("it is written", lambda: (disk / RECORDS / "h1").exists())
        (disk / MARKER).unlink()
        wait("it is down again", lambda: reading(one) is Reading.DOWN)


class Slow(Directory):
    """A storage that takes longer for each read of a record than a round should take."""

    def read(self, host: str) -> bytes | None:
        time.sleep(INTERVAL_S * 2)
        return super().read(host)


def test_slow_reads_do_not_keep_the_host_from_writing(disk: Path) -> None:
    peers = tuple(f"p{number}" for number in range(5))
    with ExitStack() as held:
        for peer in peers:
            held.enter_context(host(peer, marked(disk)))
        eye = SharedStorage("s", "m1", Slow(str(disk)), Identity("h1", "b", "r"), peers, interval_s=INTERVAL_S)
        eye.start()
        held.callback(eye.stop)
        wait("all are read in turn", lambda: all(record(eye, peer) is not None for peer in peers))
        writes = from_block((disk / RECORDS / "h1").read_bytes(), "h1").count
        assert writes >= len(peers)


def test_no_such_place(disk: Path) -> None:
    with host("h1", disk / "nowhere") as one:
        wait("it is down", lambda: reading(one) is Reading.DOWN)
        assert "no such place" in complaint(one)


def test_memory_is_refused() -> None:
    """A tmpfs is every host's own; its beats would be read by nobody, its marker by everybody who made one."""
    place = Path("/dev/shm")  # noqa: S108
    with host("h1", place) as one:
        wait("it is down", lambda: reading(one) is Reading.DOWN)
        assert "which no other host can read" in complaint(one)


def test_a_storage_that_hangs_is_down_and_hangs_alone(disk: Path) -> None:
    """A FIFO without a writer holds whoever opens it, as a dead NFS server does."""
    good, bad = disk / "good", disk / "bad"
    marked_good = good.mkdir() or marked(good)
    bad.mkdir()
    os.mkfifo(bad / MARKER)
    with host("h1", bad) as hung, host("h1", marked_good) as well:
        assert reading(hung) is Reading.UNKNOWN
        wait("it is down", lambda: reading(hung) is Reading.DOWN)
        assert reading(well) is Reading.UP
    os.close(os.open(bad / MARKER, os.O_WRONLY | os.O_NONBLOCK))


def test_a_write_that_hangs(small_disk: Path) -> None:
    """The file system is frozen: reads go on, the writer waits in the kernel, and peers see the record stand still."""
    marked(small_disk)
    with host("h1", small_disk) as one, host("h2", small_disk, ("h1",), writes=False) as two:
        wait("it moves", lambda: (now := record(two, "h1")) is not None and now.count > 3)
        subprocess.run(["fsfreeze", "--freeze", str(small_disk)], check=True)
        wait("it hangs", lambda: reading(one) is Reading.DOWN)
        still = record(two, "h1")
        assert still is not None and still.still_s > 0 and reading(two) is Reading.UP
        subprocess.run(["fsfreeze", "--unfreeze", str(small_disk)], check=True)
        wait("it moves again", lambda: (now := record(two, "h1")) is not None and now.count > still.count)
        wait("it is up again", lambda: reading(one) is Reading.UP)


def test_a_full_disk_does_not_stop_a_beat_that_has_its_block(small_disk: Path) -> None:
    marked(small_disk)
    with host("h1", small_disk) as one, host("h2", small_disk, ("h1",), writes=False) as two:
        wait("it moves", lambda: (now := record(two, "h1")) is not None and now.count > 3)
        fill(small_disk)
        full = record(two, "h1")
        assert full is not None
        wait("it moves", lambda: (now := record(two, "h1")) is not None and now.count > full.count + 3)
        assert complaint(one) == ""


def test_a_full_disk_without_room_for_the_block_is_told(small_disk: Path) -> None:
    marked(small_disk)
    fill(small_disk)
    with host("h1", small_disk) as one:
        wait("it is told", lambda: "cannot be written: No space left on device" in complaint(one))
        assert reading(one) is Reading.UP and one.renewed() is None


def fill(place: Path) -> None:
    try:
        with (place / "filler").open("wb", buffering=0) as file:
            while file.write(b"x" * 512):
                pass
    except OSError:
        os.sync()


@pytest.mark.parametrize("at", [0, 8, 12, 16, 40])
def test_a_torn_block_is_not_a_record(at: int) -> None:
    whole = to_block(RECORD)
    assert len(whole) == BLOCK and from_block(whole, "h1") == RECORD
    for torn in (whole[:at] + b"\xff" + whole[at + 1 :], whole[:at], whole[:at].ljust(BLOCK, b"\0")):
        with pytest.raises(Torn):
            from_block(torn, "h1")


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"host": "h1", "more": 1}', b"\xff"])
def test_a_whole_block_of_something_else_is_not_a_record(body: bytes) -> None:
    from vmhad.agent.record import HEAD, MAGIC, zlib

    with pytest.raises(Torn):
        from_block((HEAD.pack(MAGIC, zlib.crc32(body), len(body)) + body).ljust(BLOCK, b"\0"), "h1")


def test_another_hosts_record_is_not_a_record() -> None:
    with pytest.raises(Torn):
        from_block(to_block(replace(RECORD, host="h2")), "h1")


def test_a_torn_record_stands_still(disk: Path) -> None:
    marked(disk)
    with host("h1", disk):
        wait("it is written", lambda: (disk / RECORDS / "h1").exists())
    path = disk / RECORDS / "h1"
    with host("h2", disk, ("h1",)) as two:
        wait("it is read", lambda: record(two, "h1") is not None)
        before = record(two, "h1")
        path.write_bytes(path.read_bytes()[:20].ljust(BLOCK, b"\0"))
        assert before is not None
        wait("it stands still", lambda: (now := record(two, "h1")) is not None and now.still_s > before.still_s + 0.5)
        after = record(two, "h1")
        assert after is not None and after.count == before.count
