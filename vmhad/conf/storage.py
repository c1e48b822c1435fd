# SPDX-License-Identifier: Apache-2.0
"""[storage]: how the shared storages of the segments file are asked to cut a host off."""

from __future__ import annotations

from oslo_config import cfg

GROUP = cfg.OptGroup("storage", title="Shared storages that can cut a host off")

OPTS = [
    cfg.FloatOpt("timeout_s", default=5.0, min=0.5, max=14.0, help="Time limit of one call to a storage."),
]
