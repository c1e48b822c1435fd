# SPDX-License-Identifier: Apache-2.0
"""What a watch has to say, as an engine hears it."""

from __future__ import annotations

from collections.abc import Iterable

from vmhad.kernel.signal import Signal
from vmhad.ports import Watch


def all_told(watch: Watch, hosts: Iterable[str]) -> list[Signal]:
    """What is new, and then of each host what was only said again."""
    told = list(watch.read())
    return [*told, *(signal for host in hosts if (signal := watch.latest(host)) is not None)]
