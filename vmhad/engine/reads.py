# SPDX-License-Identifier: Apache-2.0
"""The slow reads of the cloud that a decision may rest on: given to the workers, and what came of them to whom it is
for. Nothing is decided here."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from vmhad.engine.book import Book
from vmhad.engine.evidence_store import EvidenceStore
from vmhad.engine.gates import GateLook, Gates
from vmhad.engine.settling import Settling
from vmhad.engine.stopped import Stopped, StoppedLook
from vmhad.engine.world import World
from vmhad.guards.instances.judge import Nova, nova_of
from vmhad.kernel.case import Decision
from vmhad.kernel.cloud import Fallen, Inventory, ServerState, Standing
from vmhad.kernel.step import Outcome
from vmhad.kernel.topology import Segment
from vmhad.kernel.vm_resolve import Surroundings
from vmhad.ports import Clock, Compute, Unanswered, Workers

LOG = logging.getLogger(__name__)

FALLEN_OF = "fallen of "


@dataclass
class Reads:
    """world: keeps what was read for the steps that ask the same."""

    segments: Mapping[str, Segment]
    compute: Compute
    workers: Workers
    clock: Clock
    evidence: EvidenceStore
    world: World
    settling: Settling
    gates: Gates

    def __post_init__(self) -> None:
        self._stopped = StoppedLook(self.compute)

    def begin_recurring(self) -> None:
        """Those that nothing asks for, if it is time."""
        if look := self._stopped.due(self.clock.now()):
            self.workers.submit("servers stopped lately", look)
        self.settling.begin_recurring()

    def collect(self, books: Mapping[str, Book], dropped: Mapping[str, Book]) -> None:
        """What the workers finished. dropped: the books that are read again, for what was seen of their steps."""
        for name, result in self.workers.finished():
            self.gates.ended(name)
            if isinstance(result, Inventory | Fallen | Standing):
                self._take_servers(result, books)
            elif isinstance(result, Surroundings):
                self.settling.take(result, (*books.values(), *dropped.values()))
            elif isinstance(result, GateLook):
                self.gates.take(result)
            elif isinstance(result, Stopped):
                self.evidence.suspect_fallen(self._stopped.take(result))
            elif isinstance(result, tuple):
                _take(result, (*books.values(), *dropped.values()))
            elif isinstance(result, Exception):
                self._failed(name, result)

    def _take_servers(self, result: Inventory | Fallen | Standing, books: Mapping[str, Book]) -> None:
        """Before it is known what policies say of VMs nothing is believed of any: it is read again."""
        if isinstance(result, Fallen) and not self.settling.is_ready:
            self.evidence.ask_again(result.host, self.clock.now())
        elif not self.settling.is_ready:
            return
        elif isinstance(result, Inventory):
            self._take_inventory(self.settling.inventory(result), books)
        elif isinstance(result, Fallen):
            fallen = self.settling.fallen(result)
            for segment, book in books.items():
                if result.host in self.segments[segment].names:
                    book.take_fallen(fallen)
        else:
            standing = self.settling.standing(result)
            for book in books.values():
                book.take_standing(standing)

    def _take_inventory(self, inventory: Inventory, books: Mapping[str, Book]) -> None:
        self.world.remember(inventory)
        for book in books.values():
            if any(one.host == inventory.host for one in (*book.open_incidents(), *book.drains())):
                book.inventories[inventory.host] = inventory

    def _failed(self, name: str, failure: Exception) -> None:
        if not isinstance(failure, Unanswered):
            LOG.error("%s failed", name, exc_info=failure)
            return
        LOG.warning("%s: %s", name, failure)
        if name.startswith(FALLEN_OF):
            self.evidence.ask_again(name.removeprefix(FALLEN_OF), self.clock.now())

    def look_for_fallen(self, host: str) -> None:
        if not self.workers.submit(f"{FALLEN_OF}{host}", lambda: Fallen(host, self.compute.fallen(host))):
            self.evidence.ask_again(host, self.clock.now())

    def read_inventory(self, book: Book, decision: Decision, segment: str) -> None:
        host = decision.incident.host
        have = book.inventories.get(host)
        if not decision.needs_inventory or (have is not None and have.at >= decision.needs_inventory):
            return
        receivers = tuple(name for name in self.segments[segment].names if name != host)
        was_back = self.evidence.was_back_since(host, decision.incident.opened_at)
        failed = book.failed_alone(decision.incident)
        off = book.left.keys() | book.spared
        self.workers.submit(f"inventory of {host}", lambda: self._inventory(host, receivers, was_back, failed, off))

    def read_standing_for(self, book: Book, decision: Decision) -> None:
        have = book.standings.get(decision.incident.vm)
        if decision.needs_inventory and (have is None or have.at < decision.needs_inventory):
            self.read_standing(decision.incident.vm)

    def read_standing(self, server_id: str) -> None:
        self.workers.submit(f"standing of {server_id}", lambda: self.world.standing(server_id))

    def _inventory(
        self, host: str, receivers: Sequence[str], was_back: bool, failed: Sequence[str], wanted_off: Collection[str]
    ) -> Inventory:
        """A host that was back for a moment has VMs that no user stopped, and so has one where VMs failed alone. Of
        others they are not asked: a guest that its user shut down from inside looks the same to Nova."""
        inventory = self.compute.inventory(host, receivers, self.clock.now())
        off = {one.id for one in inventory.servers if one.state is ServerState.STOPPED}
        if off and was_back:
            fallen = {one.id for one in self.compute.fallen(host)}
            return replace(inventory, fallen=frozenset(fallen.difference(wanted_off)))
        by_itself = {one for one in failed if one in off and self._stopped_itself(one, host)}
        return replace(inventory, fallen=frozenset(by_itself)) if by_itself else inventory

    def _stopped_itself(self, server_id: str, host: str) -> bool:
        return nova_of(self.world.standing(server_id), host) is Nova.STOPPED_ITSELF


def _take(outcomes: tuple[object, ...], books: Sequence[Book]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, Outcome):
            for book in books:
                book.take(outcome)
