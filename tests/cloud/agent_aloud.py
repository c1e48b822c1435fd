# SPDX-License-Identifier: Apache-2.0
"""A vmhad-agent that acts as one and says its beats to stdout, where a test reads them without any bus."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict

from oslo_log import log

from vmhad.agent.eyes import agent_of
from vmhad.conf.agent_settings import agent_settings
from vmhad.conf.load import parse
from vmhad.kernel.beat import Beat


def say(beat: Beat) -> None:
    print(json.dumps(asdict(beat)), flush=True)


def main() -> None:
    conf = parse(sys.argv[1:])
    told = agent_settings(conf)
    log.setup(conf, "vmhad")
    agent = agent_of(told, say)
    signal.signal(signal.SIGTERM, lambda *_: agent.end())
    agent.run()
    os._exit(0)


if __name__ == "__main__":
    main()
