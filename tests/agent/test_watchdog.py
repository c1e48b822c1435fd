# SPDX-License-Identifier: Apache-2.0
"""Self-fencing: what is fed while which record stands on the storage, and what an orderly end leaves behind."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vmhad.agent.bootclock import boot_s
from vmhad.agent.directory import MARKER, Directory
from vmhad.agent.loop import Identity
from vmhad.agent.record import from_block
from vmhad.agent.storage import SharedStorage
from vmhad.agent.watchdog import LinuxWatchdog, Watchdog
from vmhad.kernel.beat import Beat, Domain, DomainState
from vmhad.kernel.self_fence import SelfFence

LIMIT_S = 20.0
NUMBERS = SelfFence(write_s=0.1, write_limit_s=0.3, lease_s=2.0, feed_s=0.1, watchdog_s=2.0)


class Clockwork:
    """A watchdog that is a count of seconds: no machine that runs tests may be reset. What it would have done is
    remembered. really_s: the only time that it knows."""

    def __init__(self, really_s: float = 0.0) -> None:
        self.really_s = really_s
        self.armed = False
        self.fed = 0
        self.due = 0.0
        self.late = False
        self.error: OSError | None = None

    def open(self, timeout_s: float) -> float:
        if self.error:
            raise self.error
        self.armed, self.really_s = True, self.really_s or timeout_s
        self.due = boot_s() + self.really_s
        return self.really_s

    def feed(self) -> None:
        if self.error:
            raise self.error
        self.late = self.late or boot_s() > self.due
        self.due = boot_s() + self.really_s
        self.fed += 1

    def disarm(self) -> None:
        self.armed = False

    @property
    def fired(self) -> bool:
        return self.armed and (self.late or boot_s() > self.due)


class Gate:
    """A storage whose writes wait while it is shut."""

    def __init__(self, inner: Directory) -> None:
        self.inner = inner
        self.open = threading.Event()
        self.open.set()

    def marker(self) -> str:
        return self.inner.marker()

    def write(self, host: str, block: bytes) -> None:
        self.open.wait()
        self.inner.write(host, block)

    def read(self, host: str) -> bytes | None:
        return self.inner.read(host)


class House:
    """A host with a watchdog and a storage."""

    def __init__(self, place: Path, device: Clockwork, numbers: SelfFence = NUMBERS) -> None:
        (place / MARKER).write_text("m1")
        self.device = device
        self.store = Gate(Directory(str(place)))
        self.peers_view = Directory(str(place))
        self.storage = SharedStorage("s", "m1", self.store, Identity("h1", "b", "r"), (), interval_s=0.1)
        self.watchdog = Watchdog(device, numbers, self.storage)

    @property
    def promised_s(self) -> float:
        """What a peer reads."""
        block = self.peers_view.read("h1")
        return from_block(block, "h1").self_fence_s if block else 0.0


@contextmanager
def house(place: Path, device: Clockwork, numbers: SelfFence = NUMBERS) -> Iterator[House]:
    built = House(place, device, numbers)
    built.storage.start()
    built.watchdog.start()
    try:
        yield built
    finally:
        built.store.open.set()
        built.watchdog.stop()
        built.storage.stop()


def wait(what: str, condition: Callable[[], object]) -> None:
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.01)


def last_beat(domains: dict[str, Domain] | None) -> Beat:
    return Beat("h1", "b", "r", 1, boot_s(), time.time(), leaving=True, domains=domains)


def test_armed_fed_and_promised(disk: Path) -> None:
    device = Clockwork()
    with house(disk, device) as built:
        wait("the record promises", lambda: built.promised_s == NUMBERS.gone_after_s)
        assert device.armed
        fed = device.fed
        wait("it is fed", lambda: device.fed > fed + 5)
        assert not device.fired


def test_nothing_is_armed_before_a_write_has_landed(disk: Path) -> None:
    device = Clockwork()
    built = House(disk, device)
    built.store.open.clear()
    built.storage.start()
    built.watchdog.start()
    wait("the first write hangs", lambda: built.storage.tell(boot_s()).storages)
    time.sleep(0.5)
    assert not device.armed and built.promised_s == 0.0
    built.store.open.set()
    wait("it is armed", lambda: device.armed)
    built.watchdog.stop()
    built.storage.stop()


def test_a_lost_lease_is_not_fed_and_the_record_had_promised_it(disk: Path) -> None:
    device = Clockwork()
    with house(disk, device) as built:
        wait("the record promises", lambda: built.promised_s == NUMBERS.gone_after_s)
        built.store.open.clear()
        shut_at = boot_s()
        wait("it fires", lambda: device.fired)
        assert boot_s() - shut_at < built.promised_s
        assert built.promised_s == NUMBERS.gone_after_s
        assert built.watchdog.tell(boot_s()).hardware == ("watchdog: the lease is lost and the watchdog is not fed",)


def test_a_watchdog_that_does_not_fire_shows_as_a_record_that_moves_on(disk: Path) -> None:
    device = Clockwork()
    with house(disk, device) as built:
        wait("the record promises", lambda: built.promised_s == NUMBERS.gone_after_s)
        built.store.open.clear()
        wait("it should fire", lambda: device.fired)
        before = built.peers_view.read("h1")
        built.store.open.set()
        wait("the record moves", lambda: built.peers_view.read("h1") != before)


def test_one_failed_write_does_not_cost_the_host(disk: Path) -> None:
    device = Clockwork()
    with house(disk, device) as built:
        wait("it is armed", lambda: device.armed)
        built.store.open.clear()
        time.sleep(NUMBERS.write_s + NUMBERS.write_limit_s)
        built.store.open.set()
        fed = device.fed
        wait("it is fed on", lambda: device.fed > fed + 5)
        assert not device.fired


def test_a_watchdog_that_cannot_be_fed_withdraws_the_promise_and_the_record_goes_on(disk: Path) -> None:
    device = Clockwork()
    with house(disk, device) as built:
        wait("the record promises", lambda: built.promised_s > 0)
        device.error = OSError(5, "Input/output error")
        wait("it is withdrawn", lambda: built.promised_s == 0.0)
        assert built.watchdog.tell(boot_s()).hardware == ("watchdog: it cannot be fed: Input/output error",)
        before = built.peers_view.read("h1")
        wait("the record moves", lambda: built.peers_view.read("h1") != before)


def test_a_watchdog_that_cannot_be_armed_promises_nothing(disk: Path) -> None:
    device = Clockwork()
    device.error = FileNotFoundError(2, "No such file or directory")
    with house(disk, device) as built:
        wait("it is told", lambda: built.watchdog.tell(boot_s()).hardware)
        wait("the record is there", lambda: built.peers_view.read("h1"))
        assert built.promised_s == 0.0


def test_the_device_has_its_own_idea_of_the_time(disk: Path) -> None:
    with house(disk, Clockwork(really_s=3.0)) as built:
        longer = SelfFence(0.1, 0.3, 2.0, 0.1, 3.0)
        wait("the record promises what is true", lambda: built.promised_s == longer.gone_after_s)


def test_a_device_whose_time_is_too_short_is_disarmed_again(disk: Path) -> None:
    device = Clockwork(really_s=0.2)
    with house(disk, device) as built:
        wait("it is told", lambda: "takes no other time" in " ".join(built.watchdog.tell(boot_s()).hardware))
        assert not device.armed and built.promised_s == 0.0


@pytest.mark.parametrize("domains", [{}, {"vm": Domain(DomainState.SHUT_OFF), "wreck": Domain(DomainState.CRASHED)}])
def test_an_orderly_end_without_guests_disarms(disk: Path, domains: dict[str, Domain]) -> None:
    device = Clockwork()
    with house(disk, device) as built:
        wait("the record promises", lambda: built.promised_s > 0)
        built.watchdog.leave(last_beat(domains))
        assert not device.armed and built.promised_s == 0.0


@pytest.mark.parametrize("domains", [None, {"vm": Domain(DomainState.RUNNING)}, {"vm": Domain(DomainState.PAUSED)}])
def test_an_end_that_leaves_guests_behind_leaves_it_armed(disk: Path, domains: dict[str, Domain] | None) -> None:
    device = Clockwork()
    with house(disk, device) as built:
        wait("the record promises", lambda: built.promised_s > 0)
        built.watchdog.leave(last_beat(domains))
        assert device.armed


@pytest.fixture
def device_file(tmp_path: Path) -> Iterator[Callable[[int], tuple[Path, queue.Queue[str]]]]:
    """Makes a file that is a watchdog: its path, and what is done to it. Takes the time it knows, 0 for any."""
    path = tmp_path / "watchdog"
    path.touch()
    served: list[subprocess.Popen[str]] = []

    def make(seconds: int) -> tuple[Path, queue.Queue[str]]:
        program = str(Path(__file__).with_name("fuse_watchdog.py"))
        server = subprocess.Popen(
            [sys.executable, program, str(path), str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        served.append(server)
        assert server.stdout is not None and server.stderr is not None
        if server.stdout.readline() != "mounted\n":
            pytest.skip(f"only root may mount a FUSE: {server.stderr.read().strip()}")
        done: queue.Queue[str] = queue.Queue()
        output = server.stdout
        threading.Thread(target=lambda: [done.put(line.strip()) for line in output], daemon=True).start()
        return path, done

    yield make
    for server in served:
        subprocess.run(["umount", str(path)], capture_output=True)
        server.kill()
        server.wait()


def next_of(done: queue.Queue[str], count: int) -> list[str]:
    return [done.get(timeout=LIMIT_S) for _ in range(count)]


def test_what_linux_is_told(device_file: Callable[[int], tuple[Path, queue.Queue[str]]]) -> None:
    path, done = device_file(0)
    device = LinuxWatchdog(str(path))
    assert device.open(17.0) == 17.0
    assert next_of(done, 2) == ["open", "timeout 17"]
    device.feed()
    device.feed()
    assert next_of(done, 2) == ["feed", "feed"]
    device.disarm()
    assert next_of(done, 2) == ["disarm", "close"]


def test_linux_tells_its_own_time(device_file: Callable[[int], tuple[Path, queue.Queue[str]]]) -> None:
    path, _ = device_file(30)
    device = LinuxWatchdog(str(path))
    assert device.open(17.0) == 30.0
    device.disarm()


def test_what_is_no_watchdog_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError):
        LinuxWatchdog(str(tmp_path / "plain")).open(10.0)
    assert len(os.listdir("/proc/self/fd")) == files
