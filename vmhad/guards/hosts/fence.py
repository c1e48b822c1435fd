# SPDX-License-Identifier: Apache-2.0
"""From «it is dead» to «it is proven to run nothing».

The proof is what was observed after the act: power read OFF twice, apart, with no sign of life between. power_off is
sent even where the host is off already, and a BMC that does not answer proves nothing. That a host writes a dump of its
panicked kernel may put off the first act, and proves nothing either.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from vmhad.guards.hosts.columns import has_panicked, is_borne_out, nobody_saw_it_since
from vmhad.kernel.beat import DUMP_HEARD_S
from vmhad.kernel.case import Case, Move
from vmhad.kernel.evidence import Seen
from vmhad.kernel.incident import Event
from vmhad.kernel.order import CLOSED_BY_ORDER
from vmhad.kernel.proof import Proof
from vmhad.kernel.signal import Channel, Reading
from vmhad.kernel.step import Observation, Step, StepState, Verb, start
from vmhad.kernel.verdict import Judgement

LOOK_AGAIN_S = 5.0
FALLS_WITH_S = 5.0
# The argument of a failed power_off that names the other host which went off with it.
FELL_WITH_IT = "fell_with_it"


def suspect(case: Case, now: float) -> Move:
    """SUSPECTED: dismiss, hold with a reason, or begin the fence. The verdict says all that counts of the evidence."""
    verdict = case.verdict
    if "close" in case.orders:
        return Move(CLOSED_BY_ORDER, Event.CLOSED)
    if verdict.serves:
        if case.fallen:
            return Move(f"it is back without {len(case.fallen)} of its VMs", Event.RETURNED)
        if case.in_want:
            return Move(f"it is back, and {len(case.in_want)} of its VMs are still in want", Event.RETURNED)
        return Move(verdict.because, Event.DISMISSED)
    if verdict.judgement is not Judgement.FAILED:
        return Move(verdict.because, held=verdict.because, wake_at=now + LOOK_AGAIN_S, stands_until=inf)
    if case.hold:
        return Move(verdict.because, held=case.hold, wake_at=now + LOOK_AGAIN_S, stands_until=inf)
    if now < (until := _dump_until(case, now)):
        held = f"it writes a dump of its panicked kernel; kdump_wait_s = {case.policy.kdump_wait_s:g} s waits for that"
        return Move(verdict.because, held=held, wake_at=min(until, now + LOOK_AGAIN_S), stands_until=until)
    return Move(verdict.because, Event.FAILED)


def _dump_until(case: Case, now: float) -> float:
    """Until when its dump is waited for, unless another message of it comes; 0.0 if it is not. Off, it writes none."""
    if case.verdict.is_off or not case.policy.kdump_wait_s or not has_panicked(case.evidence, case.policy, now):
        return 0.0
    said = case.evidence.seen[Channel.DUMP]
    return min(said.first_at + case.policy.kdump_wait_s, said.at + DUMP_HEARD_S)


def fence(case: Case, now: float) -> Move:
    """FENCING: send power_off, wait for the proof, try again, and say what is missing when it cannot be had."""
    step_id = f"{case.incident.id}/{case.incident.round}/{Verb.POWER_OFF.value}"
    step = case.step(step_id)
    if step is None:
        step = Step(step_id, case.incident.id, Verb.POWER_OFF, case.incident.host, _before_the_act(case))
        return Move("power_off is sent", steps=(start(step, now),), wake_at=now + 1.0)
    proof = _proof(case, step, now)
    was_dead = step.args.get("found") == Reading.OFF.value
    if proof is not None and not was_dead and not _all_read_since(case, step, now):
        return Move("read OFF; the other hosts are read before it is believed", wake_at=now + 0.2)
    if proof is not None and not was_dead and (other := _fell_with_it(case, step)):
        args = {**step.args, FELL_WITH_IT: other}
        failed = replace(step, state=StepState.FAILED, args=args, ended_at=now, because=f"{other} went off with it")
        missing = f"no proof: {other} went off right after power_off of {case.incident.host}: whose BMC is this?"
        return Move(missing, Event.EXHAUSTED, (failed,))
    if proof is not None:
        how = "by us" if proof.by_us else "already off"
        done = replace(step, state=StepState.DONE, ended_at=now, because=how)
        return Move(f"proven: power_off ({how}), read OFF twice", Event.PROVEN, (done,), proof)
    if now < step.started_at + case.policy.power_off_deadline_s:
        return Move(f"power_off: {_last(step)}", wake_at=now + 1.0)
    if _never_landed(case, step):
        failed = replace(step, state=StepState.FAILED, ended_at=now, because=_last(step))
        if _was_recovered_from(case) or case.in_want:
            # Nova was told that it is down, and may have been asked for its VMs: there is something to take back.
            return Move("no act of this fence landed and the host lives", Event.EXHAUSTED, (failed,))
        return Move("withdrawn: no act landed and the host lives", Event.WITHDRAWN, (failed,))
    if step.attempt < case.policy.fence_attempts_max:
        return Move(f"power_off is sent again: {_last(step)}", steps=(start(step, now),), wake_at=now + 1.0)
    failed = replace(step, state=StepState.FAILED, ended_at=now, because=_last(step))
    missing = f"no proof that {case.incident.host} is off: power_off, tried {step.attempt} times: {_last(step)}"
    if step.observed and step.observed[-1].reading == Reading.OFF.value:
        missing += ", but its nova-compute was heard since, so this BMC is not believed"
    return Move(missing, Event.EXHAUSTED, (failed,))


def _before_the_act(case: Case) -> dict[str, str]:
    """What a later attempt, or another engine, can no longer see: was it dead already, and who was suspected."""
    found = Reading.OFF.value if case.verdict.is_off else ""
    return {"found": found, "suspects": ",".join(sorted(case.suspected_at))}


def _fell_with_it(case: Case, step: Step) -> str:
    """Another host whose power went with our act, or with what is read as this one's: its BMC may be wired to that one.
    '' if none did."""
    gone_at = _gone_at(case, step)
    for name, power in sorted(_bystanders(case, step).items()):
        after_act_s, apart_s = power.first_at - step.acted_at, abs(power.first_at - gone_at)
        if power.reading is Reading.OFF and (0.0 < after_act_s <= FALLS_WITH_S or apart_s <= FALLS_WITH_S):
            return name
    return ""


def _all_read_since(case: Case, step: Step, now: float) -> bool:
    """Every other host that can be read was read after the act, and after this one went off."""
    since = max(step.acted_at, _gone_at(case, step))
    fresh = [power for power in _bystanders(case, step).values() if now - power.at <= case.policy.channel_stale_s]
    return all(power.at > since for power in fresh if power.reading is not Reading.UNKNOWN)


def _bystanders(case: Case, step: Step) -> dict[str, Seen]:
    """The hosts that nobody suspected when the fence began."""
    suspects = {case.incident.host, *step.args.get("suspects", "").split(",")}
    return {name: power for name, power in case.powers.items() if name not in suspects}


def _gone_at(case: Case, step: Step) -> float:
    """When its power was first read OFF, by whichever eye; it may have gone long after the act."""
    first = next((seen.at for seen in step.observed if seen.reading == Reading.OFF.value), step.acted_at)
    own = case.powers.get(case.incident.host)
    return min(own.first_at, first) if own is not None and own.reading is Reading.OFF else first


def _proof(case: Case, step: Step, now: float) -> Proof | None:
    if not step.acts or step.state is not StepState.STARTED or not is_borne_out(case.evidence, case.policy, now):
        return None
    newest_run: list[Observation] = []
    for seen in reversed(step.observed):
        if seen.reading != Reading.OFF.value or seen.at <= max(step.acted_at, case.evidence.life_at):
            break
        newest_run.insert(0, seen)
    if not newest_run or newest_run[-1].at - newest_run[0].at < case.policy.readings_apart_s:
        return None
    if not nobody_saw_it_since(case.evidence, newest_run[0].at, now):
        return None
    pair = (newest_run[0], newest_run[-1])
    was_off = step.attempt == 1 and step.observed[0].reading == Reading.OFF.value
    return Proof(case.incident.host, Verb.POWER_OFF.value, pair[0].at, not was_off, case.incident.round, pair)


def _was_recovered_from(case: Case) -> bool:
    """Something beside its fence was begun, in an earlier round."""
    return any(step.verb is not Verb.POWER_OFF and step.started_at for step in case.steps)


def _never_landed(case: Case, step: Step) -> bool:
    return (
        step.acts == 0
        and case.verdict.serves
        and case.evidence.life_at > step.started_at
    )


def _last(step: Step) -> str:
    return step.observed[-1].text if step.observed else "no answer yet"
