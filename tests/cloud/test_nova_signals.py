# SPDX-License-Identifier: Apache-2.0
"""Nova's signs and edges as a real Nova gives them: the services watch and the notifications listener."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.cloud_lab import CloudLab
from vmhad.drivers.clock import SystemClock
from vmhad.drivers.compute.nova import NovaCompute
from vmhad.drivers.nudges.nova_notifications import NovaNotifications
from vmhad.drivers.watch.nova_services import NovaServicesWatch
from vmhad.kernel.signal import Reading, Signal
from vmhad.ports import Nudge

pytestmark = pytest.mark.cloud


@pytest.fixture
def nova(lab: CloudLab) -> Iterator[NovaCompute]:
    driver = NovaCompute(lab.auth, region=lab.facts["region"], timeout_s=5.0)
    yield driver
    driver.close()


class Seen:
    """The signals of a running watch, kept for questions."""

    def __init__(self, watch: NovaServicesWatch) -> None:
        self.watch = watch
        self.all: list[Signal] = []

    def of(self, host: str) -> list[Signal]:
        self.all.extend(self.watch.read())
        if (again := self.watch.latest(host)) is not None:
            self.all.append(again)
        return [signal for signal in self.all if signal.host == host]

    def last(self, host: str) -> Reading | None:
        signals = self.of(host)
        return signals[-1].reading if signals else None


@pytest.fixture
def seen(lab: CloudLab, nova: NovaCompute) -> Iterator[Seen]:
    watch = NovaServicesWatch(nova, [*lab.hosts, "nosuchhost"], SystemClock(), interval_s=0.5)
    watch.start()
    yield Seen(watch)
    watch.stop()


def test_heartbeats_are_life(lab: CloudLab, seen: Seen) -> None:
    lab.wait("every host has shown life", lambda: all(any(s.life for s in seen.of(host)) for host in lab.hosts), 30)
    assert all(signal.reading is Reading.UP for host in lab.hosts for signal in seen.of(host))
    assert not seen.of("host01")[0].life
    assert {signal.reading for signal in seen.of("nosuchhost")} == {Reading.UNKNOWN}


def test_what_we_do_to_a_dead_host_is_no_life(lab: CloudLab, nova: NovaCompute, seen: Seen) -> None:
    lab.command("cut", "host01")
    lab.wait("the watch is at work", lambda: len(seen.of("host01")) > 2)
    known = len(seen.of("host01"))
    before = nova.service("host01")
    nova.set_forced_down("host01", True)
    lab.wait("it is seen down", lambda: "forced down" in seen.of("host01")[-1].detail)
    nova.set_enabled("host01", False, "vmhad test")
    lab.wait("it is seen disabled", lambda: "vmhad test" in seen.of("host01")[-1].detail)
    after = nova.service("host01")
    assert before is not None and after is not None and before.updated_at != after.updated_at
    assert not [signal for signal in seen.of("host01")[known + 2 :] if signal.life]


def test_a_host_forced_down_that_beats_is_up(lab: CloudLab, nova: NovaCompute, seen: Seen) -> None:
    nova.set_forced_down("host01", True)
    lab.wait("its heartbeat moved", lambda: any(s.life and "forced" in s.detail for s in seen.of("host01")), 30)
    assert seen.last("host01") is Reading.UP


def test_nova_away_is_unknown_for_every_host(lab: CloudLab, seen: Seen) -> None:
    lab.wait("the watch is at work", lambda: seen.last("host01") is Reading.UP)
    lab.command("stop", "nova-api", "--kill")
    try:
        lab.wait("all are unknown", lambda: {seen.last(host) for host in lab.hosts} == {Reading.UNKNOWN}, 20)
    finally:
        lab.command("start", "nova-api")
    lab.wait("all are up again", lambda: {seen.last(host) for host in lab.hosts} == {Reading.UP}, 30)


def test_nudges_come_over_a_real_broker(lab: CloudLab, nova: NovaCompute) -> None:
    listener = NovaNotifications(lab.facts["transport_url"])
    listener.start()
    try:
        (server_id,) = lab.boot(host="host01")
        heard: set[Nudge] = set()

        def hears(nudge: Nudge) -> bool:
            heard.update(listener.read())
            return nudge in heard

        lab.wait("its creation is heard of", lambda: hears(Nudge("host01", server_id, "instance.create.end")), 20)
        lab.command("cut", "host01")
        nova.set_forced_down("host01", True)
        lab.wait("the force-down is heard of", lambda: hears(Nudge("host01", "", "service.update")), 20)
        nova.evacuate(server_id, "host02", False)
        lab.wait("its rebuild is heard of", lambda: hears(Nudge("host01", server_id, "instance.rebuild.end")), 20)
    finally:
        listener.stop()
