# SPDX-License-Identifier: Apache-2.0
"""[agent], of which these are the options that say how an agent reaches the engines."""

from __future__ import annotations

from oslo_config import cfg

from vmhad.conf.agents import CA_HELP, URL_SAMPLE

GROUP = cfg.OptGroup("agent", title="The agent of a compute host")

OPTS = [
    cfg.MultiStrOpt(
        "transport_urls",
        default=[],
        secret=True,
        sample_default=URL_SAMPLE,
        help="An oslo.messaging transport URL of a broker that the engines listen at; with several, it beats to each.",
    ),
    cfg.StrOpt("ca_file", default="", help=CA_HELP),
    cfg.StrOpt(
        "key_file",
        default="/etc/vmhad/agent-key.yaml",
        help="This host's own key, in a file of mode 0600, as «vmhad-manage agent-key derive» writes it.",
    ),
]
