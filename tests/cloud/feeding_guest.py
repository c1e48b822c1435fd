# SPDX-License-Identifier: Apache-2.0
"""What runs in a guest that stands for a host: the agent's own record on a storage, and its feeding of a watchdog."""

from __future__ import annotations

import logging
import sys
import threading

from vmhad.agent.bootclock import boot_id
from vmhad.agent.directory import Directory
from vmhad.agent.loop import Identity
from vmhad.agent.storage import SharedStorage
from vmhad.agent.watchdog import LinuxWatchdog, Watchdog
from vmhad.kernel.self_fence import SelfFence

HOST, MARKER, STORAGE = "guest", "the-guests-storage", "/storage"
NUMBERS = SelfFence(write_s=1.0, write_limit_s=4.0, lease_s=10.0, feed_s=2.0, watchdog_s=10.0)


def main() -> None:
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    lease = SharedStorage(
        "disk",
        MARKER,
        Directory(STORAGE),
        Identity(HOST, boot_id(), "run"),
        (),
        interval_s=NUMBERS.write_s,
        down_after_s=NUMBERS.write_limit_s,
    )
    watchdog = Watchdog(LinuxWatchdog("/dev/watchdog0"), NUMBERS, lease)
    lease.start()
    watchdog.start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
