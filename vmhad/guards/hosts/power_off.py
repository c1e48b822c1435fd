# SPDX-License-Identifier: Apache-2.0
"""The first level of a fence: the host's power.

The proof is what was observed after the act: power read OFF twice, apart, with no sign of life between. power_off is
sent even where the host is off already, and a BMC that does not answer proves nothing.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from vmhad.guards.hosts.columns import is_borne_out, nobody_saw_it_since
from vmhad.guards.hosts.cut_storage import outstanding
from vmhad.kernel.case import Case, Move
from vmhad.kernel.evidence import Seen
from vmhad.kernel.incident import Event, State
from vmhad.kernel.proof import Proof
from vmhad.kernel.signal import Reading
from vmhad.kernel.step import Observation, Step, StepState, Verb, start

FALLS_WITH_S = 5.0
# The argument of a failed power_off that names the other host which went off with it.
FELL_WITH_IT = "fell_with_it"
OF_FENCE = (Verb.POWER_OFF, Verb.CUT_STORAGE, Verb.CONFIRM_DOWN)


def the_step(case: Case) -> Step | None:
    """The power_off of this round."""
    return case.step(_step_id(case))


def _step_id(case: Case) -> str:
    return f"{case.incident.id}/{case.incident.round}/{Verb.POWER_OFF.value}"


def prove(case: Case, now: float) -> Move:
    """Send power_off, wait for the proof, try again, and say what is missing when it cannot be had."""
    step = the_step(case)
    if step is None and (other := hit(case)) and not _is_ordered(case):
        return Move(_whose(case, other), Event.EXHAUSTED)
    if step is None:
        step = Step(_step_id(case), case.incident.id, Verb.POWER_OFF, case.incident.host, _before_the_act(case))
        return Move("power_off is sent", steps=(start(step, now),), wake_at=now + 1.0)
    if step.state is StepState.FAILED:
        return Move(_missing(case, step), Event.EXHAUSTED)
    proof = _proof(case, step, now)
    was_dead = step.args.get("found") == Reading.OFF.value
    if proof is not None and not was_dead and not _all_read_since(case, step, now):
        return Move("read OFF; the other hosts are read before it is believed", wake_at=now + 0.2)
    if proof is not None and not was_dead and (other := _fell_with_it(case, step)):
        args = {**step.args, FELL_WITH_IT: other}
        failed = replace(step, state=StepState.FAILED, args=args, ended_at=now, because=f"{other} went off with it")
        return Move(_whose(case, other), Event.EXHAUSTED, (failed,))
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
    return Move(_missing(case, failed), Event.EXHAUSTED, (failed,))


def hit(case: Case) -> str:
    """'' or the other host that went off with a power_off of this incident: what its BMC says of it proves nothing."""
    return next((step.args[FELL_WITH_IT] for step in case.steps if FELL_WITH_IT in step.args), "")


def _is_ordered(case: Case) -> bool:
    """It was STUCK, and what hit another host is STUCK until an operator orders a retry; that finds it ON, or proves
    nothing."""
    return any(turn.state is State.STUCK for turn in case.incident.turns[-2:-1])


def _whose(case: Case, other: str) -> str:
    return f"no proof: {other} went off right after power_off of {case.incident.host}: whose BMC is this?"


def _missing(case: Case, step: Step) -> str:
    missing = f"no proof that {case.incident.host} is off: power_off, tried {step.attempt} times: {_last(step)}"
    if step.observed and step.observed[-1].reading == Reading.OFF.value:
        other = hit(case)
        missing += (
            f", but {other} went off with it before: look whose BMC this is, then confirm-down"
            if other
            else (", but its nova-compute was heard since, so this BMC is not believed")
        )
    return missing


def _before_the_act(case: Case) -> dict[str, str]:
    """What a later attempt, or another engine, can no longer see: was it dead already, and who was suspected."""
    found = Reading.OFF.value if case.verdict.is_off else ""
    quiet = case.quiet - {case.incident.host}
    return {"found": found, "suspects": ",".join(sorted(case.suspected_at)), "quiet": ",".join(sorted(quiet))}


def _fell_with_it(case: Case, step: Step) -> str:
    """Another host whose power went with our act, or with what is read as this one's: its BMC may be wired to that one.
    '' if none did."""
    gone_at = _gone_at(case, step)
    for name, power in sorted(_bystanders(case, step).items()):
        if _failed_by_itself(case, step, name):
            continue
        after_act_s, apart_s = power.first_at - step.acted_at, abs(power.first_at - gone_at)
        if power.reading is Reading.OFF and (0.0 < after_act_s <= FALLS_WITH_S or apart_s <= FALLS_WITH_S):
            return name
    return ""


def _failed_by_itself(case: Case, step: Step, name: str) -> bool:
    """Hosts that fail together are seldom suspected in one moment. This one was silent already when this fence began,
    had power yet when what is read as this one's was off, so that is not its own, and then its own power_off was
    sent: it is no innocent one that our act has hit."""
    was_quiet = name in step.args.get("quiet", "").split(",")
    return was_quiet and case.on_before_fence.get(name, 0.0) > _surely_off_at(case, step)


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
    if hit(case) and not _was_on(step):
        return None
    newest_run = _newest_run(case, step)
    if not newest_run or newest_run[-1].at - newest_run[0].at < case.policy.readings_apart_s:
        return None
    if not nobody_saw_it_since(case.evidence, newest_run[0].at, now):
        return None
    pair = (newest_run[0], newest_run[-1])
    was_off = step.attempt == 1 and step.observed[0].reading == Reading.OFF.value
    return Proof(case.incident.host, Verb.POWER_OFF.value, pair[0].at, not was_off, case.incident.round, pair)


def _was_on(step: Step) -> bool:
    """Where another host went with an earlier power_off, an OFF may be that one's still, also after an order to retry.
    What was read ON and then OFF by this power_off is proven as ever: whoever goes with it is looked for again."""
    looks = (*step.observed, *(seen for one in step.past for seen in one.observed))
    return any(seen.reading == Reading.ON.value for seen in looks)


def _newest_run(case: Case, step: Step) -> list[Observation]:
    """Of looks that read OFF after the act and after its last sign of life."""
    run: list[Observation] = []
    for seen in reversed(step.observed):
        if seen.reading != Reading.OFF.value or seen.at <= max(step.acted_at, case.evidence.life_at):
            break
        run.insert(0, seen)
    return run


def _surely_off_at(case: Case, step: Step) -> float:
    """A look may take long, and its time is when it began: it was over when the next look of its step began."""
    run = _newest_run(case, step)
    return run[1].at if len(run) > 1 else inf


def _was_recovered_from(case: Case) -> bool:
    """Something beside its fence was begun, in an earlier round."""
    return any(step.verb not in OF_FENCE and step.started_at for step in case.steps)


def _never_landed(case: Case, step: Step) -> bool:
    return (
        step.acts == 0
        and not outstanding(case.steps)
        and case.verdict.serves
        and case.evidence.life_at > step.started_at
    )


def _last(step: Step) -> str:
    return step.observed[-1].text if step.observed else "no answer yet"
