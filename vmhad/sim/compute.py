# SPDX-License-Identifier: Apache-2.0
"""ports.Compute of one engine over the simulated Nova: what network and API process add to Nova itself.

Every call takes its time, counts for the crash sweep, and may fail before or after its effect as a story says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vmhad.kernel.cloud import Action, ComputeService, Inventory, Migration, Server, ServerState
from vmhad.kernel.vm_resolve import Surroundings
from vmhad.ports import Unanswered
from vmhad.sim.clock import SimClock
from vmhad.sim.life import Life
from vmhad.sim.migrations import LiveMigrations
from vmhad.sim.nova import SimNova
from vmhad.sim.rebuild import Rebuilds

READ_S = 0.08
WRITE_S = 0.12
BLOCKED_DISABLE_S = 60.0


@dataclass
class NovaFaults:
    """What is wrong with nova-api, for all engines alike. errors: verb -> how many calls still fail."""

    down_until: float = 0.0
    slow_until: float = 0.0
    slow_s: float = 0.0
    errors_before_effect: dict[str, int] = field(default_factory=dict)
    errors_after_effect: dict[str, int] = field(default_factory=dict)

    def mend(self, now: float) -> None:
        """All is well from now on; until when nobody could see is not forgotten."""
        self.down_until, self.slow_until = min(self.down_until, now), min(self.slow_until, now)
        self.errors_before_effect.clear()
        self.errors_after_effect.clear()

    def late_s(self, now: float) -> float:
        """How much longer than usual an answer takes."""
        return self.slow_s if now < self.slow_until else 0.0

    @staticmethod
    def take(errors: dict[str, int], verb: str) -> bool:
        left = errors.get(verb, 0)
        errors[verb] = max(0, left - 1)
        return left > 0


@dataclass
class Post:
    """One request to evacuate, move or start a VM as it reached nova-api; kept for the checkers. late: its sender slept
    before it left."""

    at: float
    engine: str
    server: str
    target: str
    force: bool
    late: bool = False


class SimCompute:
    """One engine's way to Nova. on_evacuate, on_start, on_migrate are told of every request before Nova sees it."""

    def __init__(
        self,
        nova: SimNova,
        rebuilds: Rebuilds,
        migrations: LiveMigrations,
        faults: NovaFaults,
        life: Life,
        clock: SimClock,
        timeout_s: float,
        on_evacuate: Callable[[Post], None],
        on_start: Callable[[Post], None] = lambda post: None,
        on_migrate: Callable[[Post], None] = lambda post: None,
    ) -> None:
        self._nova, self._rebuilds, self._migrations, self._faults = nova, rebuilds, migrations, faults
        self._life, self._clock, self._timeout_s = life, clock, timeout_s
        self._on_evacuate, self._on_start, self._on_migrate = on_evacuate, on_start, on_migrate

    def services(self) -> tuple[ComputeService, ...]:
        self._read()
        found = (self._nova.service(host) for host in sorted(self._nova.services))
        return tuple(service for service in found if service is not None)

    def service(self, host: str) -> ComputeService | None:
        self._read()
        return self._nova.service(host)

    def inventory(self, host: str, hosts: Sequence[str], at: float) -> Inventory:
        self._read(calls=4)
        return self._nova.inventory(host, hosts, at)

    def departures(self, host: str) -> tuple[tuple[Server, ...], tuple[Migration, ...]]:
        self._read(calls=2)
        return self._nova.on_host(host), self._nova.evacuations_from(host)

    def evacuations(self, host: str) -> tuple[Migration, ...]:
        self._read()
        return self._nova.evacuations_from(host)

    def server_ids(self, host: str, active: bool = False) -> frozenset[str]:
        self._read()
        here = self._nova.on_host(host)
        return frozenset(one.id for one in here if not active or one.state is ServerState.ACTIVE)

    def fallen(self, host: str) -> tuple[Server, ...]:
        self._read()
        return tuple(one for one in self._nova.on_host(host) if one.id in self._nova.stopped_by_nova)

    def stopped_lately(self, within_s: float) -> tuple[Server, ...]:
        self._read()
        since = self._nova.agenda.now - within_s
        rows = self._nova.servers.values()
        lately = sorted(one.id for one in rows if one.state is ServerState.STOPPED and one.stopped_at >= since)
        return tuple(server for one in lately if (server := self._nova.server(one)) is not None)

    def server(self, server_id: str) -> Server | None:
        self._read()
        return self._nova.server(server_id)

    def actions(self, server_id: str) -> tuple[Action, ...]:
        self._read()
        return tuple(self._nova.actions.get(server_id, ()))

    def surroundings(self, keys: frozenset[str], domains: frozenset[str]) -> Surroundings:
        """The simulated cloud has server groups, and neither aggregates nor domains."""
        self._read()
        rows = self._nova.groups.values() if "group" in keys else ()
        return Surroundings(groups={member: (row.id, row.id) for row in rows for member in row.members})

    def set_forced_down(self, host: str, forced: bool) -> None:
        self._write("force_down", lambda: self._nova.set_forced_down(host, forced))

    def set_enabled(self, host: str, enabled: bool, reason: str) -> None:
        """Blocks a minute on a host that is dead and still counts as up; the effect is there before it blocks."""
        service = self._nova.service(host)
        changes = service is not None and service.up and service.enabled != enabled
        blocks = changes and not self._nova.datacentre.hosts[host].serves
        self._write("disable", lambda: self._nova.set_enabled(host, enabled, reason))
        if blocks:
            self._clock.spend(min(self._timeout_s, BLOCKED_DISABLE_S))
            if self._timeout_s < BLOCKED_DISABLE_S:
                raise Unanswered("nova-api did not answer in time")

    def evacuate(self, server_id: str, target: str, force: bool) -> None:
        def act() -> None:
            now, life = self._nova.agenda.now, self._life
            self._on_evacuate(Post(now, life.name, server_id, target, force, life.is_late))
            self._rebuilds.begin(server_id, target, force)

        self._write("evacuate", act)

    def live_migrations(self, server_id: str) -> tuple[Migration, ...]:
        self._read()
        return self._nova.live_migrations(server_id)

    def live_migrate(self, server_id: str, target: str) -> None:
        def act() -> None:
            now, life = self._nova.agenda.now, self._life
            self._on_migrate(Post(now, life.name, server_id, target, False, life.is_late))
            self._migrations.begin(server_id, target)

        self._write("live_migrate", act)

    def start(self, server_id: str) -> None:
        self._write("start", lambda: self._start(server_id, self._nova.start))

    def stop(self, server_id: str) -> None:
        self._write("stop", lambda: self._nova.stop(server_id))

    def reboot(self, server_id: str) -> None:
        self._write("reboot", lambda: self._start(server_id, self._nova.reboot))

    def _start(self, server_id: str, act: Callable[[str], None]) -> None:
        life = self._life
        self._on_start(Post(self._nova.agenda.now, life.name, server_id, "", False, life.is_late))
        act(server_id)

    def _read(self, calls: int = 1) -> None:
        self._life.count_call()
        self._answers()
        self._wait(calls * READ_S)

    def _write(self, verb: str, act: Callable[[], None]) -> None:
        self._life.count_call()
        self._answers()
        self._clock.spend(WRITE_S)
        if NovaFaults.take(self._faults.errors_before_effect, verb):
            raise Unanswered("nova-api answered 500")
        self._life.send(verb, act)
        self._wait(0.0)
        if NovaFaults.take(self._faults.errors_after_effect, verb):
            raise Unanswered("nova-api answered 500")

    def _wait(self, usual_s: float) -> None:
        """What was asked is done however late the answer is; past the time limit nobody waits for it any more."""
        takes_s = usual_s + self._faults.late_s(self._nova.agenda.now)
        self._clock.spend(min(takes_s, self._timeout_s))
        if takes_s >= self._timeout_s:
            raise Unanswered("nova-api did not answer in time")

    def _answers(self) -> None:
        if self._nova.agenda.now < self._faults.down_until:
            self._clock.spend(self._timeout_s)
            raise Unanswered("nova-api did not answer in time")
