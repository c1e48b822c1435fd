# SPDX-License-Identifier: Apache-2.0
"""[nova_notifications]: where Nova's notifications come in. They only hasten a look; without them nothing is lost."""

from __future__ import annotations

from oslo_config import cfg

GROUP = cfg.OptGroup("nova_notifications", title="Nova's notifications, as nudges")

OPTS = [
    cfg.MultiStrOpt(
        "transport_urls",
        default=[],
        secret=True,
        sample_default=["rabbit://vmhad:PASSWORD@192.0.2.1:5672,vmhad:PASSWORD@192.0.2.2:5672/"],
        help="An oslo.messaging transport URL; once per broker, so once per cell that has its own. Several hosts of "
        "one broker stand in one URL. None: vmhad polls only.",
    ),
    cfg.StrOpt(
        "topic",
        default="vmhad_notifications",
        help="The topic that is vmhad's own; Nova needs it in [notifications] versioned_notifications_topics.",
    ),
    cfg.StrOpt("exchange", default="nova", help="The exchange that Nova publishes to."),
    cfg.BoolOpt(
        "durable_queues", default=False, help="Must equal Nova's [oslo_messaging_rabbit] amqp_durable_queues."
    ),
    cfg.BoolOpt("quorum_queues", default=False, help="Must equal Nova's [oslo_messaging_rabbit] rabbit_quorum_queue."),
]
