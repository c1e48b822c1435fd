# SPDX-License-Identifier: Apache-2.0
"""The contract of Compute, on a real Nova: the same cases as on the simulated one (tests/ports/compute_contract.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.cloud_lab import CloudLab

pytest.register_assert_rewrite(
    *(f"tests.ports.compute_{one}" for one in ("bench", "services", "evacuations", "twins", "groups", "migrations"))
)

from tests.ports.compute_contract import CASES, Case  # noqa: E402
from vmhad.drivers.compute.nova import NovaCompute  # noqa: E402

pytestmark = pytest.mark.cloud

WORKAROUND = "disable_group_policy_check_upcall = True"


class LabBench:
    """A clean lab. What it changes beyond the lab's own reset, it mends in end()."""

    def __init__(self, lab: CloudLab) -> None:
        self._lab = lab
        self.hosts = tuple(sorted(lab.hosts))
        self.compute = NovaCompute(lab.auth, region=lab.facts["region"], timeout_s=5.0, room_keep_s=0.0)
        self._api_is_away = False
        self._checking: dict[str, str] = {}

    def end(self) -> None:
        self.compute.close()
        if self._api_is_away:
            self._lab.command("start", "nova-api")
        for host, text in self._checking.items():
            self._config(host).write_text(text)
            self._lab.command("restore", host)
            self.restart_compute(host)

    def boot(self, name: str, host: str, *, group: str = "", stopped: bool = False, locked: bool = False) -> str:
        (server_id,) = self._lab.boot(host=host, name=name, group=group)
        if stopped:
            self._lab.power_off(server_id)
        if locked:
            self._lab.act(server_id, "lock")
        return server_id

    def group(self, policy: str) -> str:
        return self._lab.group(policy)

    def pause(self, server_id: str) -> None:
        self._lab.act(server_id, "pause")
        self._lab.wait("the server is paused", lambda: self._lab.server(server_id)["status"] == "PAUSED")

    def kill(self, host: str) -> None:
        self._lab.command("cut", host)

    def hang(self, host: str) -> None:
        self._lab.command("hang", host)

    def bring_back(self, host: str) -> None:
        self._lab.command("restore", host)

    def reboot(self, host: str) -> None:
        self._lab.command("reboot", host, "--boot-s", "8")

    def lose_guest(self, server_id: str, host: str) -> None:
        self._lab.command("lose-guest", host, server_id)

    def restart_compute(self, host: str) -> None:
        self._lab.command("stop-compute", host)
        self._lab.command("restore", host)

    def slow_spawns(self, host: str, seconds: float) -> None:
        self._lab.switch(host, "spawn_delay", str(seconds))

    def late_check(self, host: str) -> None:
        """The lab's hosts are configured without it."""
        text = self._config(host).read_text()
        assert text.count(WORKAROUND) == 1
        self._checking[host] = text
        self._config(host).write_text(text.replace(WORKAROUND, WORKAROUND.replace("True", "False")))
        self.restart_compute(host)

    def _config(self, host: str) -> Path:
        return Path(self._lab.host(host)["state_dir"]).parents[2] / "etc" / "hosts" / f"{host}.conf"

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        self._lab.wait(what, holds, 120.0)

    def rest(self, seconds: float) -> None:
        time.sleep(seconds)

    def running_on(self, server_id: str) -> list[str]:
        return sorted(self._lab.running_on(server_id))

    def api_away(self) -> None:
        self._lab.command("stop", "nova-api", "--kill")
        self._api_is_away = True


@pytest.fixture
def bench(lab: CloudLab) -> Iterator[LabBench]:
    begun = LabBench(lab)
    try:
        yield begun
    finally:
        begun.end()


@pytest.mark.parametrize(
    "case",
    [pytest.param(one, marks=[pytest.mark.chaos] if one.rare else [], id=one.name) for one in CASES],
)
def test_contract(bench: LabBench, case: Case) -> None:
    case.run(bench)
