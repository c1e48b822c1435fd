# SPDX-License-Identifier: Apache-2.0
"""[agents]: how an engine hears the agents of the compute hosts."""

from __future__ import annotations

from oslo_config import cfg

URL_SAMPLE = ["rabbit://vmhad:PASSWORD@192.0.2.1:5672,vmhad:PASSWORD@192.0.2.2:5672/"]
CA_HELP = "The CA that signed the brokers' certificates; their names are held against it. Empty: no TLS."

GROUP = cfg.OptGroup("agents", title="The agents of the compute hosts, as an engine hears them")

OPTS = [
    cfg.BoolOpt(
        "enabled",
        default=False,
        help="Listen to agents. Without them Nova and the BMCs are the only eyes.",
    ),
    cfg.MultiStrOpt(
        "transport_urls",
        default=[],
        secret=True,
        sample_default=URL_SAMPLE,
        help="The brokers that agents beat to, as in [nova_notifications], whose URLs are taken where none stand here.",
    ),
    cfg.StrOpt("ca_file", default="", help=CA_HELP),
    cfg.StrOpt(
        "keys_file",
        default="/etc/vmhad/agent-keys.yaml",
        help="The master keys that the hosts' own keys are derived from; a file of mode 0600 that only engines have. "
        "«vmhad-manage agent-key new» begins it and adds to it, «vmhad-manage agent-key derive» makes a host's key.",
    ),
    cfg.FloatOpt(
        "replay_window_s",
        default=60.0,
        min=5.0,
        max=600.0,
        help="A beat that was sent farther than this from our time, by its host's clock, is no sign of life. It bounds "
        "for how long what was recorded on the bus can be played to an engine that has just begun.",
    ),
]
