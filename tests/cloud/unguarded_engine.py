# SPDX-License-Identifier: Apache-2.0
"""A vmhad-engine with its proof guard cut out: it sends no power_off, and believes at once that the host is off.

    python unguarded_engine.py --config-file ...

It exists to show that the guard guards something: with it a hung host's VMs must be seen running twice.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module

from oslo_log import log

import vmhad.cmd  # noqa: F401  before all else: it chooses threads
from vmhad.cmd.engine import run
from vmhad.conf.load import parse, settings
from vmhad.engine.executor import Executor
from vmhad.kernel.case import Case
from vmhad.kernel.proof import POWER_OFF, Proof
from vmhad.kernel.step import Step
from vmhad.wiring import wire

LOG = logging.getLogger("vmhad.unguarded_engine")


def believed(case: Case, step: Step, now: float) -> Proof:
    return Proof(case.incident.host, POWER_OFF, now + 3600.0, False, case.incident.round, ())


def main() -> int:
    conf = parse(sys.argv[1:])
    told = settings(conf)
    log.setup(conf, "vmhad")
    # The package's attribute of that name is the function.
    import_module("vmhad.guards.hosts.power_off").__dict__["_proof"] = believed
    Executor._proof_refusal = lambda self, step: ""  # type: ignore[method-assign]
    service = wire(told)
    service.engine.executor.world.power.off = lambda host: None  # type: ignore[method-assign]
    LOG.info("vmhad-engine %s looks after %d segments", told.engine.name, len(told.segments))
    run(service)
    return 0


if __name__ == "__main__":
    sys.exit(main())
