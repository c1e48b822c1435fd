# SPDX-License-Identifier: Apache-2.0
"""The simulated world put together: a datacentre, its Nova, a store, and engines that run the shipped core.

One event at a time, on one thread: an engine ticks when its clock is woken or its wait is over, and the checkers look
at the truth after every event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vmhad.engine.loop import Engine
from vmhad.engine.timeline import Line
from vmhad.kernel.beat import Beat, HeardBeat, Plane
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.policy import Policy
from vmhad.kernel.step import StepState
from vmhad.kernel.topology import Backend, Segment
from vmhad.ports import Nudge
from vmhad.sim import rules_of_drains, rules_of_services, rules_of_storages
from vmhad.sim.agents import Agents
from vmhad.sim.beats import SimBeats
from vmhad.sim.checkers import Checkers
from vmhad.sim.clock import Agenda, SimClock, Ticket
from vmhad.sim.compute import NovaFaults, Post, SimCompute
from vmhad.sim.datacentre import Datacentre
from vmhad.sim.guests import GuestWords
from vmhad.sim.hands import Acts, SimHands
from vmhad.sim.ledger import Ledger
from vmhad.sim.life import Killed, Life
from vmhad.sim.membership import Ring, SimMembership
from vmhad.sim.migrations import LiveMigrations
from vmhad.sim.nova import ServerRow, SimNova
from vmhad.sim.nudges import NudgeQueue, SimNudges
from vmhad.sim.power import PowerOrder, SimPower
from vmhad.sim.reach import ReachedStore, StoreFaults
from vmhad.sim.readiness import SimReadiness
from vmhad.sim.rebuild import Rebuilds
from vmhad.sim.storage import Backends, SimStorage
from vmhad.sim.store import MemoryStore
from vmhad.sim.watch import SimNovaWatch, SimPowerWatch
from vmhad.sim.watchdogs import Watchdogs
from vmhad.sim.workers import SimWorkers

TICKS_APART_S = 0.005
# After this long without a word, with nothing under way, nothing will happen by itself but what recurs.
SETTLE_S = 20.0
# How long after a host's return vmhad looks for VMs that are missing there.
RETURNS_LAST_S = 100.0
# So many tries of an evacuation are stepped, with all that happens between them.
TRIED_OFTEN = 3
AT_REST = (State.SUSPECTED, State.RECOVERED, State.STUCK)


@dataclass(frozen=True)
class Pace:
    """How fast eyes and calls are. All in seconds."""

    nova_poll_s: float = 2.0
    power_poll_s: float = 2.0
    call_timeout_s: float = 5.0
    bmc_timeout_s: float = 3.0
    storage_timeout_s: float = 3.0
    lease_s: float = 15.0


@dataclass
class Node:
    """One controller with its engine's process."""

    name: str
    life: Life
    clock: SimClock
    engine: Engine
    next_tick: Ticket | None = None
    ticked_at: float = 0.0


@dataclass
class Said:
    """One line of the timeline. at: the world's time, seconds since the start."""

    at: float
    engine: str
    subject: str
    word: str
    text: str


@dataclass
class World:
    """Build it, add hosts, VMs and engines, then run it. seed: draws how long each spawn takes."""

    segments: tuple[Segment, ...]
    policies: Mapping[str, Policy]
    pace: Pace = Pace()
    seed: int = 0
    said: list[Said] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.agenda = Agenda()
        self.datacentre = Datacentre(self.agenda)
        self.nova = SimNova(self.datacentre)
        self.rebuilds = Rebuilds(self.nova, self.seed)
        self.migrations = LiveMigrations(self.nova, self.rebuilds, self.seed)
        self.nova_faults = NovaFaults()
        self.acts = Acts(self.nova)
        self.backends = Backends(self.datacentre)
        self.store = MemoryStore()
        self.store_faults = StoreFaults()
        self.ring = Ring(self.agenda)
        self.nudges = NudgeQueue(self.agenda, self.seed)
        self.nova.nudge = self.nudges.put
        self.nodes: dict[str, Node] = {}
        self.checkers = Checkers(self.datacentre, self.nova, self._breach)
        self.ledger = Ledger(
            self.nova, self.store, self.segments, self.policies, self._offset_s, self.checkers.breach
        )
        self.ledger.sees_since = self._sees_since
        self.acts.on_resume = self.ledger.on_resume
        self.backends.on_order = lambda order: rules_of_storages.hear(self.ledger, order, self.checkers.excused)
        self.backends.on_late = lambda order: rules_of_storages.hear_late(self.ledger, order)
        self.acts.on_order = lambda order: rules_of_services.hear(self.ledger, order)
        self.store.on_commit = self.ledger.on_commit
        self.rebuilds.ended.append(self._rebuild_ended)
        self.migrations.ended.append(self._rebuild_ended)
        self.rebuilds.landed.append(self.checkers.on_landed)
        self.touched_at = self.agenda.now
        self.events = 0
        self.agents: Agents | None = None
        self.guest_words: GuestWords | None = None
        self.watchdogs: Watchdogs | None = None

    def add_agents(self, storage: str, watchers: int, planes: tuple[Plane, ...]) -> None:
        """On every host; engines that start from now on hear them. As Agents has it."""
        agents = Agents(self.datacentre, self.segments, storage, watchers, planes)
        self.agents = self.ledger.agents = self.acts.agents = agents

    # Engines.

    def add_engine(self, name: str, offset_s: float = 0.0) -> Node:
        """Starts an engine's process; its eyes begin to read."""
        life = Life(self.agenda, name)
        clock = SimClock(self.agenda, offset_s)
        node = Node(name, life, clock, self._engine(life, clock))
        self.nodes[name] = node
        clock.on_wake = lambda: self._tick_at(node, self.agenda.now)
        self._tick_at(node, self.agenda.now)
        return node

    def _engine(self, life: Life, clock: SimClock) -> Engine:
        pace = self.pace
        hosts = sorted(self.datacentre.hosts)
        return Engine(
            segments=self.segments,
            policies=self.policies,
            store=ReachedStore(self.store, self.store_faults, self.agenda, life),
            clock=clock,
            workers=SimWorkers(life, clock),
            watches=[
                SimNovaWatch(life, clock, self.nova, self.nova_faults, pace.nova_poll_s, pace.call_timeout_s),
                SimPowerWatch(life, clock, self.datacentre, hosts, pace.power_poll_s, pace.bmc_timeout_s),
            ],
            beats=[SimBeats(life, clock, self.agents)] if self.agents is not None else (),
            nudges=[SimNudges(self.nudges, clock)],
            compute=SimCompute(
                self.nova,
                self.rebuilds,
                self.migrations,
                self.nova_faults,
                life,
                clock,
                pace.call_timeout_s,
                self._on_evacuate,
                self.ledger.on_start,
                lambda post: rules_of_drains.on_migrate(self.ledger, post),
            ),
            power=SimPower(self.datacentre, life, clock, pace.bmc_timeout_s, self._on_power),
            hands=SimHands(life, clock, self.acts, pace.call_timeout_s),
            readiness=SimReadiness(life, clock, self.nova, self.nova_faults, pace.call_timeout_s),
            storages={
                one.name: SimStorage(self.backends, one, life, clock, pace.storage_timeout_s)
                for one in self._storages()
            },
            membership=SimMembership(self.ring, life),
            me=life.name,
            lease_s=pace.lease_s,
            timeline=lambda line: self._line(life, clock, line),
            call_timeout_s=pace.call_timeout_s,
        )

    def _storages(self) -> list[Backend]:
        """One for each name, with its clients of all segments."""
        found: dict[str, Backend] = {}
        for one in (backend for segment in self.segments for backend in segment.backends):
            known = found.get(one.name, one)
            found[one.name] = Backend(one.name, one.holds, known.clients | one.clients)
        return list(found.values())

    def add_guest_words(self) -> None:
        """What each hypervisor says of its guests comes to every engine that runs."""
        if self.guest_words is None:
            self.guest_words = GuestWords(self.nova, self._heard)

    def _heard(self, beat: Beat) -> None:
        for node in self.nodes.values():
            if node.life.runs:
                node.engine.guests.take(HeardBeat(beat, node.clock.now()))

    def kill_engine(self, name: str) -> None:
        self.nodes[name].life.kill()

    def freeze_engine(self, name: str, seconds: float) -> None:
        self.nodes[name].life.freeze(seconds)

    def heal(self) -> None:
        """Repairs whatever was broken; a process that is only stopped goes on by itself."""
        for name in self.datacentre.hosts:
            self.datacentre.restore(name)
        self.nova_faults.mend(self.agenda.now)
        self.nova.heartbeats_lost_until = 0.0
        self.store_faults.mend()
        self.datacentre.heal_planes()
        if self.agents is not None:
            self.agents.heal()
        self.ring.heal()
        self.backends.moods.clear()
        self.acts.ears.clear()
        self.acts.in_vain.clear()
        self.nudges.heal()
        for node in self.nodes.values():
            node.life.freeze_in_act = node.life.freeze_before = None
        if all(node.life.dead for node in self.nodes.values()):
            self.add_engine("healer")

    def _tick_at(self, node: Node, when: float) -> None:
        when = max(when, node.ticked_at + TICKS_APART_S)
        if node.next_tick is not None and not node.next_tick.cancelled:
            if node.next_tick.at <= when:
                return
            node.next_tick.cancel()
        node.next_tick = self.agenda.at(when, lambda: self._tick(node), periodic=True)

    def _tick(self, node: Node) -> None:
        if node.next_tick is not None:
            node.next_tick.cancel()
        if node.life.dead:
            return
        if node.life.frozen:
            node.next_tick = self.agenda.at(node.life.thaw_at, lambda: self._tick(node))
            return
        node.ticked_at = self.agenda.now
        node.clock.spent_s = 0.0
        try:
            wait_s = node.engine.tick()
        except Killed:
            return
        finally:
            node.clock.spent_s = 0.0
        self._tick_at(node, self.agenda.now + max(wait_s, 0.0))

    # Time.

    def run(self, seconds: float) -> None:
        """To the millisecond, so that two ways to one moment are one moment."""
        self.run_until(round(self.agenda.now + seconds, 3))

    def run_until(self, when: float) -> None:
        while self._step(when):
            pass

    def run_while(self, holds: Callable[[], bool], at_most_s: float) -> bool:
        """Steps while holds() is true; False if it still was when the time had passed."""
        until = self.agenda.now + at_most_s
        while holds():
            if not self._step(until):
                return not holds()
        return True

    def _step(self, until: float) -> bool:
        """The next event, and the checkers if there is anything to ask; False if none is left until then."""
        if not self.agenda.step(until):
            return False
        self.events += 1
        if self.datacentre.touched or self.ledger.due:
            self.after_event()
        return True

    def after_event(self) -> None:
        self.checkers.after_event()
        self.ledger.after_event()

    @property
    def is_calm(self) -> bool:
        """Nothing is under way: what is still to come comes from the script, or recurs for ever."""
        return not self._busy() and self._is_still()

    @property
    def may_be_passed_over(self) -> bool:
        """It is calm but for incidents that wait for the next try of what was refused again and again: what would come
        of that recurs, too, until somebody does something."""
        return self._is_still() and all(self._waits(one) for one in self._busy())

    def _busy(self) -> list[Incident]:
        return [one for one in self.ledger.incidents.values() if one.is_open and one.state not in AT_REST]

    def _waits(self, incident: Incident) -> bool:
        steps = [one for one in self.ledger.steps.values() if one.incident == incident.id and one.is_open]
        now = self.agenda.now + self._offset_s(self.ledger.owner(incident.segment))
        return bool(steps) and all(
            one.state is StepState.PLANNED and one.attempt >= TRIED_OFTEN and one.not_before > now for one in steps
        )

    def _is_still(self) -> bool:
        now = self.agenda.now
        last = max(self.touched_at, self.agenda.start_s + self.said[-1].at if self.said else 0.0)
        if self.agenda.restless or now - last < SETTLE_S:
            return False
        if self.agents is not None and any(host.stalled for host in self.datacentre.hosts.values()):
            return False
        if any(now - self.nova.servers[one].stopped_at < RETURNS_LAST_S for one in self.fallen & self.nova.died_alone):
            return False
        lost_on = {self.nova.servers[one].host for one in self.fallen}
        if any(now - self.nova.services[host].heard_from < RETURNS_LAST_S for host in lost_on):
            return False
        return all(
            row.forced_down or self.nova.is_up(name) == self.datacentre.hosts[name].serves
            for name, row in self.nova.services.items()
        )

    @property
    def fallen(self) -> set[str]:
        """VMs that Nova switched off because it found their guests gone."""
        return self.nova.stopped_by_nova & self.nova.servers.keys()

    # What is said.

    def _line(self, life: Life, clock: SimClock, line: Line) -> None:
        at = line.at - clock.offset_s - self.agenda.start_s
        self.said.append(Said(at, life.name, line.subject, line.word, line.text))

    def _offset_s(self, engine: str) -> float:
        return self.nodes[engine].clock.offset_s if engine in self.nodes else 0.0

    def _sees_since(self, engine: str) -> float:
        """From when on its eyes can have seen all there is to see of Nova."""
        if engine not in self.nodes:
            return self.agenda.now
        life, nova = self.nodes[engine].life, self.nova_faults
        return max(life.born_at, life.thaw_at, nova.down_until, nova.slow_until)

    def _on_evacuate(self, post: Post) -> None:
        self.checkers.on_evacuate(post)
        self.ledger.on_post(post)

    def _on_power(self, order: PowerOrder) -> None:
        self.checkers.on_power(order)
        self.ledger.on_power(order)

    def _breach(self, subject: str, sentence: str) -> None:
        self.said.append(Said(self.agenda.elapsed_s, "", subject, "BREACH", sentence))

    def _rebuild_ended(self, server: ServerRow) -> None:
        self.nudges.put(Nudge(server.host, server.id, "instance.rebuild.end"))
