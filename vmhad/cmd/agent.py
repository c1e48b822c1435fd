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
from dataclasses import asdict, dataclass

from oslo_config import cfg
from oslo_log import log

from vmhad.agent.acts import acts_of
from vmhad.agent.eyes import agent_of
from vmhad.agent.guests import LibvirtMissing
from vmhad.agent.orders import Orders
from vmhad.agent.voice import Voice
from vmhad.bus.signature import HostKey
from vmhad.bus.transport_url import read_urls
from vmhad.cmd.private_memory import keep_memory_private
from vmhad.conf.agent_settings import AgentSettings, agent_settings
from vmhad.conf.load import agent_bus, parse
from vmhad.conf.settings import ConfigError
from vmhad.kernel.beat import Beat
from vmhad.ports import Power

LOG = logging.getLogger(__name__)


def main() -> int:
    keep_memory_private()
    shown, rest = _arguments(sys.argv[1:])
    if shown < 0:
        return _refuse("--show wants a number of beats.")
    try:
        conf = parse(rest)
        told = agent_settings(conf)
        # Without a word about it oslo.log writes to stdout, which belongs to the beats.
        conf.set_override("use_stderr", True)
        log.setup(conf, "vmhad")
        speaker = Printer(shown) if shown else Ends.of(conf, told)
        agent = agent_of(told, speaker.say, acts=not shown)
    except ConfigError as error:
        return _refuse(str(error))
    except LibvirtMissing:
        return _refuse("[agent] libvirt_uri needs libvirt's Python binding: pip install vmhad[libvirt].")

    def end(signum: int, frame: object) -> None:
        agent.end()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    LOG.info("vmhad-agent beats for %s of segment %s", told.host, told.segment.name)
    if isinstance(speaker, Printer):
        speaker.done = agent.end
        agent.run()
        return 0
    speaker.start()
    try:
        agent.run()
    finally:
        speaker.stop()
    return 0


@dataclass
class Ends:
    """The agent's ends on the bus: its beats leave by one, its orders come by the other. orders: None where it takes
    none."""

    voice: Voice
    orders: Orders | None

    @classmethod
    def of(cls, conf: cfg.ConfigOpts, told: AgentSettings) -> Ends:
        """They are not started yet. Raises ConfigError."""
        bus = agent_bus(conf, told.host)
        try:
            brokers = read_urls(bus.transport_urls, bus.ca_file)
        except ValueError as error:
            raise ConfigError(f"[agent] transport_urls: {error}.") from None
        key = HostKey(bus.key.host, bus.key.id, bus.key.key)
        return cls(
            Voice(brokers, told.segment.name, key),
            Orders(brokers, key, acts_of(told, power_of(told))) if told.takes_orders else None,
        )

    def say(self, beat: Beat) -> None:
        self.voice.say(beat)

    def start(self) -> None:
        self.voice.start()
        if self.orders is not None:
            self.orders.start()

    def stop(self) -> None:
        self.voice.stop()
        if self.orders is not None:
            self.orders.stop()


def power_of(told: AgentSettings) -> Power | None:
    """The BMCs of its peers. A driver is loaded only where one speaks it: an agent stays small."""
    if not told.bmcs:
        return None
    from vmhad.drivers.power.by_host import ByHost, Polled

    told_of = {kind: {h: bmc for h, bmc in told.bmcs.items() if bmc.driver == kind} for kind in ("ipmi", "redfish")}
    drivers: dict[str, Polled] = {}
    if ours := told_of["ipmi"]:
        from vmhad.drivers.power.ipmi import Bmc, Ipmi

        ipmi = {
            h: Bmc(one.address, one.port, one.user, one.password, one.privilege, one.guid) for h, one in ours.items()
        }
        drivers |= dict.fromkeys(ours, Ipmi(ipmi, told.bmc_timeout_s))
    if ours := told_of["redfish"]:
        from vmhad.drivers.power.redfish import Redfish, RedfishBmc

        redfish = {
            h: RedfishBmc(one.address, one.port, one.user, one.password, one.system, one.ca_file, one.guid)
            for h, one in ours.items()
        }
        drivers |= dict.fromkeys(ours, Redfish(redfish, told.bmc_timeout_s))
    return ByHost(drivers)


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
