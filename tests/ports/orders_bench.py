# SPDX-License-Identifier: Apache-2.0
"""Agents that take orders over a real RabbitMQ, and do them on a host of a few variables."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import amqp

from tests.broker import Broker
from tests.ports.hands_contract import FROZEN
from vmhad.agent.orders import Act, Orders
from vmhad.bus.signature import derive
from vmhad.bus.transport_url import Broker as Bus
from vmhad.bus.transport_url import read_url
from vmhad.drivers.hands.agent_orders import AgentOrders
from vmhad.ports import Refused

MASTER = bytes(range(32))
HOSTS = ("h1", "h2")
KNOWN, OTHER = "first", "second"


@dataclass
class Host:
    """goes_on: what its acts wait for. before_acting: called before each of them."""

    invocation: str = KNOWN
    done: list[str] = field(default_factory=list)
    goes_on: threading.Event = field(default_factory=threading.Event)

    before_acting: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.goes_on.set()

    def acts(self) -> dict[str, Act]:
        return {"restart_service": self._restart, "resume_guest": self._resume}

    def _restart(self, args: Mapping[str, str]) -> tuple[str, str]:
        self.goes_on.wait(30.0)
        self.before_acting()
        if args["service"] != "nova-compute":
            raise Refused("no such unit")
        if args["known"] != self.invocation:
            raise Refused("another start of it runs")
        self.done.append("restart nova-compute")
        return "", "restarted"

    def _resume(self, args: Mapping[str, str]) -> tuple[str, str]:
        self.goes_on.wait(30.0)
        self.before_acting()
        if args["server"] != FROZEN:
            raise Refused("it is paused by its user")
        self.done.append(f"resume {args['server']}")
        return "", "resumed"


def eventually(what: str, holds: Callable[[], object], limit_s: float = 30.0) -> None:
    until = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < until, f"in vain waited for: {what}"
        time.sleep(0.02)


class RabbitBench:
    """limit_s is short, so that what waits for it in vain does not for long."""

    def __init__(self, broker: Broker, limit_s: float = 2.0) -> None:
        self.broker = broker
        self.limit_s = limit_s
        self.hosts = {name: Host() for name in HOSTS}
        self.agents: dict[str, Orders] = {}
        self._opened: list[AgentOrders] = []
        for name in HOSTS:
            self.start_agent(name)
        self.hands = self.engine()

    def bus(self) -> Bus:
        """The first way to the broker leads nowhere: both ends have to find the second one."""
        login, _, place = self.broker.url.removeprefix("rabbit://").rpartition("@")
        return read_url(f"rabbit://{login}@127.0.0.1:1,{login}@{place}")

    def engine(self, masters: Mapping[str, bytes] | None = None, wall: Callable[[], float] = time.time) -> AgentOrders:
        keys = masters or {"new": bytes(32), "k1": MASTER}
        opened = AgentOrders([self.bus()], HOSTS, keys, limit_s=self.limit_s, wall=wall)
        self._opened.append(opened)
        return opened

    def done(self, host: str) -> list[str]:
        return sorted(self.hosts[host].done)

    def known(self, host: str) -> str:
        return self.hosts[host].invocation

    def starts_anew(self, host: str) -> None:
        self.hosts[host].invocation = OTHER

    def stop_agent(self, host: str) -> None:
        self.agents[host].stop()

    def start_agent(self, host: str, wall: Callable[[], float] = time.time, began: float = 0.0) -> None:
        """began: 0 where it is the first run of it."""
        key, acts = derive("k1", MASTER, host), self.hosts[host].acts()
        self.agents[host] = Orders([self.bus()], key, acts, wall=wall, began=began)
        self.agents[host].start()
        eventually("an agent that listens", self.agents[host].is_listening)

    def hang_agent(self, host: str) -> None:
        self.hosts[host].goes_on.clear()

    def lose_answers(self, host: str) -> None:
        """Its agent ends while the act is under way: it is done, and nobody says so."""
        self.hosts[host].before_acting = self.agents[host].stop

    def go_away(self) -> None:
        self.broker.stop()

    def come_back(self) -> None:
        self.broker.start()
        eventually("agents that listen again", lambda: all(agent.is_listening() for agent in self.agents.values()))

    def took_s(self, call: Callable[[], None]) -> float:
        began = time.monotonic()
        call()
        return time.monotonic() - began

    def raw(self) -> amqp.Connection:
        """Somebody with the bus's password."""
        bus = read_url(self.broker.url)
        connection = amqp.Connection(**bus.arguments(bus.places[0]) | {"heartbeat": 0})
        connection.connect()
        return connection

    def end(self) -> None:
        for host in self.hosts.values():
            host.goes_on.set()
        for engine in self._opened:
            engine.stop()
        for agent in self.agents.values():
            agent.stop()
