# SPDX-License-Identifier: Apache-2.0
"""The only clock that the agent trusts: it counts from boot, through suspends, and nobody can set it."""

from __future__ import annotations

import time
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_s() -> float:
    """Seconds since the host booted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    return BOOT_ID.read_text().strip()
