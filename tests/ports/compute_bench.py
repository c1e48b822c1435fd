# SPDX-License-Identifier: Apache-2.0
"""What a case of Compute's contract is run on, and what it asks there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pytest

from vmhad.kernel.cloud import ComputeService, Server, ServerState
from vmhad.ports import Compute, Refused

NOBODY = "00000000-0000-4000-8000-000000000000"
OPEN = {"accepted", "pre-migrating"}


class Bench(Protocol):
    """One cloud, empty at first. hosts: at least three, sorted. Its compute answers within a few seconds or not."""

    compute: Compute
    hosts: tuple[str, ...]

    def boot(self, name: str, host: str, *, group: str = "", stopped: bool = False, locked: bool = False) -> str:
        """The id of a new server."""

    def group(self, policy: str) -> str:
        """The id of a new group."""

    def pause(self, server_id: str) -> None: ...

    def kill(self, host: str) -> None:
        """Power goes; Nova does not know yet."""

    def hang(self, host: str) -> None:
        """nova-compute stops in its tracks, and Nova does not know yet."""

    def bring_back(self, host: str) -> None:
        """It has power and a new nova-compute; Nova's flags stay. Returns once that one has started."""

    def reboot(self, host: str) -> None:
        """Its guests are gone and it is back before Nova misses it; its power never went."""

    def lose_guest(self, server_id: str, host: str) -> None:
        """Its process is gone, the host and its nova-compute are well."""

    def restart_compute(self, host: str) -> None:
        """nova-compute dies and starts anew. Returns once it has started."""

    def slow_spawns(self, host: str, seconds: float) -> None: ...

    def late_check(self, host: str) -> None:
        """The host's nova-compute checks group policies late, as Nova's default is."""

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        """Lets time pass until it holds; fails the test after two minutes."""

    def rest(self, seconds: float) -> None:
        """Lets time pass."""

    def running_on(self, server_id: str) -> list[str]:
        """Where guests of it really run, whatever Nova believes."""

    def api_away(self) -> None:
        """nova-api is gone for the rest of the case."""


@dataclass(frozen=True)
class Case:
    """rare: too long for every build on a real cloud."""

    name: str
    run: Callable[[Bench], None]
    rare: bool = False


CASES: list[Case] = []


def case(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
    CASES.append(Case(run.__name__, run))
    return run


def rare(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
    CASES.append(Case(run.__name__, run, rare=True))
    return run


# What the cases ask.


def server(bench: Bench, server_id: str) -> Server:
    found = bench.compute.server(server_id)
    assert found is not None
    return found


def service(bench: Bench, host: str) -> ComputeService:
    found = bench.compute.service(host)
    assert found is not None
    return found


def place(bench: Bench, server_id: str) -> tuple[str, ServerState]:
    found = server(bench, server_id)
    return found.host, found.state


def bury(bench: Bench, *hosts: str) -> None:
    """Dead beyond doubt, and Nova knows it: what a recovery has done before it evacuates."""
    for host in hosts:
        bench.kill(host)
    for host in hosts:
        bench.compute.set_forced_down(host, True)


def statuses(bench: Bench, host: str, server_id: str) -> list[str]:
    """Of the server's evacuations away from host, newest first."""
    return [one.status for one in bench.compute.departures(host)[1] if one.server == server_id]


def evacuated(bench: Bench, server_id: str, target: str) -> None:
    bench.compute.evacuate(server_id, target, False)
    bench.wait(f"{server_id} on {target}", lambda: server(bench, server_id).host == target)


def ended(bench: Bench, host: str, server_id: str, expected: list[str]) -> None:
    """Waits until no record is open and the statuses, newest first, are as expected."""
    bench.wait("every record has ended", lambda: not OPEN & set(statuses(bench, host, server_id)))
    assert statuses(bench, host, server_id) == expected


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(Refused) as said:
        call()
    return str(said.value)
