# SPDX-License-Identifier: Apache-2.0
"""What is kept at the moment of a decision, for it cannot be known later: what was seen, who decided, on which proofs a
start rests. And the certificates, which are written in the very commit that settles what they tell of.

No recovery waits for a certificate: one that cannot be built is told in the log, and missed by who looks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from vmhad.engine.book import YEAR_9999, Book
from vmhad.engine.cases import Cases
from vmhad.journal import keys
from vmhad.kernel import certificate
from vmhad.kernel.brake import Scene
from vmhad.kernel.case import Case, Decision
from vmhad.kernel.certificate import LEVELS, Facts, Held, Plain, Result
from vmhad.kernel.evidence import Evidence
from vmhad.kernel.exhibit import FENCED, PROVEN, Act, Braked, Exhibit, crowd, exhibit, kept, life_against, owned
from vmhad.kernel.incident import Incident
from vmhad.kernel.step import Begun, Certified, Ground, Step, StepState, Verb
from vmhad.kernel.topology import Backend, Segment

LOG = logging.getLogger(__name__)

KEPT_OF = (*LEVELS, Verb.EVACUATE.value)


def exhibited(cases: Cases, case: Case, scene: Scene, decision: Decision) -> Decision:
    """The decision with what it saw, where a fence begins or is proven. scene: as it was before the decision."""
    was, now_is = case.incident, decision.incident
    more: list[Exhibit] = []
    policy = replace(case.policy, cut_storage=case.cut_storage)
    seen = cases.now, cases.book.epoch, now_is.round, case.verdict, case.evidence, policy
    if now_is.round > was.round:
        more.append(replace(exhibit(FENCED, *seen), brake=_braked(was, scene)))
    if now_is.proof is not None and now_is.proof != was.proof:
        life_at = life_against(now_is.proof, case.evidence)
        acts = tuple(_acts(case, decision))
        more.append(replace(exhibit(PROVEN, *seen), proof=now_is.proof, life_at=life_at, acts=acts))
    if not more:
        return decision
    needed = set(_rested_on(case, decision))
    return replace(decision, incident=replace(now_is, exhibits=kept(now_is.exhibits, tuple(more), needed)))


def _rested_on(case: Case, decision: Decision) -> Iterator[float]:
    """When the proofs of this incident were held that evacuations under way rest on, others' among them: a host may be
    fenced again and again before they are over."""
    steps = {one.id: one for one in (*case.elsewhere, *case.steps, *decision.steps) if one.state is StepState.STARTED}
    for step in steps.values():
        grounds = step.begun.grounds if step.begun is not None else ()
        yield from (one.proven_at for one in grounds if one.incident == case.incident.id)


def _acts(case: Case, decision: Decision) -> Iterator[Act]:
    """Also of an operator's word, which is never STARTED."""
    steps = {one.id: one for one in (*case.steps, *decision.steps) if one.verb.value in LEVELS}
    for step in (steps[key] for key in sorted(steps)):
        if certificate.round_of(step) == decision.incident.round and (step.acts or step.verb is Verb.CONFIRM_DOWN):
            args = {key: value for key, value in step.args.items() if value}
            yield Act(step.verb.value, args, step.attempt, step.acts, step.acted_at, step.observed)


def _braked(was: Incident, scene: Scene) -> Braked:
    return Braked(
        was.held,
        len(scene.segment.hosts),
        crowd(scene.dead),
        crowd(scene.silent),
        crowd(scene.stopped),
        crowd(scene.back),
        scene.blind,
        len(scene.recovering),
        len(scene.fences),
    )


@dataclass
class Sealed:
    """What a commit writes. certificates: step id -> those of it, key -> JSON."""

    incidents: tuple[Incident, ...]
    steps: tuple[Step, ...]
    certificates: dict[str, dict[str, bytes]] = field(default_factory=dict)
    plain: Plain = field(default_factory=lambda: Plain(utc))


@dataclass
class Certifying:
    """me: the name of this engine. evidence: of a host, as it is now."""

    me: str
    segments: Mapping[str, Segment]
    evidence: Callable[[str], Evidence]

    def seal(
        self,
        book: Book,
        current: Mapping[str, Incident],
        incidents: Sequence[Incident],
        steps: Sequence[Step],
        now: float,
    ) -> Sealed:
        """incidents, steps: what is written now. current: all that are open, as they were just decided."""
        if not incidents and not steps:
            return Sealed((), ())
        written = {one.id: one for one in incidents}
        left_open = [step for one in incidents if not one.is_open for step in _left_open(book, one, steps)]
        for incident_id in sorted({one.incident for one in steps} | written.keys()):
            if (one := written.get(incident_id) or current.get(incident_id)) is not None:
                owners = owned(one.owners, book.epoch, self.me, now)
                if owners is not one.owners:
                    written[incident_id] = replace(one, owners=owners)
        at_hand = {**current, **written}
        begun = [self._begun(book, at_hand, one, now) for one in steps]
        sealed = Sealed(tuple(written[key] for key in sorted(written)), ())
        sealed.steps = tuple(self._settled(book, at_hand, one, now, sealed) for one in (*begun, *left_open))
        return sealed

    def _begun(self, book: Book, at_hand: Mapping[str, Incident], step: Step, now: float) -> Step:
        """When, by whom and on which proofs an attempt begins."""
        if step.verb.value not in KEPT_OF or step.state is not StepState.STARTED or step.begun is not None:
            return step
        incident = at_hand.get(step.incident)
        if incident is None or not _is_fresh(book.steps.get(step.id), step):
            return step
        if step.verb is not Verb.EVACUATE:
            return replace(step, begun=Begun(now, book.epoch, certificate.round_of(step)))
        grounds = tuple(self._grounds(book, at_hand, incident, step))
        return replace(step, begun=Begun(now, book.epoch, incident.round, grounds, self._disks(book, incident, step)))

    def _grounds(
        self, book: Book, at_hand: Mapping[str, Incident], incident: Incident, step: Step
    ) -> Iterable[Ground]:
        hosts = {incident.host, *_hosts_named(step)}
        for host in sorted(hosts):
            mine = {one.id: one for one in (*book.open_incidents(), *at_hand.values()) if one.host == host}
            # What was just decided stands after what is in the book.
            proven = [(one.id, seen) for one in mine.values() if one.proof for seen in _proofs(one)]
            if proven:
                incident_id, newest = max(proven, key=lambda one: (one[1].epoch, one[1].at))
                yield Ground(host, incident_id, newest.at, life_against(newest.proof, self.evidence(host)))

    def _disks(self, book: Book, incident: Incident, step: Step) -> dict[str, tuple[str, ...]]:
        """Of a VM whose disks nobody asked for nothing is kept."""
        inventory, segment = book.inventories.get(incident.host), self.segments.get(incident.segment)
        servers = inventory.servers if inventory is not None else ()
        disks = next((one.disks for one in servers if one.id == step.subject), ())
        if segment is None:
            return {disk: () for disk in sorted(disks)}
        return {disk: _names(segment.backend_of(disk, incident.host)) for disk in sorted(disks)}

    def _settled(self, book: Book, at_hand: Mapping[str, Incident], step: Step, now: float, sealed: Sealed) -> Step:
        old, incident = book.steps.get(step.id), at_hand.get(step.incident)
        if step.verb is not Verb.EVACUATE or incident is None or (result := _result(old, step, incident)) is None:
            return step
        before = step.certified or Certified()
        attempt = old if old is not None and old.state is StepState.STARTED else step
        because = step.because or (attempt.observed[-1].text if attempt.observed else "")
        digest = ""
        if certificate.is_due(before, result):
            try:
                levels = tuple(one for one in book.steps_of(incident) if one.verb.value in LEVELS)
                facts = Facts(
                    incident, attempt, result, because, now, book.epoch, levels, self._held(book, at_hand, attempt)
                )
                built = certificate.build(facts, before, sealed.plain)
            except Exception:
                LOG.exception("%s gets no certificate of what became of %s", incident.id, step.subject)
                return step
            digest = str(built["digest"])
            key = keys.certificate(incident.id, step.subject, before.count + 1)
            sealed.certificates[step.id] = {key: certificate.canonical(built)}
        return replace(step, certified=certificate.counted(before, result, digest))

    @staticmethod
    def _held(book: Book, at_hand: Mapping[str, Incident], attempt: Step) -> tuple[Held, ...]:
        held = []
        for ground in attempt.begun.grounds if attempt.begun is not None else ():
            incident = at_hand.get(ground.incident) or book.incidents.get(ground.incident)
            seen = [one for one in _proofs(incident) if one.at == ground.proven_at] if incident is not None else []
            held += [Held(ground, one) for one in seen[-1:]]
        return tuple(held)


def utc(at: float) -> str:
    return datetime.fromtimestamp(max(0.0, min(at, YEAR_9999)), UTC).isoformat(timespec="microseconds")


def _is_fresh(old: Step | None, new: Step) -> bool:
    return old is None or old.state is not StepState.STARTED or old.attempt != new.attempt


def _result(old: Step | None, new: Step, incident: Incident) -> Result | None:
    """What settles an attempt that was, or may have been, sent; None where there is nothing to tell."""
    was_started = old is not None and old.state is StepState.STARTED
    if new.state is StepState.DONE and (old is None or old.state is not StepState.DONE):
        # One that was never STARTED is none of ours: it left by itself.
        return Result.DONE if new.started_at else None
    if old is None or not was_started or not old.acts:
        return None
    if old.attempt == new.attempt and new.state is StepState.STARTED:
        return None if incident.is_open else Result.UNSETTLED
    return Result.FAILED if new.state is StepState.FAILED else Result.RETRIED


def _left_open(book: Book, incident: Incident, steps: Sequence[Step]) -> list[Step]:
    """Evacuations of an incident that ends which nothing settles any more."""
    now_written = {one.id for one in steps}
    mine = (one for one in book.steps_of(incident) if one.verb is Verb.EVACUATE and one.id not in now_written)
    return [one for one in mine if one.state is StepState.STARTED and one.acts]


def _hosts_named(step: Step) -> set[str]:
    """Those whose proof is read again just before the act: «host,host», or «host/what,host/what»."""
    told = (value for key, value in step.args.items() if key.startswith("proof_"))
    return {one.partition("/")[0] for value in told for one in value.split(",")} - {""}


def _proofs(incident: Incident) -> list[Exhibit]:
    return [one for one in incident.exhibits if one.proof is not None]


def _names(backend: Backend | None) -> tuple[str, ...]:
    return () if backend is None else (backend.name,)
