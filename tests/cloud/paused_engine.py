# SPDX-License-Identifier: Apache-2.0
"""A real engine that stops itself (SIGSTOP) once: before the first act of a verb, after its last check.

    python paused_engine.py VERB --config-file ...

The worst moment to lose the processor: the lease was enough, the proof was read, and the act leaves whenever somebody
sends SIGCONT, by then under a lease that is another engine's.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from oslo_log import log

import vmhad.cmd  # noqa: F401  before all else: it chooses threads
from vmhad.cmd.engine import run
from vmhad.conf.load import parse, settings
from vmhad.kernel.step import Step, Verb
from vmhad.wiring import wire

LOG = logging.getLogger("vmhad.paused_engine")


class StopOnce:
    """The hook. Workers that come later wait with the first: all their acts are late, none slips out before the stop.

    Raising SIGSTOP does not stop the thread that raised it at once, so the thread waits for SIGCONT by itself.
    """

    def __init__(self, verb: Verb) -> None:
        self._verb = verb
        self._turn = threading.Lock()
        self._continued = threading.Event()
        signal.signal(signal.SIGCONT, lambda number, frame: self._continued.set())

    def __call__(self, step: Step) -> None:
        if step.verb is not self._verb:
            return
        with self._turn:
            if not self._continued.is_set():
                LOG.info("stopping itself before %s of %s", step.verb.value, step.subject)
                os.kill(os.getpid(), signal.SIGSTOP)
                self._continued.wait()
                LOG.info("goes on: %s of %s is sent now", step.verb.value, step.subject)


def main() -> int:
    conf = parse(sys.argv[2:])
    told = settings(conf)
    log.setup(conf, "vmhad")
    service = wire(told, before_send=StopOnce(Verb(sys.argv[1])))
    LOG.info("vmhad-engine %s looks after %d segments", told.engine.name, len(told.segments))
    run(service)
    return 0


if __name__ == "__main__":
    sys.exit(main())
