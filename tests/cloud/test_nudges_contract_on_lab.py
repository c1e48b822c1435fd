# SPDX-License-Identifier: Apache-2.0
"""The contract of Nudges, over a real RabbitMQ: the same cases as on the simulated queue
(tests/ports/nudges_contract.py). What Nova itself sends is heard in test_nova_signals.py."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator

import oslo_messaging
import pytest
from oslo_config import cfg

from lab.cloud_lab import CloudLab

pytest.register_assert_rewrite("tests.ports.nudges_contract")

from tests.ports.nudges_contract import CASES, Case  # noqa: E402
from vmhad.drivers.nudges.nova_notifications import NovaNotifications  # noqa: E402
from vmhad.ports import Nudges  # noqa: E402

pytestmark = pytest.mark.cloud


class RabbitBench:
    """The lab's broker, and a topic of its own on Nova's exchange."""

    def __init__(self, transport_url: str) -> None:
        self._url = transport_url
        self._topic = f"contract_{uuid.uuid4().hex}"
        self._listening: list[NovaNotifications] = []
        self._notifier: oslo_messaging.Notifier | None = None
        self._transport = self._connected()
        self.woken = 0

    def _connected(self) -> oslo_messaging.Transport:
        conf = cfg.ConfigOpts()
        conf([], project="nova", default_config_files=[], default_config_dirs=[])
        oslo_messaging.set_transport_defaults("nova")
        conf.register_opts(oslo_messaging.transport._transport_opts)
        conf.set_override("control_exchange", "nova")
        transport = oslo_messaging.get_notification_transport(conf, url=self._url)
        self._notifier = oslo_messaging.Notifier(
            transport, driver="messagingv2", publisher_id="nova-compute:h1", topics=[self._topic]
        )
        return transport

    def _wake(self) -> None:
        self.woken += 1

    def engine(self) -> Nudges:
        listener = NovaNotifications(self._url, topic=self._topic, wake=self._wake)
        listener.start()
        self._listening.append(listener)
        return listener

    def say(self, host: str, server: str, event: str) -> None:
        data = {"host": host, "uuid": server} if server else {"host": host, "binary": "nova-compute"}
        self._send(event, {"nova_object.data": data})

    def garbage(self) -> None:
        for payload in ({}, {"nova_object.data": 7}, {"nova_object.data": {"host": ["h1"]}}, "text", None):
            self._send("service.update", payload)

    def _send(self, event: str, payload: object) -> None:
        assert self._notifier is not None
        self._notifier.info({}, event, payload)

    def go_away(self) -> None:
        self._url = "rabbit://nobody:nothing@127.0.0.1:1/"

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + 30.0
        while not holds():
            assert time.monotonic() < until, f"in vain waited for: {what}"
            time.sleep(0.05)

    def end(self) -> None:
        for listener in self._listening:
            listener.stop()
        self._transport.cleanup()


@pytest.fixture
def bench(cloud: CloudLab) -> Iterator[RabbitBench]:
    begun = RabbitBench(str(cloud.facts["transport_url"]))
    yield begun
    begun.end()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_contract(bench: RabbitBench, case: Case) -> None:
    case.run(bench)
