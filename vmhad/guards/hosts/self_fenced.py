# SPDX-License-Identifier: Apache-2.0
"""A level of a fence that nobody sends: a host that promised to be reset unless its record moves was reset.

For those who opted in, and trust their watchdogs. The promise stands in the record itself, while the watchdog is fed
(kernel/self_fence.py); peers that read the record say for how long it stood still, each by its own clock. A record that
moves, or any other life, voids it.
"""

from __future__ import annotations

from vmhad.kernel.case import Case
from vmhad.kernel.proof import SELF_FENCED, Proof
from vmhad.kernel.signal import Channel, Reading
from vmhad.kernel.step import Answer, Observation


def proof(case: Case, now: float) -> Proof | None:
    seen = case.evidence.seen.get(Channel.SELF_FENCE)
    if not case.policy.self_fence_proof or seen is None or seen.reading is not Reading.DOWN:
        return None
    if now - seen.at > case.policy.channel_stale_s or seen.at <= case.evidence.life_at:
        return None
    observed = Observation(seen.at, Answer.SO, "reset", seen.detail)
    return Proof(case.incident.host, SELF_FENCED, seen.at, False, case.incident.round, (observed,))
