# SPDX-License-Identifier: Apache-2.0
"""The hands: looks at STARTED steps, and acts where the probe says that it is not so yet.

A step reaches this file only after it was committed as STARTED. Just before an act three things are asked again: that
the attempt is still wanted, for all threads may have been busy meanwhile; that this engine's lease outlasts the call;
and, for what may start a VM elsewhere, that what proved it still reads so: OFF, CUT, or not ON after a word. An act may
nevertheless be late (a process can be stopped between check and send); the design makes a late act harmless.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from vmhad.engine.effects import EFFECTS, Effect
from vmhad.engine.world import World
from vmhad.guards.hosts.settle import PROOF_REFUSED
from vmhad.kernel.signal import Access, Reading
from vmhad.kernel.step import Answer, Observation, Outcome, Step
from vmhad.ports import Refused, Unanswered, Workers

# A BMC that refuses a password may lock the account when it is asked again and again.
REFUSED_REST_S = 5.0


def nothing_before_send(step: Step) -> None:
    """The default of Executor.before_send; the chaos tests stop the process there."""


@dataclass
class Executor:
    """remaining_s: segment -> how long this engine may still act in it. act_limit_s: the longest any act may take."""

    world: World
    workers: Workers
    remaining_s: Callable[[str], float]
    act_limit_s: float
    before_send: Callable[[Step], None] = nothing_before_send
    _looked_at: dict[str, float] = field(default_factory=dict)
    _acted: set[tuple[str, int]] = field(default_factory=set)
    _refusals: dict[str, tuple[float, str]] = field(default_factory=dict)
    _wanted: dict[str, frozenset[tuple[str, int]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pursue(self, segment: str, steps: Sequence[Step], now: float) -> float:
        """Looks at those steps of the segment that are due, and acts for no others from now on; returns when the next
        is due, inf if there is none."""
        self._wanted[segment] = frozenset((step.id, step.attempt) for step in steps)
        return min((self._pursue(segment, step, now) for step in steps), default=inf)

    def _pursue(self, segment: str, step: Step, now: float) -> float:
        effect = EFFECTS[step.verb]
        key = f"{step.id}#{step.attempt}"
        due_at = self._looked_at.get(key, 0.0) + effect.every_s
        if now < due_at:
            return due_at
        if self.workers.submit(key, lambda: self._round(segment, step, effect)):
            self._looked_at[key] = now
        return now + effect.every_s

    def forget(self, ended: Step) -> None:
        attempts = range(ended.attempt + 1)
        for attempt in attempts:
            self._looked_at.pop(f"{ended.id}#{attempt}", None)
        with self._lock:
            self._refusals.pop(ended.id, None)
            self._acted.difference_update((ended.id, attempt) for attempt in attempts)

    def _round(self, segment: str, step: Step, effect: Effect) -> tuple[Outcome, ...]:
        seen = self._look(step, effect)
        refusal = self._fresh_refusal(step)
        if refusal:
            is_so = seen.observation.answer is Answer.SO
            text = f"{seen.observation.text}; {refusal}" if is_so else refusal
            return (replace(seen, observation=replace(seen.observation, text=text)),)
        if not self._must_act(step, effect, seen.observation.answer):
            return (seen,)
        acted = self._act(segment, step, effect)
        return (seen, acted, self._look(step, effect)) if effect.insists and acted.acted else (seen, acted)

    def _fresh_refusal(self, step: Step) -> str:
        """'' or what the last act was refused with, so lately that it is not made again."""
        with self._lock:
            at, text = self._refusals.get(step.id, (-inf, ""))
        return text if self.world.clock.now() < at + REFUSED_REST_S else ""

    def _look(self, step: Step, effect: Effect) -> Outcome:
        at = self.world.clock.now()
        try:
            level = effect.look(self.world, step)
            answer, reading, text = effect.probe(step, level)
            at = effect.read_at(level) if effect.read_at else at
        except (Unanswered, Refused) as error:
            answer, reading, text = Answer.UNKNOWN, "", str(error)
        return Outcome(step.id, step.attempt, Observation(at, answer, reading, text))

    def _must_act(self, step: Step, effect: Effect, answer: Answer) -> bool:
        with self._lock:
            if (step.id, step.attempt) in self._acted:
                return False
        if effect.insists:
            return True
        return answer is Answer.NOT_SO and not step.acts

    def _act(self, segment: str, step: Step, effect: Effect) -> Outcome:
        refusal = self._proof_refusal(step)
        now = self.world.clock.now()
        if (step.id, step.attempt) not in self._wanted.get(segment, ()):
            return self._outcome(step, now, Answer.UNKNOWN, "", "not acted: it is over")
        if refusal:
            return self._outcome(step, now, Answer.UNKNOWN, PROOF_REFUSED, refusal)
        if self.remaining_s(segment) <= self.act_limit_s:
            return self._outcome(step, now, Answer.UNKNOWN, "", "not acted: too little of the lease is left")
        self.before_send(step)
        try:
            effect.act(self.world, step)
        except Refused as error:
            with self._lock:
                self._refusals[step.id] = (now, str(error))
            return self._outcome(step, now, Answer.FAILED, "", str(error))
        except Unanswered as error:
            self._remember(step)
            return self._outcome(step, now, Answer.UNKNOWN, "", f"no answer: {error}", acted=True)
        self._remember(step)
        return self._outcome(step, now, Answer.NOT_YET, "", "sent", acted=True)

    def _proof_refusal(self, step: Step) -> str:
        """'' if every host that must be off reads OFF, every one that must be cut off reads CUT, and none that an
        operator called down reads ON, in reads that began after the step was STARTED."""
        for host in _listed(step, "proof_hosts"):
            reading, text = self.world.power_now(host, step.started_at)
            if reading is not Reading.OFF:
                return f"{host} reads {reading.value}: {text}"
        for pair in _listed(step, "proof_cuts"):
            host, _, backend = pair.partition("/")
            access, text = self.world.access_now(host, backend, step.started_at)
            if access is not Access.CUT:
                return f"{host} reads {access.value} on {backend}: {text}"
        for host in _listed(step, "proof_words"):
            reading, text = self.world.power_now(host, step.started_at)
            if reading is Reading.ON:
                return f"{host} reads {reading.value} although an operator said that it is down: {text}"
        return ""

    def _remember(self, step: Step) -> None:
        with self._lock:
            self._acted.add((step.id, step.attempt))

    @staticmethod
    def _outcome(step: Step, at: float, answer: Answer, reading: str, text: str, acted: bool = False) -> Outcome:
        return Outcome(step.id, step.attempt, Observation(at, answer, reading, text), acted, at if acted else 0.0)


def _listed(step: Step, arg: str) -> list[str]:
    return [one for one in step.args.get(arg, "").split(",") if one]
