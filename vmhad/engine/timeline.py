# SPDX-License-Identifier: Apache-2.0
"""What an operator watches: one line an event, in the order it was committed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vmhad.guards.hosts.order import UNREADY
from vmhad.kernel.incident import Incident
from vmhad.kernel.step import MOVES, Step, StepState, Verb


@dataclass(frozen=True, slots=True)
class Line:
    """at: unix seconds. subject: e.g. "host host01", "vm web-1" or "service host01/libvirtd". word: the new state, in
    upper case."""

    at: float
    subject: str
    word: str
    text: str


Timeline = Callable[[Line], None]


def of_incident(old: Incident | None, new: Incident, now: float) -> Iterator[Line]:
    """One line for each turn it took, one when a hold begins or changes."""
    kind = "drain" if new.drain else "service" if new.service else "host"
    subject = f"vm {new.vm_name}" if new.vm else f"{kind} {new.subject}"
    told = old.turns if old else ()
    for turn in (one for one in new.turns if one not in told):
        yield Line(turn.at, subject, turn.state.value.upper(), turn.because)
    if new.held not in ("", old.held if old else "", new.turns[-1].because):
        yield Line(now, subject, "HELD", new.held)


def of_step(old: Step | None, new: Step, now: float) -> Iterator[Line]:
    """One line for each change of a step that an operator would ask about."""
    if old is not None and (old.state, old.attempt, old.because) == (new.state, new.attempt, new.because):
        return
    if new.state is StepState.PLANNED and not new.because:
        return
    of_vm = new.verb in (*MOVES, Verb.RESTORE_STATE, Verb.RESTART, Verb.RESUME)
    kind = "service" if new.verb is Verb.RESTART_SERVICE else "host"
    subject = f"vm {new.args.get('name', new.subject)}" if of_vm else f"{kind} {new.subject}"
    word = f"{new.verb.value} {new.state.value}".upper()
    text = new.because
    if new.state is StepState.STARTED:
        text = f"to {new.args['target']}" if new.verb in MOVES else ""
        text = f"on {new.args['host']}, by {new.args['how']}" if new.verb is Verb.RESTART else text
        text = f"on {new.args['host']}" if new.verb is Verb.RESUME else text
        text += f" (attempt {new.attempt})" if new.attempt > 1 else ""
        text += f"; the limit of waiting is over, and {new.args[UNREADY]}" if new.args.get(UNREADY) else ""
    yield Line(now, subject, word, text.strip())
