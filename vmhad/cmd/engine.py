# SPDX-License-Identifier: Apache-2.0
"""vmhad-engine: runs until SIGTERM or SIGINT. An unusable configuration ends it with one sentence and exit code 2."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING

from oslo_log import log

from vmhad.cmd.private_memory import keep_memory_private
from vmhad.conf.load import parse, settings
from vmhad.conf.settings import ConfigError

if TYPE_CHECKING:
    from vmhad.wiring import Service

LOG = logging.getLogger(__name__)


def main() -> int:
    keep_memory_private()
    try:
        conf = parse(sys.argv[1:])
        told = settings(conf)
        log.setup(conf, "vmhad")
        # The drivers' libraries take two seconds to import; a wrong option should not wait for them.
        from vmhad.wiring import wire

        service = wire(told)
    except ConfigError as error:
        print(f"vmhad-engine: {error}", file=sys.stderr)
        return 2
    LOG.info("vmhad-engine %s looks after %d segments", told.engine.name, len(told.segments))
    run(service)
    return 0


def run(service: Service) -> None:
    """Ticks until a signal comes; the tick under way is finished and the segments are let go."""
    ending = threading.Event()

    def end(signum: int, frame: object) -> None:
        ending.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        while not ending.is_set():
            service.clock.wait(service.engine.tick())
    finally:
        service.stop()


if __name__ == "__main__":
    sys.exit(main())
