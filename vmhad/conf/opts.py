# SPDX-License-Identifier: Apache-2.0
"""All options of vmhad, for oslo-config-generator and for load."""

from __future__ import annotations

from oslo_config import cfg

from vmhad.conf import agent, agent_bus, agents, engine, notifications, nova, policy, power, storage

GROUPS = (agent, agent_bus, engine, nova, notifications, agents, power, storage, policy)


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    """The entry point oslo.config.opts. One entry a group, though its options may stand in several modules."""
    groups: dict[str, tuple[cfg.OptGroup, list[cfg.Opt]]] = {}
    for module in GROUPS:
        groups.setdefault(module.GROUP.name, (module.GROUP, []))[1].extend(module.OPTS)
    return list(groups.values())
