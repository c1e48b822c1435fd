# SPDX-License-Identifier: Apache-2.0
"""Self-fencing, for those who opted in: this host is reset unless its record on the shared storage goes on moving.

The numbers and why they are safe stand in kernel/self_fence.py. Here is the order of things. The watchdog is armed when
the first write has landed, and only then does the record promise anything; the promise is withdrawn, and seen to be so,
before the watchdog is disarmed. A watchdog that cannot be fed makes the record withdraw it, too. The record itself goes
on being written through all of that: if the watchdog should fail to fire, life shows.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import time
from dataclasses import replace
from typing import Protocol

from vmhad.agent.bootclock import boot_s
from vmhad.agent.storage import SharedStorage
from vmhad.agent.told import Rounds, Told
from vmhad.kernel.beat import Beat, DomainState
from vmhad.kernel.self_fence import SelfFence

LOG = logging.getLogger(__name__)
# From linux/watchdog.h.
SETTIMEOUT, GETTIMEOUT = 0xC0045706, 0x80045707
# Of a guest in one of these states nothing is left that could write.
AT_REST = (DomainState.SHUT_OFF, DomainState.CRASHED)
# How long an orderly end waits for the record to say that the promise is withdrawn.
WITHDRAW_S = 5.0


class Device(Protocol):
    def open(self, timeout_s: float) -> float:
        """Arms it; returns after how long it really fires. OSError if it cannot be armed."""

    def feed(self) -> None: ...

    def disarm(self) -> None:
        """It will not fire any more."""


class LinuxWatchdog:
    """/dev/watchdog and its like. Whatever ends this process other than disarm() leaves it armed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = -1

    def open(self, timeout_s: float) -> float:
        file = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        seconds = struct.pack("i", round(timeout_s))
        try:
            fcntl.ioctl(file, SETTIMEOUT, seconds)
            (really,) = struct.unpack("i", fcntl.ioctl(file, GETTIMEOUT, seconds))
        except OSError:
            # It is armed already, with a time that is not ours.
            os.write(file, b"V")
            os.close(file)
            raise
        self._file = file
        return float(really)

    def feed(self) -> None:
        os.write(self._file, b"\0")

    def disarm(self) -> None:
        """The character that tells Linux's drivers to stop at the close, where they were not built never to."""
        os.write(self._file, b"V")
        os.close(self._file)
        self._file = -1


class Watchdog:
    """The eye that is a hand, too. lease: the storage whose record is the lease; its promise_s is set to ours."""

    def __init__(self, device: Device, numbers: SelfFence, lease: SharedStorage) -> None:
        self._device = device
        self._numbers = numbers
        self._lease = lease
        lease.promise_s = self.promise_s
        self._rounds = Rounds("watchdog", self._look, numbers.feed_s)
        self._armed = False
        self._lost = False
        self._leaving = False
        self._broken = ""

    def start(self) -> None:
        self._rounds.start()

    def stop(self) -> None:
        self._rounds.stop()

    def promise_s(self) -> float:
        """What the next record may say: after so long a stillness this host is gone. 0: it promises nothing."""
        return self._numbers.gone_after_s if self._armed and not self._broken and not self._leaving else 0.0

    def tell(self, now: float) -> Told:
        lost = "the lease is lost and the watchdog is not fed" if self._lost else ""
        complaint = self._broken or lost
        return Told(hardware=(f"watchdog: {complaint}",) if complaint else ())

    def leave(self, last: Beat) -> None:
        """An orderly end. Disarmed only where no guest could be left behind that nobody would reset any more, and only
        once the storage says that nothing is promised."""
        self._leaving = True
        if not self._armed:
            return
        left = sorted(server for server, guest in (last.domains or {}).items() if guest.state not in AT_REST)
        if last.domains is None or left:
            who = f"{len(left)} guests run" if left else "nobody knows which guests run"
            watchdog_s = self._numbers.watchdog_s
            LOG.warning("%s: the watchdog stays armed, an agent must run here again within %g s", who, watchdog_s)
            return
        if not self._withdrawn():
            LOG.warning("the storage does not take that nothing is promised any more: the watchdog stays armed")
            return
        self._rounds.stop()
        if self._rounds.join(WITHDRAW_S):
            self._device.disarm()
            self._armed = False

    def _withdrawn(self) -> bool:
        """A write has landed that began after we left. An older one that promised nothing may be the one before the
        promise, which peers can read a moment before we know that it has landed."""
        left_at = boot_s()
        while boot_s() < left_at + WITHDRAW_S:
            renewed = self._lease.renewed()
            if renewed is not None and renewed[0] >= left_at and renewed[1] == 0.0:
                return True
            time.sleep(0.05)
        return False

    def _look(self) -> None:
        renewed = self._lease.renewed()
        valid = renewed is not None and boot_s() - renewed[0] < self._numbers.lease_s
        if not self._armed:
            if valid and not self._leaving:
                self._arm()
            return
        if valid != (not self._lost):
            self._lost = not valid
            if valid:
                LOG.warning("the lease on the storage is renewed, the watchdog is fed again")
            else:
                watchdog_s = self._numbers.watchdog_s
                LOG.critical("the lease on the storage is lost: this host is reset within %g s", watchdog_s)
        if valid:
            self._feed()

    def _arm(self) -> None:
        try:
            really_s = self._device.open(self._numbers.watchdog_s)
        except OSError as error:
            self._say_broken(f"it cannot be armed: {error.strerror}")
            return
        numbers = replace(self._numbers, watchdog_s=really_s)
        if why := numbers.unsafe():
            self._device.disarm()
            self._say_broken(f"it takes no other time than {really_s:g} s: {why}")
            return
        self._numbers, self._armed, self._broken = numbers, True, ""
        LOG.info("the watchdog is armed: peers may count on it after %g s", numbers.gone_after_s)

    def _feed(self) -> None:
        try:
            self._device.feed()
            self._broken = ""
        except OSError as error:
            self._say_broken(f"it cannot be fed: {error.strerror}")

    def _say_broken(self, why: str) -> None:
        if self._broken != why:
            LOG.error("watchdog: %s", why)
        self._broken = why
