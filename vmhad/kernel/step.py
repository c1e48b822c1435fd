# SPDX-License-Identifier: Apache-2.0
"""One effect on the cloud: written as STARTED before its call is made, concluded only by a probe.

PLANNED -> STARTED -> DONE | FAILED. A step that ended FAILED may be tried again as the next attempt of the same step;
what its arguments learn in between (where it failed, another target) is written with that attempt. An answer that was
lost leaves the step STARTED: the probe, not the call, says how it went.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Verb(StrEnum):
    """Every change vmhad can make to a cloud; each has a probe and an act in engine/effects.py. CONFIRM_DOWN alone is
    an operator's: it is kept beside the others, and never STARTED."""

    POWER_OFF = "power_off"
    POWER_ON = "power_on"
    CUT_STORAGE = "cut_storage"
    RESTORE_STORAGE = "restore_storage"
    CONFIRM_DOWN = "confirm_down"
    FORCE_DOWN = "force_down"
    DISABLE = "disable"
    EVACUATE = "evacuate"
    RESTORE_STATE = "restore_state"
    LIFT_FENCE = "lift_fence"
    ENABLE = "enable"
    RESTART = "restart"
    RESUME = "resume"
    RESTART_SERVICE = "restart_service"
    LIVE_MIGRATE = "live_migrate"


# Those that may bring a VM to another host: while one is STARTED its incident has the VM.
MOVES = (Verb.EVACUATE, Verb.LIVE_MIGRATE)


class StepState(StrEnum):
    PLANNED = "planned"
    STARTED = "started"
    DONE = "done"
    FAILED = "failed"


class Answer(StrEnum):
    """What a probe says of a step: «is it already so?»"""

    SO = "so"
    NOT_YET = "not_yet"
    NOT_SO = "not_so"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Observation:
    """What one probe saw. at: when the look began. reading: the level in the channel's own word (e.g. "off")."""

    at: float
    answer: Answer
    reading: str
    text: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One that ended and was followed by another: what it saw first and last."""

    started_at: float
    acts: int
    acted_at: float
    observed: tuple[Observation, ...]
    because: str = ""


@dataclass(frozen=True, slots=True)
class Ground:
    """A proof that a start rests on: of which host, in which incident, held since when. life_at: the newest sign of
    life of that host when the step was STARTED, 0.0 if none was ever seen."""

    host: str
    incident: str
    proven_at: float
    life_at: float


@dataclass(frozen=True, slots=True)
class Begun:
    """When an attempt was STARTED, by the clock of the engine that had this epoch: no later owner changes it, as it
    does started_at. disks: where the disks of its VM are kept -> the storages that hold them."""

    at: float
    epoch: int
    round: int
    grounds: tuple[Ground, ...] = ()
    disks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Certified:
    """The certificates of a step so far. newest: the digest of the last one. failed: how many of them tell of a
    failure; unwritten: how many failures came after as many of those as are kept."""

    count: int = 0
    newest: str = ""
    failed: int = 0
    unwritten: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One effect. subject: a host's name, a server's id for the verbs about one VM, or host/service.

    args: for evacuate {"target", "force", "awaits"} and what is read just before it: {"proof_hosts", "proof_cuts",
    "proof_words"}; for cut_storage and restore_storage {"backend"}; for confirm_down {"by", "why"};
    for restore_state {"state"}; for restart {"how", "host", "known"};
    for resume {"host", "known"}; for restart_service {"host", "service", "known"};
    for live_migrate {"source", "target", "known"}. Fixed from STARTED on.
    acts: how often the call was made, as far as it was recorded. observed: the first one and the newest, in order.
    past: attempts before this one, the first and the newest. begun, certified: None before it is written.
    """

    id: str
    incident: str
    verb: Verb
    subject: str
    args: Mapping[str, str] = field(default_factory=dict)
    state: StepState = StepState.PLANNED
    attempt: int = 0
    acts: int = 0
    started_at: float = 0.0
    acted_at: float = 0.0
    ended_at: float = 0.0
    not_before: float = 0.0
    observed: tuple[Observation, ...] = ()
    because: str = ""
    past: tuple[Attempt, ...] = ()
    begun: Begun | None = None
    certified: Certified | None = None

    @property
    def is_open(self) -> bool:
        return self.state in (StepState.PLANNED, StepState.STARTED)


OBSERVED_MAX = 6
PAST_NEWEST = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the executor hands back for one look at a STARTED step. acted: the call was made, at acted_at."""

    step: str
    attempt: int
    observation: Observation
    acted: bool = False
    acted_at: float = 0.0


def start(step: Step, now: float, args: Mapping[str, str] | None = None) -> Step:
    """The next attempt of a step, to be committed before its call."""
    return replace(
        step,
        state=StepState.STARTED,
        attempt=step.attempt + 1,
        acts=0,
        started_at=now,
        acted_at=0.0,
        ended_at=0.0,
        observed=(),
        because="",
        args=dict(step.args if args is None else args),
        past=_past(step),
        begun=None,
    )


def _past(step: Step) -> tuple[Attempt, ...]:
    if not step.started_at:
        return step.past
    seen = (*step.observed[:1], *step.observed[1:][-1:])
    past = (*step.past, Attempt(step.started_at, step.acts, step.acted_at, seen, step.because))
    return (*past[:1], *past[1:][-PAST_NEWEST:])


def record(step: Step, outcome: Outcome) -> Step:
    """What the step knows after one outcome; an outcome of another attempt changes nothing, and neither does a second
    look at what was read once."""
    if step.state is not StepState.STARTED or outcome.attempt != step.attempt:
        return step
    if step.observed[-1:] == (outcome.observation,) and not outcome.acted:
        return step
    return replace(
        step,
        acts=step.acts + outcome.acted,
        acted_at=outcome.acted_at if outcome.acted else step.acted_at,
        observed=(*step.observed[:1], *(*step.observed[1:], outcome.observation)[-OBSERVED_MAX:]),
    )
