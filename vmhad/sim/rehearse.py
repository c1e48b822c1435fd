# SPDX-License-Identifier: Apache-2.0
"""One day of an operator's own cloud, with one named failure in it: what the shipped core would have made of it.

The failure strikes once, and nobody repairs it. What became of a VM is asked of the simulated truth; only why it did
not run again is asked of the journal.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from vmhad.conf.topology import Topology
from vmhad.kernel.cloud import ServerState
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.step import StepState, Verb
from vmhad.sim.datacentre import Bmc
from vmhad.sim.day import Failure, Terms, draft_of, draw
from vmhad.sim.directives import Stage
from vmhad.sim.nova import ServerRow
from vmhad.sim.power import PowerOrder
from vmhad.sim.world import World

LOOK_EVERY_S = 1.0
RESOLUTION_S = 0.001
# Every eye has read everything a few times within it.
CALM_FOR_S = 30.0
# A held incident is released when its storm is over (policy.storm_window_s), and nothing need be said before.
RELEASED_LATE_S = 60.0
# What is tried again and again for so long, without a change of the world, will not come to more.
PATIENCE_S = 900.0
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")


@dataclass
class Fate:
    """How a day ended. after_s: seconds from the strike until each VM that was lost ran elsewhere, by VM id.

    held, stuck: VM id -> why. ran_on: VMs of struck hosts that were never lost. bystanders: VM id -> why, of other
    hosts' VMs that should run and do not. fences: how many hosts power_off was sent to; false_fences: those that were
    switched off while they ran their guests; silenced: how many of these the failure itself had made unreachable.
    """

    seed: int
    struck: int = 0
    opted_out: int = 0
    ran_on: int = 0
    recovered: int = 0
    after_s: dict[str, float] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    stuck: dict[str, str] = field(default_factory=dict)
    bystanders: dict[str, str] = field(default_factory=dict)
    fences: int = 0
    false_fences: list[str] = field(default_factory=list)
    silenced: int = 0
    breaches: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    stepped_s: float = 0.0
    cpu_s: float = 0.0


def play(seed: int, topology: Topology, failure: Failure, terms: Terms) -> Fate:
    """Runs the day of a seed to its end and tells what became of every VM."""
    began = time.process_time()
    day = draw(seed, topology, failure, terms)
    stage = Stage()
    stage.draft = draft_of(topology, seed)
    stage.world.rebuilds.spawn_s = day.spawn_s
    watched = _Watched(stage.world, failure, topology, terms.whole)
    for at, line in day.directives:
        watched.run_to(at)
        if at == day.strike_s and not watched.struck_at:
            watched.strike()
        stage.perform(line)
        watched.disturbed(line)
    watched.run_to(terms.hours * 3600.0)
    fate = watched.fate(seed)
    fate.cpu_s = time.process_time() - began
    return fate


class _Watched:
    """A world that is run and looked at. now_s: seconds of the day, with what was passed over because all was calm."""

    def __init__(self, world: World, failure: Failure, topology: Topology, whole: bool) -> None:
        self.world = world
        self.failure = failure
        self.whole = whole
        self.policies = {
            host: topology.policies[segment.name] for segment in topology.segments for host in segment.names
        }
        self.release_s = RELEASED_LATE_S + max(policy.storm_window_s for policy in topology.policies.values())
        self.passed_s = 0.0
        self.disturbed_s = 0.0
        self.calm_from_s = 0.0
        self.ran = {one.id for one in world.datacentre.vms.values() if one.guests}
        self.struck_at = 0.0
        self.struck: dict[str, str] = {}
        self.after_s: dict[str, float] = {}
        self.lost: set[str] = set()
        self.fences: set[tuple[str, int]] = set()
        self.false_fences: dict[tuple[str, int], str] = {}
        self.said: list[str] = []
        self._told = 0
        self._orders_seen = 0
        world.rebuilds.ended.append(lambda server: self._look_at(server.id))

    @property
    def now_s(self) -> float:
        return self.world.agenda.elapsed_s + self.passed_s

    def run_to(self, at_s: float) -> None:
        """At a calm world's next directive the day goes on at once."""
        while at_s - self.now_s > RESOLUTION_S:
            if not self.whole and self._is_calm():
                self.passed_s += at_s - self.now_s
                return
            self.world.run_while(self._look, min(LOOK_EVERY_S, at_s - self.now_s))
            for server_id in tuple(self.lost):
                self._look_at(server_id)
            self._tell()

    def strike(self) -> None:
        """The failure is about to strike: remembers whose VMs it hits."""
        self.struck_at = self.now_s
        hosts = set(self.failure.hosts)
        self.struck = {row.id: row.host for row in self.world.nova.servers.values() if row.host in hosts}
        self.lost = {one for one in self.struck if self.world.nova.servers[one].state is not ServerState.STOPPED}
        if self.failure.kind == "switch":
            self.lost = set()

    def disturbed(self, line: str) -> None:
        self.disturbed_s = self.world.agenda.elapsed_s
        self.said.append(f"+{self.now_s:.1f}s  -> {line}")

    def _is_calm(self) -> bool:
        """Calm for a while: what has just changed must have had the time to be seen."""
        now_s, said = self.world.agenda.elapsed_s, self.world.said
        if not self.world.is_calm:
            self.calm_from_s = now_s
        if now_s - self.calm_from_s < CALM_FOR_S:
            return False
        waiting = [one for one in self.world.ledger.incidents.values() if one.state in (State.SUSPECTED, State.STUCK)]
        quiet_s = now_s - max(self.disturbed_s, said[-1].at if said else 0.0)
        return not waiting or quiet_s > self.release_s or now_s - self.disturbed_s > PATIENCE_S

    def _look(self) -> bool:
        """Before every event; the truth is still that of the newest order's moment."""
        orders = self.world.checkers.power_orders
        for order in orders[self._orders_seen :]:
            self._judge_fence(order)
        self._orders_seen = len(orders)
        return True

    def _judge_fence(self, order: PowerOrder) -> None:
        """False is a fence that lands on a host which ran its guests, whatever could be known of it."""
        host = self.world.datacentre.hosts[order.host]
        if order.verb != "power_off":
            return
        self.fences.add((host.name, host.life))
        lands = host.feed and host.bmc is Bmc.OK
        if lands and host.powered and host.alive and not host.hung:
            self.false_fences[host.name, host.life] = host.name
            self.lost |= {one for one, home in self.struck.items() if home == host.name and one not in self.after_s}

    def _look_at(self, server_id: str) -> None:
        if server_id in self.lost and self._runs(server_id):
            self.lost.discard(server_id)
            self.after_s[server_id] = self.now_s - self.struck_at

    def _runs(self, server_id: str) -> bool:
        hosts = (self.world.datacentre.hosts[name] for name in self.world.datacentre.vms[server_id].guests)
        return any(host.powered and host.alive and not host.hung for host in hosts)

    def _tell(self) -> None:
        for line in self.world.said[self._told :]:
            self.said.append(f"+{line.at + self.passed_s:.1f}s  {line.subject} {line.word} {line.text}".rstrip())
        self._told = len(self.world.said)

    # The end of it.

    def fate(self, seed: int) -> Fate:
        fate = Fate(seed, after_s=self.after_s, breaches=list(self.world.checkers.breaches), said=self.said)
        fate.stepped_s = self.world.agenda.elapsed_s
        fate.fences = len(self.fences)
        fate.false_fences = sorted(self.false_fences.values())
        if self.failure.kind == "switch":
            fate.silenced = sum(host in self.failure.hosts for host in fate.false_fences)
        ends = _Ends(self.world)
        for server_id, row in self.world.nova.servers.items():
            opted_out = row.metadata.get(self.policies[row.host].opt_out_key, "").lower() == "false"
            if server_id in self.struck:
                self._end_of_struck(fate, row, opted_out, ends)
            elif server_id in self.ran and not self._runs(server_id) and not opted_out:
                fate.bystanders[server_id] = ends.why(server_id, row.host)[1]
        return fate

    def _end_of_struck(self, fate: Fate, row: ServerRow, opted_out: bool, ends: _Ends) -> None:
        fate.struck += 1
        home = self.world.datacentre.hosts[self.struck[row.id]]
        is_off = row.state is ServerState.STOPPED
        if row.id in self.after_s or (is_off and row.host != home.name):
            fate.recovered += 1
        elif self._runs(row.id) or (is_off and home.alive and not home.hung):
            fate.ran_on += 1
        elif opted_out:
            fate.opted_out += 1
        else:
            held, why = ends.why(row.id, self.struck[row.id])
            (fate.held if held else fate.stuck)[row.id] = why


class _Ends:
    """Why a VM is not where it should be, in the words that the core left in its journal, without its proper names."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._newest: dict[str, Incident] = {}
        for incident in sorted(world.ledger.incidents.values(), key=lambda one: one.opened_at):
            self._newest[incident.host] = incident
        self._steps = {
            (step.incident, step.subject): step for step in world.ledger.steps.values() if step.verb is Verb.EVACUATE
        }
        self._plain = _Plain(world)

    def why(self, server_id: str, host: str) -> tuple[bool, str]:
        """(whether it is held rather than stuck, why)."""
        incident = self._newest.get(host)
        if incident is None:
            return False, "nothing was noticed"
        if incident.state is State.SUSPECTED:
            return True, self._plain(incident.held or incident.because)
        step = self._steps.get((incident.id, server_id))
        if step is not None and step.state is StepState.DONE:
            row = self._world.nova.servers[server_id]
            return False, self._plain(
                f"it was brought elsewhere, and now Nova has it {row.state.value} {row.fault}".strip()
            )
        if step is not None and step.because:
            return False, self._plain(step.because)
        told = "" if incident.state is State.STUCK else f"{incident.state.value}: "
        return False, self._plain(told + incident.because)


class _Plain:
    """One reason for all that differ in names and pauses only. A name without a digit could be any word: it stays."""

    def __init__(self, world: World) -> None:
        names = {row.name: "a VM" for row in world.nova.servers.values() if any(one.isdigit() for one in row.name)}
        hosts = dict.fromkeys(world.datacentre.hosts, "a host")
        self._words = names | dict.fromkeys(world.nova.servers, "a VM") | hosts

    def __call__(self, text: str) -> str:
        text = re.sub(r"; again in [0-9.]+ s", "", text)
        text = re.sub(r"\bmigration-[0-9]+\b", "a migration", text)
        return NAME.sub(lambda found: self._words.get(found[0], found[0]), text)
