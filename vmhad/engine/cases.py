# SPDX-License-Identifier: Apache-2.0
"""The cases of one segment in one tick: what is the same for all its incidents is worked out once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from vmhad.engine.book import Book, Survey, worth_writing
from vmhad.engine.evidence_store import EvidenceStore, Judged
from vmhad.engine.gates import Gates
from vmhad.engine.guests import Guests
from vmhad.journal import keys
from vmhad.kernel.brake import Scene, brake
from vmhad.kernel.case import Case, Decision
from vmhad.kernel.cloud import Inventory
from vmhad.kernel.gate import GateSeen
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.policy import Policy
from vmhad.kernel.proof import Proof
from vmhad.kernel.signal import Channel, Reading
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.kernel.topology import Segment
from vmhad.kernel.verdict import Verdict

# Looked up once: a member of an enumeration costs ten times what another name does.
POWER, SELF_FENCE = Channel.POWER, Channel.SELF_FENCE
HEEDS_OTHERS = (State.FENCING, State.RECOVERING, State.RECOVERED)
FENCING, RECOVERING = State.FENCING, State.RECOVERING
RESTING = (State.SUSPECTED, State.STUCK, State.RECOVERED)


@dataclass
class Cases:
    """current: all open incidents, by id, and what is decided of them in this tick. fences: the cloud's open ones.
    contested: the claims that the journal said another segment has."""

    segment: Segment
    policy: Policy
    book: Book
    evidence: EvidenceStore
    judged: Judged
    current: dict[str, Incident]
    fences: frozenset[str]
    contested: Collection[str]
    now: float
    guests: Guests = field(default_factory=Guests)
    gates: Gates | None = None

    def __post_init__(self) -> None:
        self._survey()

    @property
    def scene(self) -> Scene:
        """The segment as the brake sees it now."""
        return self._seen.scene

    @cached_property
    def _proofs(self) -> Mapping[str, Proof]:
        return self.book.proofs(lambda host: self.evidence.of(host).life_at)

    @cached_property
    def _quiet(self) -> frozenset[str]:
        """Those that fell silent. Of one that was not heard yet nobody knows whether it is."""
        known = ((name, self.evidence.of(name)) for name in self._seen.scene.quiet)
        return frozenset(name for name, seen in known if seen.heard_at or seen.agent_from)

    @cached_property
    def _unplanned(self) -> frozenset[str]:
        """As the tick begins: a moment later is soon enough. A fence that is held may wait for the very recoveries that
        would wait for it."""
        under_way = (one for one in self.current.values() if one.is_of_host and one.state in (FENCING, RECOVERING))
        planned = {step.incident for step in self._evacuations.values()}
        return frozenset(one.host for one in under_way if one.id not in planned and not one.held)

    @cached_property
    def _evacuations(self) -> dict[str, Step]:
        return {step.id: step for step in self.book.evacuations()}

    @cached_property
    def _ready(self) -> Mapping[str, GateSeen]:
        if self.gates is None:
            return {}
        return self.gates.of(self._evacuations.values(), self.now, self.policy.channel_stale_s)

    def still_stands(self, incident: Incident, until: float) -> bool:
        """Its last decision changed nothing, and would be the same again until then."""
        grounds, stands_until = self.book.answers.get(incident.id, ((), 0.0))
        return until <= stands_until and grounds == self._grounds(incident)

    def take(self, decision: Decision) -> None:
        """What was decided of one incident is seen by those decided after it in the same tick."""
        was = self.current[decision.incident.id]
        self.book.answers.pop(was.id, None)
        if not worth_writing(was, decision.incident) and not decision.steps:
            # A new time to look again is no news: the incident stays the very one that it was.
            if was.state in RESTING:
                self.book.answers[was.id] = self._grounds(was), decision.stands_until
            return
        self.current[was.id] = decision.incident
        if moved := {step.id: step for step in decision.steps if step.verb is Verb.EVACUATE}:
            self._evacuations.update(moved)
        if decision.incident.state is not was.state:
            if decision.incident.state is State.FENCING:
                self.fences |= {was.id}
            self._survey()

    def _grounds(self, incident: Incident) -> tuple[object, ...]:
        """All that the guard asks of a case that is at rest. Of the evidence of one that is SUSPECTED it asks nothing
        but the verdict, of another one when it was heard, what its power reads now, and whether its watchdog
        has reset it. No brake holds what is RECOVERED."""
        host, book = incident.host, self.book
        evidence = self.evidence.of(host) if incident.state is not State.SUSPECTED else None
        return (
            incident,
            book.steps_of(incident),
            self.judged.verdicts[host],
            evidence and evidence.heard_at,
            evidence and evidence.reading(POWER, self.now, self.policy.channel_stale_s),
            evidence and evidence.seen.get(SELF_FENCE),
            "" if incident.state is State.RECOVERED else self._hold(incident),
            book.worth_starting(host, self.policy, self.now),
            book.orders_for(incident),
            book.word_for(incident),
        )

    def of(self, incident: Incident) -> Case:
        host, book, verdicts = incident.host, self.book, self.judged.verdicts
        inventory = book.inventories.get(host)
        evacuations = self._evacuations.values() if incident.state in HEEDS_OTHERS else ()
        # As in the journal: a VM is taken with the start of its evacuation, not with the plan of it.
        claimed = {step.subject: step.incident for step in evacuations if step.state is StepState.STARTED}
        return Case(
            incident=incident,
            steps=book.steps_of(incident),
            segment=self.segment,
            policy=self.policy,
            evidence=self.evidence.of(host),
            verdict=verdicts[host],
            verdicts=verdicts,
            proofs=self._proofs,
            powers=self.evidence.powers(self.segment) if _is_fenced_still(incident) else {},
            on_before_fence=self._on_before_fence() if _is_fenced_still(incident) else {},
            elsewhere=tuple(step for step in evacuations if step.incident != incident.id),
            suspected_at=self._seen.suspected_at,
            busy_hosts=self._seen.busy_hosts,
            quiet=self._quiet,
            claimed=self._contested(inventory) | claimed,
            inventory=inventory,
            fallen=book.worth_starting(host, self.policy, self.now),
            idle=self.current.keys() - self._seen.scene.recovering if evacuations else frozenset(),
            beside=self._beside(host, inventory) if incident.state is State.RECOVERING else {},
            unplanned=self._unplanned - {host} if incident.state is State.RECOVERING else frozenset(),
            ready=self._ready if incident.state is State.RECOVERING else {},
            former=book.former(host, inventory) if incident.state is State.RECOVERING else {},
            in_want=book.in_want.get(host, {}),
            hold=self._hold(incident),
            orders=book.orders_for(incident),
            word=book.word_for(incident),
            fences_lately=book.fences(host, self.policy, self.now) if incident.state is State.LIFTING else 0,
            ours_since=book.eras.since,
        )

    def beside(self, incident: Incident, started: Sequence[Step], claimed: Mapping[str, str]) -> Case:
        """The case of a drain. started: the moves of the other ones. claimed: VMs with an incident of their own."""
        host, book, verdicts = incident.host, self.book, self.judged.verdicts
        inventory = book.inventories.get(host)
        evacuations = [step for step in self._evacuations.values() if step.state is StepState.STARTED]
        taken = {step.subject: step.incident for step in evacuations}
        return Case(
            incident=incident,
            steps=book.steps_of(incident),
            segment=self.segment,
            policy=self.policy,
            evidence=self.evidence.of(host),
            verdict=verdicts[host],
            verdicts=verdicts,
            proofs={},
            powers={},
            elsewhere=(*evacuations, *started),
            suspected_at={},
            busy_hosts=self._seen.busy_hosts,
            quiet=self._quiet,
            claimed=self._contested(inventory) | taken | claimed,
            inventory=inventory,
            hold=book.pause(host, self.now),
            orders=book.orders_for(incident),
        )

    def _on_before_fence(self) -> dict[str, float]:
        """Without what another engine stamped."""
        found = {}
        for incident in self.current.values():
            if incident.is_of_host and all(one.epoch == self.book.epoch for one in incident.owners):
                steps = (one for one in self.book.steps_of(incident) if one.verb is Verb.POWER_OFF and one.acts)
                on_at = [seen.at for one in steps for seen in one.observed if seen.reading == Reading.ON.value]
                found.update({incident.host: max(on_at)} if on_at else {})
        return found

    def _beside(self, host: str, inventory: Inventory | None) -> dict[str, str]:
        """Of its VMs. Without agents nobody says anything."""
        if inventory is None or not self.guests.told:
            return {}
        stale_s = self.policy.channel_stale_s
        found = ((one.id, self.guests.beside(one.id, host, self.now, stale_s)) for one in inventory.servers)
        return {server_id: where for server_id, where in found if where}

    def _hold(self, incident: Incident) -> str:
        """Of one scene the brake says the same of an incident every time."""
        holds = self._seen.holds
        if incident.id not in holds:
            holds[incident.id] = brake(incident, self._seen.scene)
        return holds[incident.id]

    def _survey(self) -> None:
        """While nothing that it rests on changed it is the very one that it was, with all that was asked of it."""
        open_now = tuple(self.current[key] for key in sorted(self.current))
        grounds = (
            open_now,
            self.judged.verdicts,
            self.evidence.quiet(self.segment, self.policy, self.now),
            self.evidence.back(self.segment, self.policy, self.now),
            frozenset(one.host for one in open_now if self._is_old(one)),
            {one.host: self.book.pause(one.host, self.now) for one in open_now} if self.book.orders else {},
            self.fences,
        )
        if self.book.survey is None or self.book.survey.grounds != grounds:
            self.book.survey = self._surveyed(*grounds)
        self._seen = self.book.survey

    def _is_old(self, incident: Incident) -> bool:
        """What is being fenced is not, however long its fence was held."""
        is_past = self.now - self.book.eras.opened_at(incident) > self.policy.storm_window_s
        return is_past and incident.state is not State.FENCING

    def _surveyed(
        self,
        open_now: tuple[Incident, ...],
        verdicts: Mapping[str, Verdict],
        quiet: frozenset[str],
        back: frozenset[str],
        old: frozenset[str],
        pauses: Mapping[str, str],
        fences: frozenset[str],
    ) -> Survey:
        here = tuple(one for one in open_now if one.host in verdicts)
        hosts = frozenset(one.host for one in here)
        scene = Scene(
            segment=self.segment,
            policy=self.policy,
            verdicts={name: verdicts[name] for name in self.judged.unwell | hosts},
            quiet=quiet,
            back=back,
            incidents=here,
            paused={host: why for host, why in pauses.items() if why and host in hosts},
            fences=fences,
            old=old & hosts,
        )
        return Survey(
            grounds=(open_now, verdicts, quiet, back, old, pauses, fences),
            scene=scene,
            suspected_at={one.host: one.opened_at for one in open_now},
            busy_hosts=frozenset(one.host for one in open_now if one.is_open and one.state is not State.SUSPECTED),
        )

    def _contested(self, inventory: Inventory | None) -> dict[str, str]:
        servers = inventory.servers if inventory and self.contested else ()
        return {one.id: "of another segment" for one in servers if keys.open_vm(one.id) in self.contested}


def _is_fenced_still(incident: Incident) -> bool:
    """Its power is proven, or still to be proven beside its recovery."""
    proof = incident.proof
    return incident.state is State.FENCING or (
        incident.state is State.RECOVERING and proof is not None and not proof.is_whole
    )
