# SPDX-License-Identifier: Apache-2.0
"""A host that complains is emptied on a real Nova: its VMs move alive, nothing is fenced, and it is taken back.

The guests are pretended and so are the agents' eyes; Nova, its live migrations, the bus and the engine are real.
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest
from trial import Trial

from lab.agent import KEY_ID
from vmhad.agent.bootclock import boot_s
from vmhad.agent.voice import Unsaid, Voice
from vmhad.bus.signature import derive
from vmhad.bus.transport_url import read_url
from vmhad.kernel.beat import Beat, PeerView, Plane
from vmhad.kernel.signal import Reading

pytestmark = pytest.mark.cloud

POLICY = {"drain": "hardware", "drain_after_s": 5.0, "drain_healthy_s": 5.0, "live_migrations_max": 2}
SEEN = PeerView({Plane.MANAGEMENT: Reading.UP})
LIMIT_S = 90.0


class Chorus:
    """An agent of every host, beating over the lab's broker: each sees all others, and says what it is told to."""

    def __init__(self, hosts: tuple[str, ...], url: str, master: bytes) -> None:
        self.complaints: dict[str, tuple[str, ...]] = {}
        self._voices = {host: Voice([read_url(url)], "lab", derive(KEY_ID, master, host)) for host in hosts}
        run = uuid.uuid4().hex
        services = {"nova-compute": Reading.UP, "libvirtd": Reading.UP}
        self._beats = {
            host: Beat(host, f"boot-of-{host}", run, 0, 0.0, 0.0, False, services, {}, {
                other: SEEN for other in hosts if other != host
            })
            for host in hosts
        }  # fmt: skip
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chorus", daemon=True)

    def start(self) -> None:
        for voice in self._voices.values():
            voice.start()
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join(10.0)
        for voice in self._voices.values():
            voice.stop()

    def _run(self) -> None:
        count = 0
        while not self._ending.wait(1.0):
            count += 1
            for host, beat in self._beats.items():
                now = {"count": count, "uptime_s": boot_s(), "sent_at": time.time()}
                try:
                    self._voices[host].say(replace(beat, hardware=self.complaints.get(host, ()), **now))
                except Unsaid:
                    continue


@pytest.fixture
def master() -> bytes:
    return secrets.token_bytes(32)


@pytest.fixture
def chorus(trial: Trial, master: bytes) -> Iterator[Chorus]:
    singing = Chorus(tuple(trial.lab.hosts), trial.lab.facts["transport_url"], master)
    singing.start()
    try:
        yield singing
    finally:
        singing.stop()


def test_a_host_that_complains_is_emptied_alive(trial: Trial, chorus: Chorus, master: bytes) -> None:
    engine = trial.engine(agents=master, policy=POLICY)
    ids = trial.lab.boot(4, host="host01", name="web")
    trial.ready()
    at = time.time()
    chorus.complaints["host01"] = ("memory controller mc0: 1 uncorrectable errors since the host booted",)
    last = trial.wait_line(engine, "vm web", "LIVE_MIGRATE DONE", LIMIT_S, count=len(ids))
    print(f"{len(ids)} VMs moved {last['at'] - at:.1f} s after the first complaint, with drain_after_s = 5")
    running, hosts = trial.running(ids), trial.hosts_of(ids)
    assert [running[one] for one in ids] == [[host] for host in hosts] and "host01" not in hosts
    assert trial.lab.service("host01")["status"] == "disabled"
    chorus.complaints.clear()
    trial.wait_line(engine, "drain host01", "CLOSED", LIMIT_S)
    assert trial.lab.service("host01")["status"] == "enabled" and trial.hosts_of(ids) == hosts
    assert not trial.lines(engine, "host", "FENCING") and not trial.lines(engine, "vm", "EVACUATE STARTED")
    assert not {one for one in ids if trial.lab.evacuations(one)}
