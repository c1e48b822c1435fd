# SPDX-License-Identifier: Apache-2.0
"""What an engine believes of a journal that it reads: as its own where it wrote it, else as that of another clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vmhad.engine.book import Book
from vmhad.engine.eras import COUNTED, eras
from vmhad.guards.hosts.cut_storage import round_of
from vmhad.journal.journal import SegmentRecord
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.step import MOVES, Step, StepState, Verb

# No step that is planned for later waits longer than this: retry_backoff_max_s may be no more.
WAIT_MAX_S = 600.0
TIMES = ("started_at", "acted_at", "ended_at")
SOFT = ("started_at", "acts", "acted_at", "observed")


def loaded(record: SegmentRecord, epoch: int, dropped: Book | None, now: float) -> Book:
    """The book as the journal has it. dropped: what this process had of the segment before it was read again."""
    if dropped is not None and dropped.epoch == epoch:
        steps = [not_from_the_future(one, now) for one in record.steps]
        book = Book(epoch, {one.id: one for one in record.incidents}, {one.id: one for one in steps})
        carry_over(book, dropped)
        return book
    placing, of = eras(record.incidents, epoch, now), {one.id: one for one in record.incidents}
    incidents = [inherited(_not_begun_later(one, now)) for one in record.incidents]
    rounds = {one.id: one.round for one in incidents if one.state in (State.FENCING, State.RECOVERING)}
    steps = [placing.placed(one, of.get(one.incident)) for one in record.steps]
    steps = [perhaps_sent(not_from_the_future(one, now), now) for one in steps]
    steps = [_looked_at_anew(one, now) if _is_cut_of(one, rounds) else one for one in steps]
    return Book(epoch, {one.id: one for one in incidents}, {one.id: one for one in steps}, eras=placing)


def carry_over(book: Book, old: Book) -> None:
    """What this very process did and saw in steps that the journal still has as it knew them, and where it had placed
    those of others in time."""
    for step in old.steps.values():
        mine = book.steps.get(step.id)
        if mine is None or (mine.state, mine.attempt) != (step.state, step.attempt):
            continue
        soft = SOFT if step.state is StepState.STARTED else TIMES if step.verb in COUNTED else ()
        if soft:
            book.put(steps=[replace(mine, **{name: getattr(step, name) for name in soft})])
    for incident in old.incidents.values():
        mine_now = book.incidents.get(incident.id)
        was_inherited = incident.proof is not None and incident.proof.at == 0.0
        if was_inherited and mine_now is not None and mine_now.round == incident.round:
            book.put([inherited(mine_now)])
    book.inventories, book.eras = dict(old.inventories), old.eras


def inherited(incident: Incident) -> Incident:
    """An incident of another engine's time. Any life that we see came after its proof, whatever its clock said."""
    return replace(incident, proof=replace(incident.proof, at=0.0)) if incident.proof else incident


def _not_begun_later(incident: Incident, now: float) -> Incident:
    """As with steps: another clock may have run ahead of ours, and a pause since its last turn would never end."""
    if all(one.at <= now for one in incident.turns):
        return incident
    turns = tuple(replace(one, at=min(one.at, now)) for one in incident.turns)
    return replace(incident, turns=turns, opened_at=min(incident.opened_at, now))


def _is_cut_of(step: Step, rounds: Mapping[str, int]) -> bool:
    is_made = step.verb is Verb.CUT_STORAGE and step.state in (StepState.STARTED, StepState.DONE)
    return is_made and rounds.get(step.incident) == round_of(step)


def _looked_at_anew(cut: Step, now: float) -> Step:
    """What another engine saw was stamped by its clock, and says nothing beside the life that we see. A cut that was
    over begins again, as soon as that is written."""
    if cut.state is StepState.DONE:
        return replace(cut, state=StepState.PLANNED, ended_at=0.0, observed=())
    return replace(cut, started_at=now, acted_at=now, observed=())


def perhaps_sent(step: Step, now: float) -> Step:
    """A step that another engine had STARTED begins for us now: its times were stamped by another clock.

    Its call may be on its way. A second evacuation beside it would harm the VM's record in Nova, so what moves a VM
    counts as sent now, and is sent again only when no record of it comes.
    """
    if step.state is not StepState.STARTED:
        return step
    if step.verb in MOVES:
        step = replace(step, acts=max(1, step.acts), acted_at=now)
    return replace(step, started_at=now)


def not_from_the_future(step: Step, now: float) -> Step:
    """Times stamped by a clock that runs ahead of ours would let us wait for ever."""
    return replace(
        step,
        started_at=min(step.started_at, now),
        acted_at=min(step.acted_at, now),
        ended_at=min(step.ended_at, now),
        not_before=min(step.not_before, now + WAIT_MAX_S),
    )
