# SPDX-License-Identifier: Apache-2.0
"""vmhad-agent: says once a second what a compute host sees, until SIGTERM or SIGINT.

`--show N` prints N beats as JSON lines instead of sending them: what does this host say? It only looks, and may run
beside the agent that beats for the host. An unusable configuration ends it with one sentence and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict

from oslo_log import log

from vmhad.agent.eyes import agent_of
from vmhad.agent.guests import LibvirtMissing
from vmhad.conf.agent_settings import agent_settings
from vmhad.conf.load import parse
from vmhad.conf.settings import ConfigError
from vmhad.kernel.beat import Beat

LOG = logging.getLogger(__name__)


def main() -> int:
    shown, rest = _arguments(sys.argv[1:])
    if shown < 1:
        return _refuse("there is no way yet to send beats; --show N prints N of them.")
    try:
        conf = parse(rest)
        told = agent_settings(conf)
        # Without a word about it oslo.log writes to stdout, which belongs to the beats.
        conf.set_override("use_stderr", True)
        log.setup(conf, "vmhad")
        printer = Printer(shown)
        agent = agent_of(told, printer.say, acts=False)
    except ConfigError as error:
        return _refuse(str(error))
    except LibvirtMissing:
        return _refuse("[agent] libvirt_uri needs libvirt's Python binding: pip install vmhad[libvirt].")
    printer.done = agent.end

    def end(signum: int, frame: object) -> None:
        agent.end()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    LOG.info("vmhad-agent beats for %s of segment %s", told.host, told.segment.name)
    agent.run()
    return 0


def _arguments(words: Sequence[str]) -> tuple[int, list[str]]:
    """How many beats to show, and what is left for the configuration."""
    reader = argparse.ArgumentParser(prog="vmhad-agent", add_help=False, allow_abbrev=False)
    reader.add_argument("--show", type=int, default=0, metavar="N")
    known, rest = reader.parse_known_args(words)
    return known.show, rest


def _refuse(sentence: str) -> int:
    print(f"vmhad-agent: {sentence}", file=sys.stderr)
    return 2


class Printer:
    """Prints so many beats as JSON, a line each, and ends the agent."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.done = threading.Event().set

    def say(self, beat: Beat) -> None:
        if self._left > 0:
            print(json.dumps(asdict(beat)), flush=True)
            self._left -= 1
        if self._left == 0:
            self.done()


def run() -> None:
    """The process ends without waiting for threads: one may hang in a storage or in libvirt for ever."""
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
