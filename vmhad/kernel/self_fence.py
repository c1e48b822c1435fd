# SPDX-License-Identifier: Apache-2.0
"""The contract of self-fencing in numbers: when a host whose record stands still has reset itself, whatever it does.

The host writes its record on the shared storage, and feeds its watchdog only while its lease is valid: while the newest
write that is known to have landed *began* less than lease_s ago. Peers wait for gone_after_s since they saw the record
move, by their own clocks. That they wait long enough follows from:

1. A write is seen to move no earlier than it began. The lease ends lease_s after the last write that is known to have
   landed; one that landed unknown to its writer moves the record later still, and prolongs only the peers' wait.
2. The last feed may come late. Between the look at the lease and the feed the process may have been stopped; but not
   for longer than watchdog_s after the feed before, or the watchdog would have fired. So the last feed is no later than
   lease_s + watchdog_s, and the watchdog fires watchdog_s after it.
3. Clocks drift, timers are coarse, and a reset is not there at once: MARGIN of the sum, and MARGIN_S.

    gone_after_s = (lease_s + 2 * watchdog_s) * (1 + MARGIN) + MARGIN_S

That a host is not reset for nothing needs two things more, and their lack ends the start:

4. One write may fail or hang up to its limit without the lease being lost: lease_s >= 2 * (write_s + write_limit_s).
5. Two feeds in a row may be late: watchdog_s >= 3 * feed_s.

A watchdog that fails to fire shows as a record that goes on moving: writing never stops, neither for a lost lease nor
for a broken watchdog. The record says gone_after_s only while the watchdog is fed without errors. What this cannot
cover is a watchdog that breaks in silence in the same minute as the storage goes: two failures at once.
"""

from __future__ import annotations

from dataclasses import dataclass

MARGIN = 0.1
MARGIN_S = 5.0


@dataclass(frozen=True, slots=True)
class SelfFence:
    """write_s: between two writes. write_limit_s: how long a write may take that is not yet called failed. feed_s:
    between two feeds. watchdog_s: how long after the last feed the watchdog fires."""

    write_s: float
    write_limit_s: float
    lease_s: float
    feed_s: float
    watchdog_s: float

    @property
    def gone_after_s(self) -> float:
        return (self.lease_s + 2 * self.watchdog_s) * (1 + MARGIN) + MARGIN_S

    def unsafe(self) -> str:
        """'' or what is wrong with these numbers, as the end of a sentence."""
        least_s = 2 * (self.write_s + self.write_limit_s)
        if self.lease_s < least_s:
            return f"a lease of {self.lease_s:g} s does not outlive one failed write, for which it needs {least_s:g} s"
        if self.watchdog_s < 3 * self.feed_s:
            return f"a watchdog of {self.watchdog_s:g} s does not outlive two late feeds, every {self.feed_s:g} s"
        return ""
