# SPDX-License-Identifier: Apache-2.0
"""How fast the machine itself is while something is measured on it.

A virtual machine shares its cores with others that nobody here sees: for tens of seconds the same loop costs twice the
CPU time. Two phases that are compared may fall into different such times. So a small loop is run beside them all the
while, and a phase is also told in seconds of the machine at its fastest: what it would have taken, had it been as fast
throughout. Right for what keeps the cores busy, which evacuations on a small machine do.
"""

from __future__ import annotations

import threading
import time
from functools import cached_property

EVERY_S = 0.25
LOOP = 20_000


class Speed:
    """Samples from start() on. What counts as the machine's best is settled when first asked for, so that all phases
    are told in the same seconds."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="speed", daemon=True)

    def start(self) -> Speed:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()

    def work_s(self, began_at: float, ended_at: float) -> float:
        """The phase in seconds of the fastest machine. Both times as time.time()."""
        costs = [cost for at, cost in self._samples if began_at <= at <= ended_at]
        if not costs:
            return ended_at - began_at
        return (ended_at - began_at) * sum(self._best_s / cost for cost in costs) / len(costs)

    @cached_property
    def _best_s(self) -> float:
        """Not the very fastest: one sample may be lucky."""
        costs = sorted(cost for _, cost in self._samples)
        return costs[len(costs) // 20]

    def _run(self) -> None:
        while not self._ending.wait(EVERY_S):
            at, began_s = time.time(), time.thread_time()
            for _ in range(LOOP):
                pass
            self._samples.append((at, max(time.thread_time() - began_s, 1e-6)))
