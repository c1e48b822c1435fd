# SPDX-License-Identifier: Apache-2.0
"""When something was written that another engine stamped, by our clock: the latest that it can have been.

No two clocks need agree, so an heir reads no stamp of another engine as a time of its own. What it does know: all that
was written under an epoch was written before the next one began, and what lies between two stamps of one epoch has
passed, for one process stamped both and its clock never jumps. So the eras are laid end to end, back from our
take-over. What lay between the last stamp of one and the first of the next nobody knows: it counts as nothing. Whatever
is placed so happened then or earlier, and never seems older than it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from vmhad.kernel.incident import Incident
from vmhad.kernel.step import Step, StepState, Verb

# What is counted within a window.
COUNTED = (Verb.RESTORE_STATE, Verb.RESTART, Verb.RESTART_SERVICE, Verb.RESUME)


@dataclass(frozen=True)
class Eras:
    """epoch: ours. since: when we took over, by our clock. lasted: earlier epoch -> its first and its last stamp, each
    by its own clock."""

    epoch: int
    since: float
    lasted: Mapping[int, tuple[float, float]] = field(default_factory=dict)

    def ended(self, epoch: int) -> float:
        """No stamp of this earlier epoch is later."""
        return self.since - sum(last - first for other, (first, last) in self.lasted.items() if other > epoch)

    def latest(self, epoch: int, at: float) -> float:
        """By our clock, of what this epoch stamped."""
        if epoch == self.epoch:
            return at
        _, last = self.lasted.get(epoch, (at, at))
        return self.ended(epoch) - max(0.0, last - at)

    def opened_at(self, incident: Incident) -> float:
        """Its first owner opened it, in the commit that it is kept for. What was not written yet is ours."""
        first = incident.owners[0] if incident.owners else None
        return self.latest(first.epoch, first.at) if first is not None else incident.opened_at

    def placed(self, step: Step, incident: Incident | None) -> Step:
        """A step that was over when we took over. What an incident of several owners has may be of any of them. When it
        was STARTED to resume a guest is held against the turns of its incident, and stays as it is."""
        if step.verb not in COUNTED or step.state not in (StepState.DONE, StepState.FAILED):
            return step
        owners = incident.owners if incident is not None else ()
        ended = self.ended(owners[-1].epoch) if owners else self.since

        def by_ours(at: float) -> float:
            return 0.0 if not at else self.latest(owners[0].epoch, at) if len(owners) == 1 else ended

        return replace(
            step,
            started_at=step.started_at if step.verb is Verb.RESUME else by_ours(step.started_at),
            acted_at=by_ours(step.acted_at),
            ended_at=by_ours(step.ended_at),
        )


def eras(incidents: Iterable[Incident], epoch: int, now: float) -> Eras:
    """Of the journal as it is taken over now."""
    lasted: dict[int, tuple[float, float]] = {}
    for other, at in _stamps(incidents):
        if other != epoch:
            first, last = lasted.get(other, (at, at))
            lasted[other] = min(first, at), max(last, at)
    return Eras(epoch, now, lasted)


def _stamps(incidents: Iterable[Incident]) -> Iterator[tuple[int, float]]:
    """Those of which the epoch is known."""
    for incident in incidents:
        yield from ((one.epoch, one.at) for one in (*incident.owners, *incident.exhibits))
        if len(incident.owners) == 1:
            yield from ((incident.owners[0].epoch, one.at) for one in incident.turns)
