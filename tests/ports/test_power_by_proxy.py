# SPDX-License-Identifier: Apache-2.0
"""Who is asked for the power of a host that only its peers reach, what is believed of them, and what the bus sees."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import amqp
import pytest
from ipmi_sim import PASSWORD, USER, IpmiSim, present

from tests.broker import Broker
from tests.ports.orders_bench import MASTER, eventually
from vmhad.agent.orders import Orders
from vmhad.agent.power_proxy import PowerProxy
from vmhad.bus.names import EXCHANGE, order_topic
from vmhad.bus.signature import derive
from vmhad.bus.transport_url import read_url
from vmhad.drivers.clock import SystemClock
from vmhad.drivers.hands.agent_orders import AgentOrders
from vmhad.drivers.power.by_proxy import ByProxy
from vmhad.drivers.power.ipmi import Ipmi
from vmhad.drivers.watch.bmc_power import BmcPowerWatch
from vmhad.kernel.signal import Reading
from vmhad.ports import Refused, Unanswered

ON, OFF, UNKNOWN = Reading.ON, Reading.OFF, Reading.UNKNOWN
LIMIT_S = 2.0


@dataclass
class Peers:
    """What each peer answers: a reading, or an error. asked: in order, with how long each was given."""

    says: dict[str, str | Exception] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    given_s: list[float] = field(default_factory=list)

    def ask(self, peer: str, what: str, host: str, limit_s: float) -> tuple[str, str]:
        self.asked.append((peer, what, host))
        self.given_s.append(limit_s)
        said = self.says.get(peer, Unanswered(f"{peer} is silent"))
        if isinstance(said, Exception):
            raise said
        return said, "BMC says so"

    def power(self, *names: str) -> ByProxy:
        return ByProxy(Ipmi({}), {"h": names}, self.ask, LIMIT_S)

    def who(self) -> list[str]:
        asked, self.asked = [peer for peer, _, _ in self.asked], []
        return asked


def test_two_are_asked_and_who_answered_comes_first() -> None:
    peers = Peers({"p2": "on"})
    power = peers.power("p1", "p2", "p3")
    assert power.read("h") == (ON, "by p2: BMC says so")
    assert peers.asked == [("p1", "read", "h"), ("p2", "read", "h")]
    # The first had half of the time, the last one all that was left.
    assert peers.given_s[0] == pytest.approx(LIMIT_S / 2, abs=0.2) and peers.given_s[1] > LIMIT_S * 0.8
    peers.who()
    power.read("h")
    assert peers.who() == ["p2"]


def test_nobody_is_left_out_for_good() -> None:
    peers = Peers({"p4": "off"})
    power = peers.power("p1", "p2", "p3", "p4")
    reading, said = power.read("h")
    assert reading is UNKNOWN and said == "p1 is silent; p2 is silent"
    assert power.read("h")[0] is OFF
    assert peers.who() == ["p1", "p2", "p3", "p4"]


@pytest.mark.parametrize("word", ["unknown", "", "down", "OFF"])
def test_what_is_not_off_in_so_many_words_is_unknown(word: str) -> None:
    peers = Peers({"p1": word})
    assert peers.power("p1").read("h")[0] is UNKNOWN


def test_a_bmc_that_one_peer_does_not_reach_is_asked_by_another() -> None:
    peers = Peers({"p1": "unknown", "p2": "off"})
    assert peers.power("p1", "p2").read("h")[0] is OFF


@pytest.mark.parametrize(
    ("first", "second", "raised"),
    [
        (Unanswered("a"), Unanswered("b"), Unanswered),
        (Refused("a"), Unanswered("b"), Unanswered),
        # The first may have switched it.
        (Unanswered("a"), Refused("b"), Unanswered),
        (Refused("a"), Refused("b"), Refused),
    ],
)
def test_what_two_could_not_switch(first: Exception, second: Exception, raised: type[Exception]) -> None:
    power = Peers({"p1": first, "p2": second}).power("p1", "p2")
    for act in (power.off, power.on):
        with pytest.raises(raised):
            act("h")


def test_the_second_may_switch_what_the_first_could_not() -> None:
    peers = Peers({"p2": ""})
    peers.power("p1", "p2").off("h")
    assert [what for _, what, _ in peers.asked] == ["off", "off"]


def test_hosts_share_their_peers() -> None:
    peers = Peers(dict.fromkeys("abc", "on"))
    power = ByProxy(Ipmi({}), {host: ("a", "b", "c") for host in ("h1", "h2", "h3")}, peers.ask)
    for host in ("h1", "h2", "h3"):
        power.read(host)
    assert sorted(peers.who()) == ["a", "b", "c"]


def test_another_hosts_bmc_is_not_asked_by_anybody_else() -> None:
    peers = Peers({"p1": "on"})
    assert peers.power("p1").read("another") == (UNKNOWN, "no BMC is configured for another")
    assert peers.asked == []


def test_a_host_is_no_proxy_for_itself() -> None:
    act = PowerProxy(Ipmi({}), "h")
    for what in ("read", "off", "on"):
        with pytest.raises(Refused, match="no proxy for itself"):
            act({"host": "h", "do": what})
    with pytest.raises(Refused, match="no BMC can do 'cycle'"):
        act({"host": "other", "do": "cycle"})


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as begun:
        yield begun


class Site:
    """A BMC in software that the agents of p1 and p2 ask, and an engine that has only the bus."""

    def __init__(self, where: Path, ends: ExitStack, rabbit: Broker) -> None:
        if not present():
            pytest.skip("ipmi_sim is not installed")
        self.bmc = IpmiSim(where)
        ends.callback(self.bmc.stop)
        self.bmc.start()
        bus = read_url(rabbit.url)
        self.agents = {}
        for name in ("p1", "p2"):
            acts = {"power": PowerProxy(Ipmi({"h": self.bmc.bmc()}, 0.8), name)}
            self.agents[name] = Orders([bus], derive("k1", MASTER, name), acts, began=0.0)
            self.agents[name].start()
            ends.callback(self.agents[name].stop)
        eventually("two agents", lambda: all(agent.is_listening() for agent in self.agents.values()))
        engine = AgentOrders([bus], ["p1", "p2"], {"k1": MASTER}, limit_s=LIMIT_S)
        ends.callback(engine.stop)
        self.power = ByProxy(Ipmi({}), {"h": ["p1", "p2"]}, engine.power, LIMIT_S)
        self.listener = ends.enter_context(_Listener(rabbit))


class _Listener:
    """Hears whatever is ordered."""

    def __init__(self, rabbit: Broker) -> None:
        bus = read_url(rabbit.url)
        self._connection = amqp.Connection(**bus.arguments(bus.places[0]) | {"heartbeat": 0})
        self._connection.connect()
        channel = self._connection.channel()
        self.heard: list[bytes] = []
        queue = channel.queue_declare("", exclusive=True).queue
        for peer in ("p1", "p2"):
            channel.queue_bind(queue, EXCHANGE, order_topic(peer))
        channel.basic_consume(queue, no_ack=True, callback=lambda message: self.heard.append(message.body))

    def __enter__(self) -> _Listener:
        return self

    def __exit__(self, *what: object) -> None:
        self._connection.collect()

    def wait(self, count: int) -> list[bytes]:
        until = time.monotonic() + 10.0
        while len(self.heard) < count:
            self._connection.drain_events(timeout=max(0.01, until - time.monotonic()))
        return self.heard


@pytest.fixture
def site(tmp_path: Path, ends: ExitStack, rabbit: Broker) -> Site:
    return Site(tmp_path / "bmc", ends, rabbit)


def test_a_host_is_switched_off_and_read_off_and_no_secret_is_on_the_bus(site: Site) -> None:
    assert site.power.read("h")[0] is ON
    site.power.off("h")
    assert not site.bmc.is_on
    reading, said = site.power.read("h")
    assert reading is OFF and said.startswith("by p1: ")
    for order in site.listener.wait(3):
        assert b"power" in order
        for secret in (USER, PASSWORD, "127.0.0.1", str(site.bmc.port)):
            assert secret.encode() not in order


def test_the_second_peer_is_asked_where_the_first_is_gone(site: Site) -> None:
    site.agents["p1"].stop()
    assert site.power.read("h")[1].startswith("by p2: ")
    site.power.off("h")
    assert not site.bmc.is_on


def test_a_bmc_that_nobody_reaches_is_unknown_within_the_limit(site: Site) -> None:
    site.bmc.set_power(False)
    site.bmc.hang()
    began = time.monotonic()
    assert site.power.read("h")[0] is UNKNOWN
    with pytest.raises(Unanswered):
        site.power.off("h")
    assert time.monotonic() - began <= 2 * (LIMIT_S + 0.2)


def test_the_eye_on_power_sees_a_host_go_off_twice(site: Site, ends: ExitStack) -> None:
    watch = BmcPowerWatch(lambda host: site.power.poll_session(host, LIMIT_S), ["h"], SystemClock(), 0.3)
    watch.start()
    ends.callback(watch.stop)
    seen: list[Reading] = []

    def saw(wanted: Reading, times: int) -> bool:
        seen.extend(one.reading for one in watch.read())
        return seen.count(wanted) >= times

    eventually("ON", lambda: saw(ON, 1))
    site.bmc.set_power(False)
    eventually("OFF, twice", lambda: saw(OFF, 2))
    assert UNKNOWN not in seen
