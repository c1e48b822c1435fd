# SPDX-License-Identifier: Apache-2.0
"""The part of [policy] that says which rules a recovery keeps beyond Nova's own."""

from __future__ import annotations

from oslo_config import cfg

from vmhad.kernel.policy import Policy

_D = Policy()

PLACING = [
    cfg.StrOpt(
        "spread_over",
        default=_D.spread_over,
        help="A kind of domain, as named in the segments file: rack, say, or power. A member of an anti-affinity "
        "group, hard or soft, goes into a domain of that kind that holds no other one, while such a domain has room "
        "for it; else it is recovered all the same. Empty: groups are apart over hosts, as Nova keeps them.",
    ),
]
