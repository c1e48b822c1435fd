# SPDX-License-Identifier: Apache-2.0
"""The part of [policy] that says when a host that lives is emptied."""

from __future__ import annotations

from oslo_config import cfg

from vmhad.kernel.policy import Drain, Policy

_D = Policy()

DRAINS = [
    cfg.StrOpt(
        "drain",
        default=_D.drain.value,
        choices=[
            (Drain.OFF.value, "it is left as it is, and shown"),
            (Drain.TENANT_PLANE.value, "one that alone has lost its tenant plane is emptied"),
            (Drain.HARDWARE.value, "one whose hardware complains is emptied"),
            (Drain.BOTH.value, "either is emptied"),
        ],
        help="Whether a host that lives is emptied by live migration, and for what. Nothing is ever fenced for it. "
        "Needs agents. A storage that takes no writes and a watchdog that is not fed are complaints, too.",
    ),
    cfg.FloatOpt(
        "drain_after_s",
        default=_D.drain_after_s,
        min=5.0,
        max=86400.0,
        help="For how many seconds it must have been so before the host is emptied.",
    ),
    cfg.FloatOpt(
        "drain_healthy_s",
        default=_D.drain_healthy_s,
        min=5.0,
        max=86400.0,
        help="A drained host may be sent VMs again when it was healthy for this many seconds.",
    ),
    cfg.IntOpt(
        "drains_max", default=_D.drains_max, min=1, max=100, help="Hosts of a segment that are emptied at a time."
    ),
    cfg.IntOpt(
        "live_migrations_max",
        default=_D.live_migrations_max,
        min=1,
        max=100,
        help="Live migrations away from one host at a time.",
    ),
]
