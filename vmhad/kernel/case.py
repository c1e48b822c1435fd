# SPDX-License-Identifier: Apache-2.0
"""All that one decision rests on, and all that it may answer: values only, so that it can be kept and replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vmhad.kernel.beat import Domain, DomainState, Unit, UnitState
from vmhad.kernel.cloud import Inventory, Server, Standing
from vmhad.kernel.evidence import Evidence, Seen
from vmhad.kernel.gate import GateAsk, GateSeen
from vmhad.kernel.incident import Event, Incident
from vmhad.kernel.order import Order
from vmhad.kernel.policy import CutStorage, Policy
from vmhad.kernel.proof import Proof
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.kernel.topology import Segment
from vmhad.kernel.verdict import Judgement, Verdict


@dataclass(frozen=True, slots=True)
class Case:
    """One incident with what is known about it.

    verdicts: of every host of the segment. proofs: of every host of the segment that has one which holds for
    whatever it may run.
    busy_hosts: hosts with an open incident past suspicion. suspected_at: host with an open incident -> when it was
    opened. quiet: hosts that were heard, and not for a while now, whatever else is said of them.
    powers: host -> what its BMC said last. on_before_fence: host -> when its BMC last read ON in the power_off of its
    own fence, which this engine began (both only while FENCING). elsewhere: the evacuations of the segment's
    other open incidents; idle: the incidents that go on with none of theirs; claimed: server id -> the incident that
    has it (all three only while FENCING, RECOVERING or RECOVERED). beside: server id -> another host whose agent says
    that it has its guest (only while RECOVERING). unplanned: the hosts with an open incident of which it is not known
    yet which VMs it has to recover (only while RECOVERING). ready: server id -> what was seen at its gate lately (only
    while RECOVERING). fallen: VMs of this host that Nova switched off
    because their guests were gone. former: server id -> the state that an ended incident of the host wanted it in and
    could not bring about (only while RECOVERING). in_want: server id -> the step that the host's last incident left
    undone, where that one ended because the host seemed to fall again. hold: '' or why the brake holds the first act of
    this incident's fence. orders: kinds of the operator's orders for it ("retry", "close"). word: the order of one who
    says that the host is down. fences_lately: how many incidents of the host were fenced within
    policy.quarantine_window_s, this one among them (only while LIFTING). ours_since: when this engine took over, by its
    own clock; what was stamped before that is of another one.
    """

    incident: Incident
    steps: tuple[Step, ...]
    segment: Segment
    policy: Policy
    evidence: Evidence
    verdict: Verdict
    verdicts: Mapping[str, Verdict]
    proofs: Mapping[str, Proof]
    busy_hosts: frozenset[str]
    suspected_at: Mapping[str, float]
    powers: Mapping[str, Seen]
    elsewhere: tuple[Step, ...]
    claimed: Mapping[str, str]
    inventory: Inventory | None
    fallen: tuple[Server, ...] = ()
    idle: frozenset[str] = frozenset()
    on_before_fence: Mapping[str, float] = field(default_factory=dict)
    quiet: frozenset[str] = frozenset()
    former: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)
    unplanned: frozenset[str] = frozenset()
    ready: Mapping[str, GateSeen] = field(default_factory=dict)
    in_want: Mapping[str, Step] = field(default_factory=dict)
    hold: str = ""
    orders: frozenset[str] = frozenset()
    word: Order | None = None
    fences_lately: int = 0
    ours_since: float = 0.0

    @property
    def life_at(self) -> float:
        """What is proven to be cut off may have power, and may live as long as it counts as failed (it is isolated, and
        policy says that it is to be fenced): its storages are read before every act."""
        proof = self.incident.proof
        if proof is None or proof.is_whole:
            return self.evidence.life_at
        return 0.0 if self.verdict.judgement is Judgement.FAILED else self.evidence.beat_at

    @property
    def cut_storage(self) -> CutStorage:
        """The host's own word, else its segment's; what left the topology has none of its own."""
        own = (one.cut_storage for one in self.segment.hosts if one.name == self.incident.host)
        return next(own, None) or self.policy.cut_storage

    def step(self, step_id: str) -> Step | None:
        return _step_of(self.steps, step_id)

    def after(self, incident: Incident, moved: tuple[Step, ...], proof: Proof | None) -> Case:
        proofs = dict(self.proofs)
        if proof is not None and proof.is_whole:
            proofs[proof.host] = proof
        return replace(self, incident=incident, steps=_with_steps(self.steps, moved), proofs=proofs)


@dataclass(frozen=True, slots=True)
class VmCase:
    """One incident of a VM with what is known about it.

    verdict: of its host. owner: '' or the open incident of its host, which has it then. standing: how Nova says that it
    stands, None if that was not read yet. domain: what its hypervisor says of the guest, None if nobody tells;
    domain_at: when that was so. beside: '' or another host whose agent says that it has its guest. storage_down: '' or
    the shared storage that its host does not reach. starts: how often it was restarted within policy.instance_window_s;
    resumes: how often it was tried to be resumed. under_way: how many others of its segment are being restarted. hold:
    '' or an operator's pause. orders: as Case has them.
    """

    incident: Incident
    steps: tuple[Step, ...]
    policy: Policy
    verdict: Verdict
    owner: str
    standing: Standing | None
    domain: Domain | None
    domain_at: float = 0.0
    beside: str = ""
    storage_down: str = ""
    starts: int = 0
    resumes: int = 0
    under_way: int = 0
    hold: str = ""
    orders: frozenset[str] = frozenset()

    @property
    def life_at(self) -> float:
        """When its guest was last said to run. What runs after an act of ours runs by it."""
        runs = self.domain is not None and self.domain.state is DomainState.RUNNING
        return self.domain_at if runs and not any(map(_may_have_started_it, self.steps)) else 0.0

    def step(self, step_id: str) -> Step | None:
        return _step_of(self.steps, step_id)

    def after(self, incident: Incident, moved: tuple[Step, ...], proof: Proof | None) -> VmCase:
        return replace(self, incident=incident, steps=_with_steps(self.steps, moved))


def _may_have_started_it(step: Step) -> bool:
    """A guest is resumed before anybody has the answer."""
    return step.acts > 0 or (step.verb is Verb.RESUME and step.state is StepState.STARTED)


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one service of a host. unit: how its systemd has it, None where nobody tells; at: when that was
    so; lasts_s: for how long, as was said then. nova_down_s: for how long Nova has read it down, without a heartbeat of
    it meanwhile; fellows_up: most others of its segment read up. heard_at: Nova's newest heartbeat of it. broken: '' or
    the service of the host that it needs and that does not run."""

    unit: Unit | None = None
    at: float = 0.0
    lasts_s: float = 0.0
    nova_down_s: float = 0.0
    fellows_up: bool = False
    heard_at: float = 0.0
    broken: str = ""


@dataclass(frozen=True, slots=True)
class ServiceCase:
    """One incident of a service of a living host with what is known about it. leaving: the VMs that a drain is moving
    away from its host just now. owner, starts, under_way, hold, orders: as VmCase has them."""

    incident: Incident
    steps: tuple[Step, ...]
    policy: Policy
    health: Health
    leaving: tuple[str, ...] = ()
    owner: str = ""
    starts: int = 0
    under_way: int = 0
    hold: str = ""
    orders: frozenset[str] = frozenset()

    @property
    def life_at(self) -> float:
        """When it was last said to run; where Nova reads it down, when that heard it last. What runs after an act of
        ours runs by it, and so may another start than the one that a step is to end."""
        unit, health = self.health.unit, self.health
        if unit is None or unit.state is not UnitState.RUNS or any(step.acts for step in self.steps):
            return 0.0
        known = {step.args["known"] for step in self.steps if step.state is StepState.STARTED}
        if known and unit.invocation not in known:
            return 0.0
        return health.heard_at if health.nova_down_s else health.at

    def step(self, step_id: str) -> Step | None:
        return _step_of(self.steps, step_id)

    def after(self, incident: Incident, moved: tuple[Step, ...], proof: Proof | None) -> ServiceCase:
        return replace(self, incident=incident, steps=_with_steps(self.steps, moved))


@dataclass(frozen=True, slots=True)
class DrainCase:
    """One host that is to be emptied, with what is known about it. case: as for its failure; claimed has every VM that
    another incident has, hold is an operator's pause.

    owner: '' or the open incident of the host itself, which has its VMs then. well_s: for how long it has been HEALTHY,
    by its agent's word, too; is_heard: whether that is heard. ailing: the segment's other hosts that ail, are
    drained, or are not known to serve. draining: those that are being emptied. moving: those of them that a VM is
    under way from.
    """

    case: Case
    owner: str = ""
    well_s: float = 0.0
    is_heard: bool = True
    ailing: frozenset[str] = frozenset()
    draining: frozenset[str] = frozenset()
    moving: frozenset[str] = frozenset()

    @property
    def incident(self) -> Incident:
        return self.case.incident

    @property
    def life_at(self) -> float:
        """That it lives is what it rests on."""
        return 0.0

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.case.steps

    @property
    def policy(self) -> Policy:
        return self.case.policy

    @property
    def verdict(self) -> Verdict:
        return self.case.verdict

    @property
    def is_lost(self) -> bool:
        """It does not live for certain, or its own incident has it: nothing more is moved from it."""
        return bool(self.owner) or not self.verdict.serves

    @property
    def ails(self) -> bool:
        return self.policy.drain.covers(self.verdict.ailment)

    def after(self, incident: Incident, moved: tuple[Step, ...], proof: Proof | None) -> DrainCase:
        return replace(self, case=self.case.after(incident, moved, proof))


def _step_of(steps: tuple[Step, ...], step_id: str) -> Step | None:
    for step in steps:
        if step.id == step_id:
            return step
    return None


def _with_steps(steps: tuple[Step, ...], moved: tuple[Step, ...]) -> tuple[Step, ...]:
    latest = {step.id: step for step in steps}
    latest.update((step.id, step) for step in moved)
    return tuple(latest.values())


@dataclass(frozen=True, slots=True)
class Move:
    """What a guard wants next. event: the edge to take, if any. steps: new or changed ones.

    needs_inventory: plan nothing more before the cloud (of a VM: its standing) was read after this time; 0.0 when
    nothing is missing.
    wake_at: look again no later than this. stands_until: while nothing of the case changes but the time, the same is
    answered until then (0.0: it has to be asked every time). asks: the gates that somebody waits for.
    """

    because: str
    event: Event | None = None
    steps: tuple[Step, ...] = ()
    proof: Proof | None = None
    held: str = ""
    needs_inventory: float = 0.0
    wake_at: float = 0.0
    stands_until: float = 0.0
    asks: tuple[GateAsk, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The incident and its changed steps, to be committed together before anything is done.

    stands_until: as Move has it; 0.0 where this decision changed anything. asks: as Move has it.
    """

    incident: Incident
    steps: tuple[Step, ...]
    because: str
    wake_at: float
    needs_inventory: float = 0.0
    stands_until: float = 0.0
    asks: tuple[GateAsk, ...] = ()
