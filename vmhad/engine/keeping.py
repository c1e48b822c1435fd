# SPDX-License-Identifier: Apache-2.0
"""How long the journal keeps what is over, and where its certificates go before that."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from vmhad.journal.journal import Export, Journal

LOG = logging.getLogger(__name__)

PRUNE_EVERY_S = 3600.0


@dataclass(frozen=True)
class Keeping:
    """export: where certificates go before their incident is pruned. With none, they stay until keep_s is over."""

    keep_s: float
    keep_count: int
    export: Export | None = None

    def prune(self, journal: Journal, segment: str, now: float) -> int:
        """For a worker. What cannot be exported stays in the journal, and is tried again an hour later."""
        try:
            return journal.prune(segment, now, self.keep_s, self.keep_count, self.export)
        except OSError as error:
            LOG.warning(
                "closed incidents of segment %s stay in the journal: their certificates cannot be exported: %s",
                segment, error,
            )  # fmt: skip
            return 0


FOR_A_MONTH = Keeping(30 * 86400.0, 1000)
