# SPDX-License-Identifier: Apache-2.0
"""The second level of a fence: the host is cut off from its shared storages, and given back to them after it.

Rules kept: what was observed at the storage after the act is proof, and it is proof for the VMs that have all their
disks there, for no others. A host that lives, or may have guests from before the cut, is not given back: its old guests
would write on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf

from vmhad.kernel.case import Case
from vmhad.kernel.incident import State
from vmhad.kernel.policy import CutStorage
from vmhad.kernel.proof import CUT_STORAGE, WORD, Proof
from vmhad.kernel.signal import Access, Channel, Reading
from vmhad.kernel.step import Answer, Observation, Step, StepState, Verb, start
from vmhad.kernel.verdict import Judgement

# The argument of an evacuation that says in which round of its incident it was sent.
ROUND = "round"
# A cut that was STARTED may land as late as its call may take.
CALL_LIMIT_S = 15.0
# A look at a storage that is older than this begins no proof.
LOOK_OLD_S = 5.0
# No host boots within this time, so a heartbeat that came no later than this is of the boot that its agent told of.
BOOTS_S = 10.0


def go_on(case: Case, power: Step | None, now: float) -> tuple[Step, ...]:
    """The cuts of this round that begin, end, or are tried again now. power: the power_off of this round."""
    known = case.segment.backends_of(case.incident.host)
    # What left the topology meanwhile is cut off by nobody, and what was begun of it has to end.
    gone = (step for step in _of_round(case) if step.args["backend"] not in {one.name for one in known})
    ended = [replace(step, state=StepState.FAILED, ended_at=now, because=last(step)) for step in gone if step.is_open]
    if not known or not _is_due(case, power, now):
        return tuple(ended)
    changed = ended
    for backend in known:
        step = case.step(_step_id(case, Verb.CUT_STORAGE, backend.name))
        if step is None:
            args = {"backend": backend.name, "boot": boot_of(case)}
            step_id = _step_id(case, Verb.CUT_STORAGE, backend.name)
            step = Step(step_id, case.incident.id, Verb.CUT_STORAGE, case.incident.host, args)
            changed.append(start(step, now))
        elif step.state is StepState.PLANNED:
            changed.append(start(step, now))
        elif step.state is StepState.STARTED and (moved := _concluded(case, step, now)) is not step:
            changed.append(moved)
        elif step.state is StepState.DONE and _is_to_be_looked_at_anew(case, step, now):
            changed.append(start(step, now))
    return tuple(changed)


def _is_to_be_looked_at_anew(case: Case, done: Step, now: float) -> bool:
    """It proved nothing when it was shown, because its host was heard then; now that is dead, and the look is old."""
    is_dead, may_prove = case.verdict.judgement is Judgement.FAILED, case.policy.storage_only_proof
    return is_dead and may_prove and case.incident.state is State.FENCING and not _is_fresh(done, now)


def _is_fresh(done: Step, now: float) -> bool:
    return done.observed[-1].at >= now - LOOK_OLD_S


def _is_due(case: Case, power: Step | None, now: float) -> bool:
    if case.cut_storage is CutStorage.BESIDE_POWER or _of_round(case):
        return True
    if case.cut_storage is CutStorage.NEVER or power is None:
        return False
    # At once where its BMC refuses or is silent: it was asked, and nothing was read since.
    seen = power.observed[-1:] if power.acts or len(power.observed) > 1 else ()
    is_silent = any(one.answer in (Answer.UNKNOWN, Answer.FAILED) for one in seen)
    return is_silent or power.state is StepState.FAILED or now >= power.started_at + case.policy.power_off_deadline_s


def _concluded(case: Case, step: Step, now: float) -> Step:
    if (seen := _cut_at(step)) is not None:
        return replace(step, state=StepState.DONE, ended_at=now, because=seen.text)
    if now < step.started_at + case.policy.cut_storage_deadline_s:
        return step
    if step.attempt < case.policy.fence_attempts_max:
        return start(step, now)
    return replace(step, state=StepState.FAILED, ended_at=now, because=last(step))


def _cut_at(step: Step) -> Observation | None:
    """The first look after the act of an unbroken run that says CUT."""
    first = None
    for seen in reversed(step.observed):
        if seen.reading != Access.CUT.value or seen.at <= step.acted_at:
            break
        first = seen
    return first if step.acts else None


def proof(case: Case, now: float) -> Proof | None:
    """Of all cuts of this round that are proven, while the host still counts as failed. The first proof rests on looks
    of just now; one that is held is read again before every act."""
    if not case.policy.storage_only_proof or case.verdict.judgement is not Judgement.FAILED:
        return None
    proven = [step for step in _of_round(case) if step.state is StepState.DONE]
    if case.incident.state is State.FENCING:
        proven = [step for step in proven if _is_fresh(step, now)]
    seen = tuple(one for step in proven if (one := _cut_at(step)) is not None)
    if not proven or len(seen) < len(proven):
        return None
    names = tuple(sorted(step.args["backend"] for step in proven))
    at = min(one.at for one in seen)
    return Proof(case.incident.host, CUT_STORAGE, at, True, case.incident.round, seen, names)


def missing(case: Case) -> str:
    """'' or what came of the cuts of this round, to stand behind what is missing of its power."""
    words = []
    for step in _of_round(case):
        is_cut = step.state is StepState.DONE
        words.append(f"; {'cut off from' if is_cut else 'not cut off from'} {step.args['backend']}: {step.because}")
    return "".join(words)


def is_open(case: Case) -> bool:
    """A cut of this round may still be proven."""
    return any(step.is_open for step in _of_round(case))


def was_in_vain(case: Case) -> bool:
    """A cut of this round was given up, and that storage may take it by now; or it was made, and no proof came of it,
    because the host was heard then."""
    held = case.incident.proof
    proven = held.backends if held is not None and held.round == case.incident.round else ()
    return any(step.args["backend"] not in proven for step in _of_round(case))


def boot_of(case: Case) -> str:
    """The boot of the host as its agent told it last; '' where none tells, or where its nova-compute was heard later
    than that: it may have booted meanwhile, and what ran then would be taken for gone."""
    seen = case.evidence.seen.get(Channel.AGENT)
    if seen is None or seen.reading is not Reading.UP or case.evidence.heard_at > seen.at + BOOTS_S:
        return ""
    return seen.detail


# Given back.


def outstanding(steps: Iterable[Step]) -> dict[str, Step]:
    """The backends that an incident may have cut its host off from and did not restore since: backend -> its newest
    cut."""
    cut: dict[str, Step] = {}
    restored: dict[str, int] = {}
    for step in steps:
        if step.verb is Verb.CUT_STORAGE and _may_hold(step):
            name = step.args["backend"]
            cut[name] = max(cut.get(name, step), step, key=round_of)
        elif step.verb is Verb.RESTORE_STORAGE and step.state is StepState.DONE:
            restored[step.args["backend"]] = max(restored.get(step.args["backend"], 0), round_of(step))
    return {name: step for name, step in sorted(cut.items()) if restored.get(name, 0) < round_of(step)}


def _may_hold(step: Step) -> bool:
    """Not where the storage was read OPEN after its call was over: then nothing landed, and nothing will."""
    if step.state is StepState.DONE or not step.observed:
        return step.attempt > 0
    seen = step.observed[-1]
    return seen.reading != Access.OPEN.value or seen.at <= max(step.started_at, step.acted_at) + CALL_LIMIT_S


def is_clean(case: Case, cut: Step, now: float) -> bool:
    """No guest is left of a VM that was sent elsewhere: it was proven down since it was cut off, or its agent tells,
    just now, of another boot than when that VM was sent. One that tells of the same boot belies whatever was proven,
    and so does one that was called down and is heard. An operator's word alone is not enough where its agent will tell:
    who is mistaken would let it write."""
    boot, whole, evidence = _boot_of_twins(case, cut), case.incident.proof, case.evidence
    is_told = 0.0 <= evidence.agent_silent_s(now) <= case.policy.agent_failed_s
    told = boot_of(case) if is_told else ""
    is_whole = whole is not None and whole.is_whole and whole.round == case.incident.round
    if boot and told and told != boot:
        return True
    if boot and told and evidence.seen[Channel.AGENT].at > (whole.at if whole is not None and is_whole else 0.0):
        return False
    if whole is not None and is_whole:
        return whole.kind != WORD or (evidence.beat_at <= whole.at and (not boot or "close" in case.orders))
    proven = (one for one in case.steps if one.verb is Verb.POWER_OFF and one.state is StepState.DONE)
    return any(round_of(one) >= round_of(cut) for one in proven)


def _boot_of_twins(case: Case, newest: Step) -> str:
    """The boot in which it may have guests whose VMs were sent elsewhere: the one that it was in when it was cut off in
    the newest round in which any was."""
    sent = [one for one in case.steps if one.verb is Verb.EVACUATE and one.attempt and one.args.get("target")]
    last = max((int(one.args.get(ROUND, case.incident.round)) for one in sent), default=case.incident.round)
    cuts = (one for one in case.steps if one.verb is Verb.CUT_STORAGE and one.args["backend"] == newest.args["backend"])
    before = [one for one in cuts if round_of(one) <= last]
    return max(before, key=round_of, default=newest).args.get("boot", "")


def waits_to_be_clean(case: Case, now: float) -> str:
    """'' or from which storages it stays cut off, because of what it may still run."""
    left = [name for name, step in outstanding(case.steps).items() if not is_clean(case, step, now)]
    whole = case.incident.proof
    closed = whole is not None and (whole.kind, whole.round) == (WORD, case.incident.round)
    until = "until its power is read OFF, its agent tells of another boot, or it is closed by an order"
    if not closed and case.evidence.agent_from:
        until = "until it is proven down, or its agent tells of another boot"
    elif not closed:
        until = "until it is proven down: by its BMC, or switch it off and confirm that it is down"
    return f"it stays cut off from {', '.join(left)} {until}" * bool(left)


def restored(case: Case, now: float) -> tuple[Step, ...]:
    """The steps that give it back what it was cut off from, as far as that may begin now: not while a cut may still
    land."""
    changed = []
    for name, cut in outstanding(case.steps).items():
        step = _restore_of(case, name)
        if step.state is StepState.STARTED and not is_clean(case, cut, now):
            changed.append(replace(step, state=StepState.FAILED, ended_at=now, because="its old guests may be there"))
            continue
        tried_s = now - step.ended_at if step.state is StepState.FAILED else inf
        if step.state is StepState.STARTED or not is_clean(case, cut, now) or tried_s < case.policy.fence_retry_s:
            continue
        if now >= max(cut.started_at, cut.acted_at) + CALL_LIMIT_S:
            changed.append(start(replace(step, attempt=0), now))
    return tuple(changed)


def is_given_back(case: Case) -> str:
    """What is being given back to it, and what came of that so far where it was in vain."""
    words = []
    for name in outstanding(case.steps):
        why = trouble(_restore_of(case, name))
        words.append(f"{name} ({why})" if why else name)
    return f"it is given back {', '.join(words)}"


def trouble(step: Step) -> str:
    """'' or why it does not get on."""
    if step.state is StepState.FAILED:
        return step.because
    seen = step.observed[-1:]
    return "".join(one.text for one in seen if one.answer in (Answer.UNKNOWN, Answer.FAILED))


def left_the_topology(case: Case) -> bool:
    """Nobody can give it back what it is still cut off from: no storage of that name knows it any more."""
    return _known(case).isdisjoint(outstanding(case.steps))


def unread_since(case: Case, at: float) -> list[Step]:
    """A look for each storage that an order to cut it off may have reached, and that was not read since then: such an
    order may have landed late, sent by an engine that slept for longer than any call takes. What left the topology is
    read by nobody."""
    cut = {one.args["backend"] for one in case.steps if one.verb is Verb.CUT_STORAGE and one.attempt}
    looks = (_restore_of(case, name) for name in sorted(cut & _known(case)))
    return [one for one in looks if one.state is not StepState.DONE or one.ended_at < at]


def read_again(unread: Iterable[Step], case: Case, now: float) -> list[Step]:
    """Those looks that begin now."""
    rest_s = case.policy.fence_retry_s
    due = (one for one in unread if one.state is not StepState.STARTED)
    due = (one for one in due if one.state is not StepState.FAILED or now - one.ended_at >= rest_s)
    return [start(replace(one, attempt=0), now) for one in due]


def _known(case: Case) -> set[str]:
    return {one.name for one in case.segment.backends_of(case.incident.host)}


def _restore_of(case: Case, backend: str) -> Step:
    step_id = _step_id(case, Verb.RESTORE_STORAGE, backend)
    fresh = Step(step_id, case.incident.id, Verb.RESTORE_STORAGE, case.incident.host, {"backend": backend})
    return case.step(step_id) or fresh


def round_of(step: Step) -> int:
    """The incident's round that it belongs to: its id says so."""
    return int(step.id.removeprefix(f"{step.incident}/").partition("/")[0])


def last(step: Step) -> str:
    return step.observed[-1].text if step.observed else "no answer yet"


def _of_round(case: Case) -> list[Step]:
    of_cuts = (step for step in case.steps if step.verb is Verb.CUT_STORAGE)
    return [step for step in of_cuts if round_of(step) == case.incident.round]


def _step_id(case: Case, verb: Verb, backend: str) -> str:
    return f"{case.incident.id}/{case.incident.round}/{verb.value}/{backend}"
