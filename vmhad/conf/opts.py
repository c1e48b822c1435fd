# SPDX-License-Identifier: Apache-2.0
"""All options of vmhad, for oslo-config-generator and for load."""

from __future__ import annotations

from oslo_config import cfg

from vmhad.conf import agents, engine, notifications, nova, policy, power

GROUPS = (engine, nova, notifications, agents, power, policy)


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    """The entry point oslo.config.opts."""
    told = [(module.GROUP, list(module.OPTS)) for module in GROUPS]
    return [*told, (agents.AGENT_GROUP, list(agents.AGENT_OPTS))]
