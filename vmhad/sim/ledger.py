# SPDX-License-Identifier: Apache-2.0
"""What the journal says is held against the truth, commit by commit and act by act, without asking the core's own code.

Every rule here is worked out a second time, from the store's entries and from the simulated datacentre: who owned the
segment, what was STARTED under which proof, what the brake had to hold, how much was under way at once. A rule gives
the core the time its eyes and its reading of orders need, never more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vmhad.engine.ownership import OwnerRecord
from vmhad.journal import codec, keys
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.order import Order, OrderKind
from vmhad.kernel.policy import Policy, SilentMeans
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.kernel.topology import Segment
from vmhad.sim import agent_rules, rules, rules_of_drains, rules_of_hosts, rules_of_storages, rules_of_vms
from vmhad.sim.agents import Agents
from vmhad.sim.compute import Post
from vmhad.sim.nova import HEARTBEAT_S, SERVICE_DOWN_S, SimNova
from vmhad.sim.power import PowerOrder
from vmhad.sim.rules import EYES_LATE_S
from vmhad.sim.store import MemoryStore

INCIDENTS = keys.ROOT + "incident/"
STEPS = keys.ROOT + "step/"
ORDERS = keys.ROOT + "order/"
# How long an engine may need to learn of an order: it reads them every 2 s, and the decision may just be under way.
ORDER_READ_S = 4.0
# An OFF read this long ago may still be what a decision rests on (policy.channel_stale_s, and the way to the decision).
OFF_LATELY_S = 20.0


@dataclass(frozen=True)
class Started:
    """An evacuation as it was STARTED. attempt counts within its step."""

    at: float
    engine: str
    incident: str
    target: str
    attempt: int


@dataclass
class Ledger:
    """report: (subject, sentence). offset_s: how far an engine's clock is from the world's.

    fenced: the incidents whose fence was begun, in order. again_at: when a fence was taken up again because its proof
    was lost, which no brake holds and no other decision of that moment could know.
    opened: incident id -> when that was decided, by the world's clock.
    proven: incident id -> who proved its host off, and when, by the world's clock.
    over_at: step id -> when it ended last, by the world's clock. failed_at: when it was given up last, with a reason.
    due: asked once a whole decision is written. confirmed, cut_late: hosts called down, and cut off by who had slept.
    """

    nova: SimNova
    store: MemoryStore
    segments: Sequence[Segment]
    policies: Mapping[str, Policy]
    offset_s: Callable[[str], float]
    report: Callable[[str, str], None]
    incidents: dict[str, Incident] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    open_steps: dict[str, Step] = field(default_factory=dict)
    started: dict[str, list[Started]] = field(default_factory=dict)
    orders: dict[str, tuple[float, Order]] = field(default_factory=dict)
    fenced: list[str] = field(default_factory=list)
    again_at: dict[str, float] = field(default_factory=dict)
    proven: dict[str, tuple[str, float]] = field(default_factory=dict)
    fencing_since: dict[str, float] = field(default_factory=dict)
    opened: dict[str, float] = field(default_factory=dict)
    over_at: dict[str, float] = field(default_factory=dict)
    failed_at: dict[str, float] = field(default_factory=dict)
    shot_at: dict[str, float] = field(default_factory=dict)
    sent: set[tuple[str, int]] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    concluded_by: dict[str, str] = field(default_factory=dict)
    sees_since: Callable[[str], float] = lambda engine: 0.0
    due: list[Callable[[], None]] = field(default_factory=list)
    agents: Agents | None = None
    restarted: dict[str, list[float]] = field(default_factory=dict)
    confirmed: set[str] = field(default_factory=set)
    cut_late: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._segment_of = {name: one for one in self.segments for name in one.names}

    @property
    def now(self) -> float:
        return self.nova.agenda.now

    # What is written.

    def on_commit(self, engine: str, puts: Mapping[str, bytes], deletes: Sequence[str]) -> None:
        """engine '': somebody who is no engine, such as an operator."""
        self._tell("the journal", rules.of_commit(self, puts))
        written = [codec.decode(Incident, key, raw) for key, raw in puts.items() if key.startswith(INCIDENTS)]
        for incident in written:
            self._incident(engine, self.incidents.get(incident.id), incident)
        for key, raw in puts.items():
            if key.startswith(STEPS):
                step = codec.decode(Step, key, raw)
                self._step(engine, self.steps.get(step.id), step)
            elif key.startswith(ORDERS):
                order = codec.decode(Order, key, raw)
                self.orders[key] = (self.now, order)
                if order.kind is OrderKind.CONFIRM_DOWN:
                    self.confirmed.add(order.host)
        for key in deletes:
            self.orders.pop(key, None)
            if key.startswith(INCIDENTS):
                self.incidents = {name: one for name, one in self.incidents.items() if not key.endswith("/" + name)}

    def _incident(self, engine: str, old: Incident | None, new: Incident) -> None:
        self.incidents[new.id] = new
        if not new.is_of_host:
            subject = f"vm {new.vm_name}" if new.vm else f"{'drain' if new.drain else 'service'} {new.subject}"
            self._written_by_owner(engine, new.segment, subject)
            if not new.is_open:
                self.open_steps = {name: one for name, one in self.open_steps.items() if one.incident != new.id}
            return
        is_new = new.proof is not None and bool(new.proof.at) and (old is None or new.proof != old.proof)
        if new.proof and is_new:
            self.proven[new.id] = (engine, new.proof.at - self.offset_s(engine))
        self._written_by_owner(engine, new.segment, f"host {new.host}")
        was = old.state if old else State.SUSPECTED
        self.opened.setdefault(new.id, min(self.now, new.opened_at - self.offset_s(engine)))
        if new.state is State.FENCING and was is not State.FENCING:
            self.fenced.append(new.id)
            self.fencing_since[new.id] = self.now
            if was not in (State.SUSPECTED, State.STUCK):
                self.again_at[new.id] = self.now
        if new.state is State.FENCING and was in (State.SUSPECTED, State.STUCK) and not self._ordered(new.host):
            self.due.append(lambda: self._begun(engine, new, was))
        if new.state is not was:
            self._tell(f"host {new.host}", rules.of_turn(self, engine, new))
        elif new.state is State.RECOVERING and is_new:
            self._tell(f"host {new.host}", rules.of_proof(self, engine, new, old))
        if new.state is State.RECOVERING and (new.proof is None or new.proof.round != new.round):
            self.report(f"host {new.host}", "it is recovered without a proof of this round")
        if not new.is_open:
            self.open_steps = {name: one for name, one in self.open_steps.items() if one.incident != new.id}

    def after_event(self) -> None:
        due, self.due = self.due, []
        for ask in due:
            ask()

    def _begun(self, engine: str, new: Incident, was: State) -> None:
        for why in (*self._not_dead(new, was), *self._braked(engine, new), *rules.of_fence(self, engine, new, was)):
            self.report(f"host {new.host}", f"a fence was begun although {why}")

    def _begun_before(self, other: Incident, new: Incident) -> bool:
        """Or in one decision with it: a segment decides all of its incidents at once, others come before or after."""
        if other.segment == new.segment or new.id not in self.fenced or other.id not in self.fenced:
            return True
        return self.fenced[::-1].index(other.id) > self.fenced[::-1].index(new.id)

    def _dies_beside(self, other: Incident, new: Incident) -> bool:
        """A death that was seen, fenced by the same decision: no canary of silent hosts, whoever was decided first."""
        return self.was_seen_off(other.host) and self.fencing_since.get(other.id) == self.fencing_since.get(new.id)

    def _ordered(self, host: str) -> bool:
        """An operator ordered to try again, or says that it is down: that goes past the brake."""
        past = (OrderKind.RETRY, OrderKind.CONFIRM_DOWN)
        return any(one.kind in past and one.host == host for _, one in self.orders.values())

    def _step(self, engine: str, old: Step | None, new: Step) -> None:
        self.steps[new.id] = new
        if not new.is_open:
            self.over_at[new.id] = self.now
        if new.state is StepState.FAILED and new.because:
            self.failed_at[new.id] = self.now
        was_moving = old is not None and (old.verb, old.state) == (Verb.EVACUATE, StepState.STARTED)
        if was_moving and new.state is not StepState.STARTED:
            self.concluded_by[new.subject] = engine
        if new.verb is Verb.EVACUATE and new.state is StepState.DONE and new.incident in self.incidents:
            self._tell(f"vm {new.args.get('name', new.subject)}", rules.of_end(self, new, self.incidents[new.incident]))
        incident = self.incidents.get(new.incident)
        if new.state is not StepState.STARTED or incident is None:
            self.open_steps.pop(new.id, None)
            return
        fresh = old is None or old.state is not StepState.STARTED or old.attempt != new.attempt
        self.open_steps[new.id] = new
        if fresh:
            self._written_by_owner(engine, incident.segment, f"host {incident.host}")
        if fresh and incident.is_of_host:
            self._tell(f"host {incident.host}", rules_of_hosts.of_start(self, new, incident))
        if fresh and new.verb is Verb.EVACUATE:
            began = Started(self.now, engine, incident.id, new.args.get("target", ""), new.attempt)
            self.started.setdefault(new.subject, []).append(began)
            self.due.append(lambda: self._begun_step(engine, new, self.incidents[incident.id]))
        if fresh and new.verb is Verb.LIVE_MIGRATE:
            self.due.append(lambda: self._tell(f"vm {new.args['name']}", rules_of_drains.of_start(self, new)))

    def _begun_step(self, engine: str, new: Step, incident: Incident) -> None:
        whys = (*self._may_not_start(new, incident), *rules.of_start(self, engine, new, incident))
        self._tell(f"vm {new.args.get('name', new.subject)}", whys)

    def _tell(self, subject: str, whys: Iterable[str]) -> None:
        for why in whys:
            self.report(subject, why)

    def _written_by_owner(self, engine: str, segment: str, subject: str) -> None:
        owner = self.owner(segment)
        if owner != engine:
            self.report(subject, f"{engine or 'nobody'} wrote to the journal while {owner or 'nobody'} owns {segment}")

    def segment_of(self, host: str) -> Segment:
        return self._segment_of[host]

    def owner(self, segment: str) -> str:
        raw = self.store.get(keys.owner(segment))
        return codec.decode(OwnerRecord, "owner", raw).owner if raw else ""

    # What is sent.

    def on_post(self, post: Post) -> None:
        """An evacuate request reached nova-api."""
        server = self.nova.servers.get(post.server)
        if server is None:
            return
        subject = f"vm {server.name}"
        begun = self.started.get(post.server, [])
        self._tell(subject, rules.of_post(self, post))
        if post.late:
            if not any((one.engine, one.target) == (post.engine, post.target) for one in begun):
                self.report(subject, f"a late request to {post.target} is no twin of what was STARTED")
            return
        step = self.open_step(Verb.EVACUATE, post.server, post.target)
        if step is None:
            self.report(subject, f"an evacuation to {post.target} was sent that is not STARTED in the journal")
            return
        incident = self.incidents[step.incident]
        if incident.state is not State.RECOVERING:
            self.report(subject, f"an evacuation was sent while its incident is {incident.state.value}")
        self.acted(post.engine, incident.host, subject)

    def on_start(self, post: Post) -> None:
        """A request to start a VM, or to start it anew, reached nova-api."""
        step = self.open_step(Verb.RESTART, post.server)
        if step is not None and post.server in self.nova.servers:
            self._tell(f"vm {self.nova.servers[post.server].name}", rules_of_vms.of_restart(self, post, step))

    def on_resume(self, engine: str, host: str, server: str, late: bool) -> None:
        """An order to resume a guest reached the agent of its host."""
        subject = f"vm {self.nova.servers[server].name if server in self.nova.servers else server}"
        step = self.open_step(Verb.RESUME, server)
        if late or step is None:
            if not late:
                self.report(subject, "an order to resume it was sent that is not STARTED in the journal")
            return
        self.acted(engine, host, subject)
        self._tell(subject, rules_of_vms.of_resumption(self, host, server))

    def on_power(self, order: PowerOrder) -> None:
        subject = f"host {order.host}"
        self.shot_at[order.host] = self.now if order.verb == "power_off" else self.shot_at.get(order.host, 0.0)
        verb = Verb.POWER_OFF if order.verb == "power_off" else Verb.POWER_ON
        if self.open_step(verb, order.host) is None:
            self.report(subject, f"{order.verb} was sent that is not STARTED in the journal")
        self.acted(order.engine, order.host, subject)

    def acted(self, engine: str, host: str, subject: str) -> None:
        segment = self._segment_of.get(host)
        if segment is not None and self.owner(segment.name) != engine:
            self.report(subject, f"{engine} acted while {self.owner(segment.name) or 'nobody'} owns {segment.name}")

    def open_step(self, verb: Verb, subject: str, target: str = "", backend: str = "") -> Step | None:
        for step in self.open_steps.values():
            fits = target in ("", step.args.get("target")) and backend in ("", step.args.get("backend"))
            if step.verb is verb and step.subject == subject and fits:
                return step
        return None

    # The rules of a recovery.

    def _may_not_start(self, new: Step, incident: Incident) -> Iterator[str]:
        policy, target = self.policies[incident.segment], new.args.get("target", "")
        if incident.state is not State.RECOVERING or incident.proof is None or incident.proof.round != incident.round:
            yield f"its evacuation is started while its incident is {incident.state.value}, without a held proof"
        if self._segment_of.get(target) is not self._segment_of.get(incident.host) or target == incident.host:
            yield f"its evacuation is started to {target or 'nowhere'}, which is no other host of its segment"
        moving = self.moving()
        for other in moving:
            if other.subject == new.subject and other.incident != new.incident:
                yield f"it is evacuated by two incidents at once, {other.incident} and {new.incident}"
        here = [one for one in moving if self.incidents[one.incident].segment == incident.segment]
        here = [one for one in here if self.goes_on(self.incidents[one.incident])]
        if len(here) > policy.evacuations_max:
            yield f"{len(here)} evacuations are under way, more than evacuations_max allows ({policy.evacuations_max})"
        cap, coming = policy.evacuations_per_target_max, sum(one.args.get("target") == target for one in here)
        if coming > cap:
            yield f"{target} receives {coming} VMs at once, more than evacuations_per_target_max allows ({cap})"
        yield from rules_of_storages.of_evacuation(self, new, incident)
        yield from rules.of_meeting(self, new, target, moving)

    def moving(self) -> list[Step]:
        """Of open incidents: what one left STARTED that ended is no evacuation that anybody makes."""
        moves = (one for one in self.open_steps.values() if one.verb is Verb.EVACUATE)
        return [one for one in moves if self.incidents[one.incident].is_open]

    @staticmethod
    def goes_on(incident: Incident) -> bool:
        """What an incident left STARTED when its host was taken back is under way no more."""
        return incident.state in (State.FENCING, State.RECOVERING)

    # The rules of a fence.

    def _not_dead(self, new: Incident, was: State) -> Iterator[str]:
        """FAILED needs an OFF that was read lately, or Nova's silence where the policy takes it for death."""
        row = self.nova.services[new.host]
        is_fenced_on = was is State.STUCK and (new.proof is not None or rules_of_storages.may_be_cut(self, new))
        if self.was_seen_off(new.host) or is_fenced_on:
            return
        if self.agents is not None and not self.agents.bus_is_down:
            yield from agent_rules.of_fence(self, self.agents, new, was)
            return
        if self.policies[new.segment].silent_means is SilentMeans.HOLD and was is State.SUSPECTED:
            yield "its power was never off and silence is no death here (silent_means = hold)"
        elif self.now - row.last_seen < 1.2 * HEARTBEAT_S and self.now - row.heard_from > EYES_LATE_S:
            yield "it has power and its nova-compute is heard"

    def _braked(self, engine: str, new: Incident) -> Iterator[str]:
        segment, policy = self._segment_of[new.host], self.policies[new.segment]
        for since, order in self.orders.values():
            until = order.until - self.offset_s(engine)
            fits = order.segment == new.segment and order.host in ("", new.host)
            if order.kind is OrderKind.PAUSE and fits and self.now < until and self.now - since > ORDER_READ_S:
                yield f"{order.host or order.segment} is paused"
        others = [one for one in self.incidents.values() if one.is_open and one.id != new.id and one.is_of_host]
        others = [one for one in others if self.again_at.get(one.id) != self.now]
        fencing = [one for one in others if one.state is State.FENCING and self._begun_before(one, new)]
        if len(fencing) >= policy.fences_in_flight_max:
            yield f"{len(fencing)} other fences are open, and fences_in_flight_max is {policy.fences_in_flight_max}"
        here = [one for one in others if one.segment == new.segment]
        recovering = [one for one in here if one.state in (State.FENCING, State.RECOVERING)]
        if len(recovering) >= policy.recoveries_max:
            yield f"{len(recovering)} other recoveries are open, and recoveries_max is {policy.recoveries_max}"
        yield from rules.of_storm(self, new, segment, policy, here)
        if self.was_seen_off(new.host):
            return
        silent = self._silent(segment, policy, engine)
        first = [one for one in fencing if one.segment == new.segment and not self._dies_beside(one, new)]
        if len(silent) >= policy.canary_from_hosts and first:
            yield f"a canary is being fenced first, {len(silent)} hosts are silent"
        stopped = self._stopped(silent)
        if new.host in stopped:
            # An old death that waits for its host is no part of what happens now.
            silent = [name for name in silent if name not in stopped or self._is_new(name, new, policy)]
        yield from rules.of_one_cause(segment, policy, silent, new.host, stopped)

    def _stopped(self, names: Sequence[str]) -> set[str]:
        if self.agents is None:
            return set()
        return {name for name in names if agent_rules.is_stopped(self, self.agents, name)}

    def _is_new(self, name: str, new: Incident, policy: Policy) -> bool:
        """The host of the new fence itself is counted apart."""
        mine = [one for one in self.incidents.values() if one.is_of_host and one.host == name and one.is_open]
        return name != new.host and all(self.is_of_storm(one, policy) for one in mine)

    def is_of_storm(self, incident: Incident, policy: Policy) -> bool:
        """An old fence is over, and an old death that waits for one is known; what is being fenced now is neither."""
        begins = self.now - policy.storm_window_s + EYES_LATE_S
        return incident.state is State.FENCING or self.opened[incident.id] > begins

    def was_seen_off(self, name: str) -> bool:
        """Or may have been read OFF, by a BMC that says so of a host that runs."""
        host = self.nova.datacentre.hosts[name]
        was_off = not host.powered or self.now - host.powered_at < OFF_LATELY_S
        return was_off or host.misleads or self.now - host.misled_at < OFF_LATELY_S

    def _silent(self, segment: Segment, policy: Policy, engine: str) -> list[str]:
        """Hosts that every eye has to call silent by now, with their power on: Nova's, or one that counts beats."""
        limit = min(SERVICE_DOWN_S, policy.heartbeat_quiet_s) + EYES_LATE_S
        if self.now - self.sees_since(engine) < limit:
            limit = SERVICE_DOWN_S + EYES_LATE_S
        return [
            name for name in segment.names if not self.was_seen_off(name) and self.now - self._told_at(name) > limit
        ]

    def _told_at(self, name: str) -> float:
        """When its newest heartbeat can have been read: where Nova did not show the host, not before it does again. Or
        when its agent was heard last, where it has one."""
        nova, beat_at = self.nova, self.nova.services[name].last_seen
        was_hidden = nova.hidden_from.get(name, self.now) <= beat_at < nova.hidden_until.get(name, 0.0)
        told_at = min(self.now, nova.hidden_until[name]) if was_hidden else beat_at
        return max(told_at, self.agents.agents[name].heard_at) if self.agents is not None else told_at
