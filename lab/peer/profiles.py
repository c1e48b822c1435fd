# SPDX-License-Identifier: Apache-2.0
"""The ways in which masakari is measured: as it is shipped, and as well as it can be set up. Favours are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Profile:
    """options: masakari.conf's [DEFAULT], beyond what a start needs. forced_down: somebody else tells Nova at the
    instant of death that the service is down, so that masakari neither blocks nor waits for it."""

    name: str
    why: str
    options: Mapping[str, int] = field(default_factory=dict)
    forced_down: bool = False


# No wait of its own is safe here only because the call before it, «disable» to a compute that has just died, blocks for
# Nova's RPC timeout of 60 s, and by then Nova calls the service down: without that its evacuations were refused.
TUNED = {"wait_period_after_service_update": 0, "wait_period_after_evacuation": 600, "verify_interval": 1,
         "host_failure_recovery_threads": 32, "notification_delay_max": 0}  # fmt: skip

PROFILES = {
    profile.name: profile
    for profile in (
        Profile("default", "as shipped"),
        Profile("best-tuned", "no wait of its own, 32 threads", TUNED),
        Profile("best-tuned-forced-down", "as best-tuned, and somebody else forces the service down", TUNED, True),
    )
}
