# SPDX-License-Identifier: Apache-2.0
"""However a host is stopped and started between its looks and its feeds, it is gone when its peers believe so."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmhad.kernel.self_fence import SelfFence

SECONDS = st.floats(0.0, 1.0)
NUMBERS = SelfFence(write_s=1.0, write_limit_s=5.0, lease_s=20.0, feed_s=4.0, watchdog_s=20.0)


def fires_at(numbers: SelfFence, stalls: list[tuple[float, float]]) -> float:
    """When the watchdog of a host fires whose last write began, and landed, at 0. stalls: for each feed, the share of
    the watchdog's time that passes before the look at the lease, and the share of the rest between look and feed."""
    fed = 0.0
    for before, between in stalls:
        looked = fed + before * numbers.watchdog_s
        if looked >= numbers.lease_s:
            break
        fed = looked + between * (fed + numbers.watchdog_s - looked)
    return fed + numbers.watchdog_s


@given(st.lists(st.tuples(SECONDS, SECONDS), max_size=30))
def test_gone_before_its_peers_believe_it(stalls: list[tuple[float, float]]) -> None:
    assert fires_at(NUMBERS, stalls) < NUMBERS.gone_after_s


def test_a_wait_for_lease_and_watchdog_alone_would_be_too_short() -> None:
    """A process that is stopped between its look and its feed feeds after the lease has ended."""
    late = [(0.5, 0.0), (0.49, 1.0)]
    assert NUMBERS.lease_s + NUMBERS.watchdog_s < fires_at(NUMBERS, late) < NUMBERS.gone_after_s


def test_numbers_that_would_reset_a_host_for_nothing() -> None:
    assert NUMBERS.unsafe() == ""
    assert "does not outlive one failed write, for which it needs 12 s" in SelfFence(1.0, 5.0, 11.9, 1.0, 20.0).unsafe()
    assert "does not outlive two late feeds" in SelfFence(1.0, 5.0, 20.0, 4.0, 11.0).unsafe()
