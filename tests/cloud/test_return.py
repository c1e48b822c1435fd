# SPDX-License-Identifier: Apache-2.0
"""A host comes back after its VMs were recovered, or before anybody missed it."""

from __future__ import annotations

import json
import threading
import time

import pytest
from trial import Trial

pytestmark = pytest.mark.cloud


class Lifting:
    """Looks at Nova all the time: what did the migrations from the host read when forced_down was first seen lifted?"""

    def __init__(self, trial: Trial, host: str) -> None:
        self._trial, self._host = trial, host
        self.unsettled: list[str] | None = None
        self.enabled_too_early = False
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        lab = self._trial.lab
        path = f"/os-migrations?migration_type=evacuation&source_compute={self._host}"
        until = time.monotonic() + 180.0
        while time.monotonic() < until:
            # Migrations first: one that is unsettled after forced_down was seen lifted was so before, too.
            service = lab.service(self._host)
            rows = lab.api("GET", path)["migrations"]
            self.enabled_too_early |= service["forced_down"] and service["status"] == "enabled"
            if not service["forced_down"]:
                self.unsettled = [row["status"] for row in rows if row["status"] == "done"]
                return
            time.sleep(0.1)

    def wait(self) -> list[str] | None:
        self._thread.join()
        return self.unsettled


def test_fence_is_lifted_last(trial: Trial) -> None:
    """forced_down is cleared only once nova-compute has cleaned up its evacuated guests, then the host is enabled and
    receives again; every VM still runs once, where it was brought."""
    engine = trial.engine()
    ids = trial.lab.boot(4, host="host01")
    trial.ready()
    trial.hurt("cut", "host01")
    trial.recovered(engine, "host01")
    trial.assert_moved(ids)
    placed = trial.hosts_of(ids)
    lifting = Lifting(trial, "host01")
    trial.lab.command("restore", "host01")
    trial.wait_line(engine, "host host01", "CLOSED", 90.0)
    assert lifting.wait() == [] and not lifting.enabled_too_early
    service = trial.lab.service("host01")
    assert (service["status"], service["forced_down"], service["state"]) == ("enabled", False, "up")
    assert {row["status"] for one in ids for row in trial.lab.evacuations(one)} == {"completed"}
    trial.assert_moved(ids)
    assert trial.hosts_of(ids) == placed
    held = json.loads((trial.state_dir("host01") / "guests.json").read_text())
    assert not {row["uuid"] for row in held} & set(ids)
    trial.lab.boot(1, host="host01", name="fresh")


def test_powered_on_after_its_fence(trial: Trial) -> None:
    """after_fence = power_on: vmhad itself brings the host back, and none of its old guests with it."""
    engine = trial.engine(policy={"after_fence": "power_on"})
    ids = trial.lab.boot(3, host="host01")
    trial.ready()
    trial.hurt("cut", "host01")
    trial.wait_line(engine, "host host01", "CLOSED", 120.0)
    trial.assert_moved(ids)
    assert trial.has_power("host01")
    assert not {one for one, hosts in trial.running(ids).items() if "host01" in hosts}


@pytest.mark.parametrize("listens", [True, False], ids=["told", "not told"])
def test_fast_reboot(trial: Trial, listens: bool) -> None:
    """Back before Nova missed it: nothing is fenced or moved, and what ran, runs again; also where no notification
    tells of the guests that Nova found gone."""
    engine = trial.engine(listens=listens)
    ids = trial.lab.boot(3, host="host01")
    stopped = ids.pop()
    trial.lab.power_off(stopped)
    trial.ready()
    trial.lab.command("reboot", "host01", "--boot-s", "10")
    trial.lab.wait("nova-compute is back and its VMs run", lambda: set(ids) <= set(trial.running(ids)), 90.0, 1.0)
    trial.assert_untouched([*ids, stopped])
    assert trial.running(ids) == {one: ["host01"] for one in ids}
    assert not trial.lines(engine, "host01", "FENCING")
