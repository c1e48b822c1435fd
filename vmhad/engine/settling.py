# SPDX-License-Identifier: Apache-2.0
"""What the policies of VMs say of each server that is read: put on it here, before any decision sees it.

A change of the policies counts from one round to the next, and only once all is known that they match by: until then
those before it hold, and so they do where a change cannot be read: that must not keep every VM from being recovered.
Before the first ones are known nothing of a server is believed. What Nova or Keystone will not tell is waited for so
long, and what was known of it before holds; then those policies match no VM by it, and the log says so: one policy
whose domain cannot be read must not keep all VMs from being recovered.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from vmhad.engine.book import Book
from vmhad.engine.guests import Guests
from vmhad.journal.codec import JournalUnreadable
from vmhad.journal.policies import PolicyShelf
from vmhad.kernel.cloud import Fallen, Inventory, Server, Standing
from vmhad.kernel.policy import OnFailure, OnIoError, Policy
from vmhad.kernel.vm_policy import VmPolicies, VmPolicy
from vmhad.kernel.vm_resolve import DOMAIN, NOWHERE, SURROUNDED, Surroundings, domains_of, needed, settled
from vmhad.ports import Clock, Compute, Workers

LOG = logging.getLogger(__name__)

# What surrounds servers changes seldom: a host joins an aggregate, a project is made.
AROUND_EVERY_S = 30.0
AGAIN_S = 2.0
UNTOLD_S = 30.0
SURROUNDINGS = "what surrounds the servers"


@dataclass
class Settling:
    """held: the policies that count, the most specific first; None before they are known. wanted: those that wait for
    what they match by."""

    shelf: PolicyShelf
    compute: Compute
    workers: Workers
    clock: Clock
    guests: Guests
    held: tuple[VmPolicy, ...] | None = None
    wanted: VmPolicies | None = None
    around: Surroundings = NOWHERE
    _seen: int = -1
    _unread: str = ""
    _known: frozenset[str] = frozenset()
    _asked: frozenset[str] = frozenset()
    _ask_at: float = inf
    _untold_at: float = inf
    _unleft: Mapping[str, OnFailure | OnIoError] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        return self.held is not None

    def read(self, books: Iterable[Book]) -> None:
        """Raises Unanswered; JournalUnreadable where none are known yet."""
        try:
            found = self.shelf.newest()
        except JournalUnreadable as error:
            if self.held is None:
                raise
            if self._unread != str(error):
                LOG.error("the VM policies before it count on: %s", error)
            self._unread = str(error)
            return
        self._unread = ""
        if found.version == self._seen:
            return
        self._seen, self.wanted = found.version, found
        if _needs(found.policies) <= self._known:
            self._adopt(found, books)
        else:
            self._ask_at = -inf

    def begin_recurring(self) -> None:
        """Asks what surrounds the servers, where some policy matches by that and it is time."""
        policies = (*(self.held or ()), *(self.wanted.policies if self.wanted is not None else ()))
        needs = _needs(policies)
        if not needs or self.clock.now() < self._ask_at:
            return
        keys, domains = needed(policies), domains_of(policies)
        if self.workers.submit(SURROUNDINGS, lambda: self.compute.surroundings(keys, domains)):
            self._asked, self._ask_at = needs, self.clock.now() + AGAIN_S

    def take(self, around: Surroundings, books: Iterable[Book]) -> None:
        now, untold = self.clock.now(), self._untold(around)
        was_waited_for = now >= self._untold_at + UNTOLD_S
        kept = {SURROUNDED[key]: getattr(self.around, SURROUNDED[key]) for key in around.unknown}
        self.around = replace(around, **kept)
        self._known = self._asked - untold
        self._ask_at = now + (AGAIN_S if untold and not was_waited_for else AROUND_EVERY_S)
        if self.wanted is None:
            self._settle(books)
        elif _needs(self.wanted.policies) <= (self._asked if was_waited_for else self._known):
            self._adopt(self.wanted, books)
        elif not untold:
            self._ask_at = -inf

    def _untold(self, around: Surroundings) -> frozenset[str]:
        """What was asked for and is not known, this time or from before; told once in the log."""
        if not around.unknown:
            self._untold_at = inf
        elif self._untold_at == inf:
            self._untold_at = self.clock.now()
            words = "; ".join(f"{key}: {why}" for key, why in sorted(around.unknown.items()))
            LOG.error("VM policies match by what was known before, or match nothing by it: %s", words)
        found = self._asked & around.unknown.keys()
        if DOMAIN in found:
            found |= self._asked - SURROUNDED.keys()
        return found - self._known

    def _adopt(self, found: VmPolicies, books: Iterable[Book]) -> None:
        if found.version:
            LOG.info("version %d of the VM policies counts now: %d of them", found.version, len(found.policies))
        self.held, self.wanted = found.ranked, None
        self._unleft = _unleft(self.held)
        self._ask_at = min(self._ask_at, self.clock.now() + AROUND_EVERY_S)
        self._settle(books)

    def _settle(self, books: Iterable[Book]) -> None:
        for book in books:
            book.inventories = {host: self.inventory(one) for host, one in book.inventories.items()}
            book.standings = {key: self.standing(one) for key, one in book.standings.items()}
            book.fallen = {host: self.fallen(one) for host, one in book.fallen.items()}
            for key, server in tuple(book.left_by_policy.items()):
                if self.server(server) != server:
                    # What left it says something else now: it is looked at as if it had not been.
                    for forgotten in (book.left_by_policy, book.left, self.guests.let_be):
                        forgotten.pop(key, None)

    def inventory(self, inventory: Inventory) -> Inventory:
        """Its own groups are as new as it is."""
        groups = {member: (one.id, one.name) for one in inventory.groups for member in one.members}
        around = replace(self.around, groups={**self.around.groups, **groups})
        return replace(inventory, servers=self._servers(inventory.servers, around))

    def standing(self, standing: Standing) -> Standing:
        return standing if standing.server is None else replace(standing, server=self.server(standing.server))

    def fallen(self, fallen: Fallen) -> Fallen:
        return replace(fallen, servers=self._servers(fallen.servers, self.around))

    def server(self, server: Server) -> Server:
        return settled(server, self.held or (), self.around)

    def _servers(self, servers: Iterable[Server], around: Surroundings) -> tuple[Server, ...]:
        return tuple(settled(one, self.held or (), around) for one in servers)

    def willing(self, policy: Policy) -> Policy:
        """A segment's policy, without leaving alone what the policy of some VM does not: whether it is that one's is
        known only once it was read."""
        leave = OnFailure.LEAVE.value
        left = {name: value for name, value in self._unleft.items() if getattr(policy, name).value == leave}
        return replace(policy, **left) if left else policy  # type: ignore[arg-type]


def _unleft(policies: Iterable[VmPolicy]) -> Mapping[str, OnFailure | OnIoError]:
    """What some of them does about failures."""
    found: dict[str, OnFailure | OnIoError] = {}
    for one in policies:
        for name, value in one.settings.said.items():
            if isinstance(value, OnFailure | OnIoError) and value.value != OnFailure.LEAVE.value:
                found.setdefault(name, value)
    return found


def _needs(policies: Iterable[VmPolicy]) -> frozenset[str]:
    """The kinds of surroundings that are asked for, and the domains."""
    told = tuple(policies)
    return needed(told) | domains_of(told)
