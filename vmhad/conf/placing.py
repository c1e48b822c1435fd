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
        "for it; else it is recovered all the same. Empty: groups are apart over hosts, as Nova keeps them. A segment "
        "none of whose hosts has such a domain is refused; it may say spread_over: ''.",
    ),
    cfg.FloatOpt(
        "order_wait_s",
        default=_D.order_wait_s,
        min=0.0,
        max=86400.0,
        help="The seconds that a VM waits, from the proof of its host on, for VMs of the order groups that its policy "
        "says it comes after; for each link of the chain where those wait for others, too. Then it is recovered all "
        "the same.",
    ),
]
