# SPDX-License-Identifier: Apache-2.0
"""From when on a change of the VM policies counts, and what counts while something that they match by is not told."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from vmhad.engine.book import Book
from vmhad.engine.guests import Guests
from vmhad.engine.settling import AGAIN_S, AROUND_EVERY_S, UNTOLD_S, Settling
from vmhad.journal import keys
from vmhad.journal.codec import JournalUnreadable
from vmhad.journal.policies import PolicyShelf
from vmhad.kernel.cloud import Fallen, Group, Inventory, Server, ServerState, Standing
from vmhad.kernel.vm_policy import NOTHING_SAID, Match, Protect, Settings, VmPolicy
from vmhad.kernel.vm_resolve import Surroundings
from vmhad.ports import Unanswered
from vmhad.sim.store import MemoryStore

VM = Server("s1", "web-1", "h1", ServerState.ACTIVE, project="p1")
OFF = VmPolicy("off", Match(server=("s1",)), Settings(Protect.NO))
BY_DOMAIN = VmPolicy("by-domain", Match(domain=("d1",)), Settings(priority=5))
BY_GROUP = VmPolicy("by-group", Match(group=("g1",)), Settings(priority=6))
KNOWN = Surroundings(groups={"s1": ("g1", "pair")}, domains={"p1": "d1"})
SILENT = Surroundings(groups=KNOWN.groups, unknown={"domain": "Keystone said nothing"})


@dataclass
class World:
    """Clock, cloud and workers at once; a call is made when the test says so, and its result taken then."""

    at: float = 100.0
    around: Surroundings | None = KNOWN
    asked: list[tuple[frozenset[str], frozenset[str]]] = field(default_factory=list)
    calls: list[object] = field(default_factory=list)
    is_busy: bool = False

    def __post_init__(self) -> None:
        self.store = MemoryStore()
        self.shelf = PolicyShelf(self.store)
        self.book = Book(1, {}, {})
        self.settling = Settling(self.shelf, self, self, self, Guests())  # type: ignore[arg-type]

    def now(self) -> float:
        return self.at

    def submit(self, name: str, call: object) -> bool:
        if not self.is_busy:
            self.calls.append(call)
        return not self.is_busy

    def surroundings(self, keys: frozenset[str], domains: frozenset[str]) -> Surroundings:
        self.asked.append((keys, domains))
        if self.around is None:
            raise Unanswered("Nova is away")
        return self.around

    def put(self, *policies: VmPolicy) -> None:
        self.shelf.replace(self.shelf.newest().version, policies)

    def tick(self, after_s: float = 0.0) -> int:
        """A round of an engine, and the end of what it asked. How often it asked."""
        self.at += after_s
        self.settling.begin_recurring()
        self.settling.read([self.book])
        self.settling.begin_recurring()
        made, self.calls = self.calls, []
        for call in made:
            try:
                self.settling.take(call(), [self.book])  # type: ignore[operator]
            except Unanswered:
                continue
        return len(made)

    @property
    def priority(self) -> int:
        return self.settling.server(VM).settings.priority


@pytest.fixture
def world() -> World:
    return World()


def test_without_policies_it_is_ready_at_once_and_asks_nobody(world: World) -> None:
    assert not world.settling.is_ready
    assert [world.tick(5.0) for _ in range(20)] == [0] * 20
    assert world.settling.is_ready and world.settling.server(VM) is VM


def test_what_servers_say_by_themselves_counts_at_once(world: World) -> None:
    world.put(OFF)
    assert world.tick() == 0
    assert world.settling.server(VM).settings.why_left == "VM policy 'off' leaves it alone"


def test_what_was_read_before_has_what_is_said_now_and_no_more_what_was_said(world: World) -> None:
    world.tick()
    group = Group("g7", "affinity", ("s1",), name="later")
    inventory = Inventory("h1", 1.0, (VM,), (), (group,), {}, (), ())
    world.book.inventories["h1"] = inventory
    world.book.standings["s1"] = Standing("s1", 1.0, VM, ())
    world.book.fallen["h1"] = Fallen("h1", (VM,))
    world.put(OFF, VmPolicy("later", Match(group=("later",)), Settings(priority=9)))
    world.tick()
    settled = world.book.inventories["h1"].servers[0].settings
    assert settled.why_left and settled.priority == 9, "an inventory has groups of its own"
    assert world.book.fallen["h1"].servers[0].settings.why_left
    standing = world.book.standings["s1"].server
    assert standing is not None and standing.settings.why_left
    world.put()
    world.tick(AGAIN_S)
    assert world.book.inventories["h1"] == inventory and world.book.fallen["h1"].servers == (VM,)


def test_the_first_ones_wait_for_what_they_match_by(world: World) -> None:
    world.put(BY_GROUP, BY_DOMAIN)
    world.around = None
    assert [world.tick(AGAIN_S) for _ in range(100)] == [1] * 100
    assert not world.settling.is_ready, "without Nova nothing is done anyway"
    world.around = KNOWN
    world.tick(AGAIN_S)
    assert world.settling.is_ready and world.priority == 6
    assert world.asked[-1] == ({"group", "domain"}, {"d1"})
    assert sum(world.tick(1.0) for _ in range(90)) == 90 / AROUND_EVERY_S


def test_a_change_counts_once_it_is_known_what_it_matches_by(world: World) -> None:
    world.put(VmPolicy("rest", Match(), Settings(priority=1)))
    world.tick()
    world.put(BY_GROUP)
    world.around = None
    world.tick(AGAIN_S)
    assert world.priority == 1, "what was there before holds until then"
    world.around = KNOWN
    world.tick(AGAIN_S)
    assert world.priority == 6


def test_what_cannot_be_read_leaves_those_before_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.put(OFF)
    world.tick()
    assert world.settling.server(VM).settings.protect is False
    good = world.store.get(keys.vm_policies())
    assert good is not None
    world.store.commit([], {keys.vm_policies(): good.replace(b'"no"', b'"perhaps"')})
    for _ in range(3):
        world.tick(2.0)
    assert world.settling.server(VM).settings.protect is False
    told = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert len(told) == 1 and keys.vm_policies() in told[0]
    mended = good.replace(b'"no"', b'"yes"').replace(b'"version":1', b'"version":2')
    world.store.commit([], {keys.vm_policies(): mended})
    world.tick(2.0)
    assert world.settling.server(VM).settings.protect is True


def test_an_engine_that_knows_none_yet_stops_at_what_it_cannot_read(world: World) -> None:
    world.store.commit([], {keys.vm_policies(): b"garbage"})
    with pytest.raises(JournalUnreadable, match=keys.vm_policies()):
        world.tick()
    assert not world.settling.is_ready


def test_of_two_changes_the_second_is_not_taken_for_known_by_the_firsts_answer(world: World) -> None:
    world.put(BY_GROUP)
    world.is_busy = True
    world.tick()
    world.is_busy = False
    world.settling.begin_recurring()
    world.put(BY_GROUP, BY_DOMAIN)
    world.settling.read([world.book])
    (first,) = world.calls
    world.settling.take(first(), [world.book])  # type: ignore[operator]
    assert world.asked == [({"group"}, frozenset())] and not world.settling.is_ready
    world.calls = []
    world.tick()
    assert world.settling.is_ready and world.asked[-1] == ({"group", "domain"}, {"d1"})


def test_one_domain_that_nobody_tells_keeps_nothing_waiting_for_long(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.put(OFF, BY_DOMAIN)
    world.around = SILENT
    waited_s = 0.0
    while not world.settling.is_ready:
        world.tick(AGAIN_S)
        waited_s += AGAIN_S
    assert waited_s == UNTOLD_S + AGAIN_S
    assert world.settling.server(VM).settings.why_left and world.priority == 0
    assert caplog.text.count("Keystone said nothing") == 1
    assert sum(world.tick(1.0) for _ in range(90)) == 90 / AROUND_EVERY_S, "it is asked seldom then"
    world.put(BY_DOMAIN)
    world.tick(AGAIN_S)
    assert not world.settling.server(VM).settings.why_left, "further changes do not wait anew"
    world.around = KNOWN
    for _ in range(2):
        world.tick(AROUND_EVERY_S)
    assert world.priority == 5


def test_what_was_known_of_a_domain_stays_while_nobody_tells(world: World) -> None:
    world.put(BY_DOMAIN)
    world.tick()
    world.around = SILENT
    for _ in range(20):
        world.tick(AROUND_EVERY_S)
    assert world.priority == 5
    world.put(BY_DOMAIN, OFF)
    world.tick(AGAIN_S)
    assert world.settling.server(VM).settings.why_left and world.priority == 5, "it waits for nothing"
    more = VmPolicy("more", Match(domain=("d2",)), Settings(priority=7))
    world.put(BY_DOMAIN, more)
    world.tick(AGAIN_S)
    assert not world.settling.server(VM).settings.why_left and world.priority == 5


def test_a_vm_that_was_left_is_looked_at_again_when_its_policy_goes(world: World) -> None:
    world.put(OFF)
    world.tick()
    for book_of in (world.book.left, world.settling.guests.let_be):
        book_of["s1"] = "7"  # type: ignore[index]
    world.book.left_by_policy["s1"] = world.settling.server(VM)
    world.put(OFF, VmPolicy("other", Match(server=("s2",)), Settings(priority=1)))
    world.tick(AGAIN_S)
    assert world.book.left == {"s1": "7"}, "of it nothing new is said"
    world.put()
    world.tick(AGAIN_S)
    assert not world.book.left and not world.book.left_by_policy and "s1" not in world.settling.guests.let_be


def test_a_server_of_which_nothing_is_said_costs_no_copy(world: World) -> None:
    world.put(VmPolicy("other", Match(server=("s2",)), Settings(priority=1)))
    world.tick()
    assert world.settling.server(VM) is VM and VM.settings is NOTHING_SAID
