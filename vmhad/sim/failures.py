# SPDX-License-Identifier: Apache-2.0
"""What an engine's own code failed with is a finding, and is not lost among its warnings.

The engine catches it, so that one segment does not stop the others; only its log tells of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Failures(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


@contextmanager
def failures_of_engines() -> Iterator[list[str]]:
    """What is logged meanwhile goes nowhere else: thousands of disasters fill no screen."""
    log, failures = logging.getLogger("vmhad"), _Failures()
    propagate, log.propagate = log.propagate, False
    log.addHandler(failures)
    try:
        yield failures.found
    finally:
        log.removeHandler(failures)
        log.propagate = propagate
