# SPDX-License-Identifier: Apache-2.0
"""What the simulated Nova does with a live migration: accepted -> running -> completed, over one to three seconds.

The guest runs on its source until it runs on its target, and never on both. Where the scheduler takes no target, or the
target dies, it stays where it was. Where the source dies nobody ends the record before that is back.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from vmhad.kernel.cloud import ServerState
from vmhad.ports import Refused
from vmhad.sim.nova import LIVE, MIGRATING, SimNova
from vmhad.sim.rebuild import CONDUCTOR_S, Rebuilds
from vmhad.sim.records import MigrationRow, ServerRow

RECORDED_S = 0.05
MOVES_S = (1.0, 2.9)
RUNS = (ServerState.ACTIVE, ServerState.PAUSED)


class LiveMigrations:
    """spoils: how many of the next ones leave their server in ERROR, its guest running on, as where a hypervisor
    refuses what Nova thought safe. slow_s: how much longer each takes."""

    def __init__(self, nova: SimNova, rebuilds: Rebuilds, seed: int = 0) -> None:
        self.nova, self._rebuilds = nova, rebuilds
        self._draw = random.Random(f"live migrations {seed}")
        self.spoils = 0
        self.slow_s = 0.0
        self.ended: list[Callable[[ServerRow], None]] = []

    def begin(self, server_id: str, target: str) -> None:
        """POST os-migrateLive. Raises Refused."""
        nova = self.nova
        row = nova.server_row(server_id)
        if row.state not in RUNS or row.task_state:
            raise Refused(f"Cannot 'os-migrateLive' instance {server_id} while it is {row.task_state or row.state}")
        if target not in nova.services:
            raise Refused(f"Compute host {target} could not be found.")
        nova.acted(server_id, LIVE)
        row.task_state = MIGRATING
        nova.agenda.after(RECORDED_S, lambda: self._record(row, target))

    def _record(self, row: ServerRow, target: str) -> None:
        """By the conductor, when the API has answered already: until then the task alone tells of it."""
        if row.id in self.nova.servers and row.task_state == MIGRATING:
            move = self.nova.add_migration(row.id, row.host, target, LIVE)
            self.nova.agenda.after(CONDUCTOR_S, lambda: self._conduct(row, move))

    def _conduct(self, row: ServerRow, move: MigrationRow) -> None:
        if row.id not in self.nova.servers:
            return
        is_up = self.nova.is_up(move.source)
        if not is_up or move.target == move.source or not self._rebuilds.fits(move.target, row):
            self._end(row, move, "error", "No valid host was found.")
            return
        self.nova.allocations.add((row.id, move.target))
        takes_s = self._draw.uniform(*MOVES_S) + self.slow_s
        self.nova.queues.cast(move.source, CONDUCTOR_S, lambda: self._run(row, move, takes_s))

    def _run(self, row: ServerRow, move: MigrationRow, takes_s: float) -> None:
        if row.task_state != MIGRATING:
            return
        self._set(move, "running")
        source = move.source
        self.nova.queues.work(source, self.nova.queues.life(source), takes_s, lambda: self._arrive(row, move))

    def _arrive(self, row: ServerRow, move: MigrationRow) -> None:
        """Its source hands over, in one moment."""
        guests = self.nova.datacentre.vms[row.id].guests
        if row.id not in self.nova.servers or row.task_state != MIGRATING:
            return
        if self.spoils:
            self.spoils -= 1
            row.state = ServerState.ERROR
            self._end(row, move, "error", "Unsafe migration: Migration without shared storage is unsafe")
            return
        if not self.nova.datacentre.hosts[move.target].serves or move.source not in guests:
            self._end(row, move, "error", f"Live migration to {move.target} failed")
            return
        guests.discard(move.source)
        guests.add(move.target)
        row.host = move.target
        for held in (self.nova.allocations, self.nova.copies):
            held.discard((row.id, move.source))
            held.add((row.id, move.target))
        row.task_state = ""
        self._set(move, "completed")
        self._tell(row)

    def _end(self, row: ServerRow, move: MigrationRow, status: str, fault: str) -> None:
        """Nova keeps no fault with a server that goes on as before."""
        self.nova.allocations.discard((row.id, move.target))
        row.task_state = ""
        row.fault = fault if row.state is ServerState.ERROR else row.fault
        self._set(move, status)
        self._tell(row)

    def _tell(self, row: ServerRow) -> None:
        for call in self.ended:
            call(row)

    def _set(self, move: MigrationRow, status: str) -> None:
        move.status, move.updated_at = status, self.nova.agenda.iso()
