# SPDX-License-Identifier: Apache-2.0
"""What the observations of STARTED steps conclude: done, failed, tried again later, or still open."""

from __future__ import annotations

from dataclasses import replace

from vmhad.kernel.case import Case
from vmhad.kernel.cloud import EVACUATION, OVER, Migration
from vmhad.kernel.step import Answer, Observation, Step, StepState, Verb, start

PROOF_REFUSED = "proof refused"
# Nova has a record before it answers; after this long without one the call was lost on its way.
CALL_LIMIT_S = 15.0
FAILED_ON_TARGET = "failed"
# The argument of an evacuation that waits for the proof of this host, where its VM may run or arrive yet.
AWAITS = "awaits"
# The argument of an evacuation that ended because its VM is to be left alone by now; no return of its host starts it.
LEFT = "left"
# No nova-compute has read the request yet.
UNTAKEN = "accepted"
# Said of an evacuation that no nova-compute took up and that Nova has no task for. One that was taken up may look so,
# too: its guest runs and the task is over, but nova-compute waits for its resource tracker's lock before it finishes,
# for more than 6 s where fifteen guests arrive at once. Such a one is waited for.
IDLE = "idle"
# Nova's fault where a guest of that name is on the target already, left by an attempt that Nova gave up.
COPY_THERE = "already exists"
IDLE_S = 5.0
# A record still accepted after two of Nova's RPC timeouts: the request was lost between its services.
ACCEPTED_S = 120.0


def settle(case: Case, now: float, verbs: tuple[Verb, ...]) -> tuple[Step, ...]:
    """The steps whose newest observation changes them, with the steps that follow from them.

    verbs: those of the incident's present state. What an earlier state left STARTED stays so: concluded now, it might
    be started again.
    """
    changed: list[Step] = []
    for step in case.steps:
        if step.state is StepState.STARTED and step.verb in verbs and step.observed:
            moved = _conclude(case, step, step.observed[-1], now)
            if moved != step:
                changed.append(moved)
                changed.extend(_follow(case, moved, now))
    return tuple(changed)


def proof_was_refused(case: Case) -> bool:
    """An act was not made because the proof of its host did not hold when it was read just before."""
    return any(_is_refused(step) and _refused_for(step) == case.incident.host for step in case.steps)


def refused_elsewhere(case: Case, now: float) -> tuple[Step, ...]:
    """Evacuations whose act was not made because another host that may run the VM was not read OFF just before. What
    was proven of the dead host stands; they wait for the other one."""
    refused = (step for step in case.steps if step.verb is Verb.EVACUATE and _is_refused(step))
    elsewhere = (step for step in refused if _refused_for(step) != case.incident.host)
    return tuple(later(case, replace(step, observed=()), step.observed[-1].text, now) for step in elsewhere)


def unstarted(case: Case) -> tuple[Step, ...]:
    """Those steps, whose act was never made: evacuations are PLANNED again, what belongs to this round ends with it."""
    return tuple(
        replace(step, state=StepState.PLANNED if step.verb is Verb.EVACUATE else StepState.FAILED, observed=())
        for step in case.steps
        if _is_refused(step)
    )


def later(case: Case, step: Step, because: str, now: float) -> Step:
    """PLANNED again after a growing pause, or FAILED when every attempt is used up. step.attempt counts them."""
    if step.attempt >= case.policy.evacuate_attempts_max:
        return replace(step, state=StepState.FAILED, because=because, ended_at=now)
    pause_s = min(case.policy.retry_backoff_s * 2 ** max(0, step.attempt - 1), case.policy.retry_backoff_max_s)
    return replace(
        step, state=StepState.PLANNED, because=f"{because}; again in {pause_s:g} s", not_before=now + pause_s
    )


def known_migrations(server_id: str, migrations: tuple[Migration, ...], step: Step) -> dict[str, str]:
    """The server's evacuations from before this attempt: those that were over tell nothing of it («known»); those that
    were given up with their target may yet turn out to have carried it («given_up»)."""
    mine = [one for one in migrations if one.server == server_id and one.kind == EVACUATION]
    over = {one.id for one in mine if one.status in OVER}
    return {
        "known": _joined(step, "known", *over),
        "given_up": _joined(step, "given_up", *({one.id for one in mine} - over)),
    }


def _joined(step: Step, key: str, *more: str) -> str:
    return ",".join(sorted({*step.args.get(key, "").split(","), *more} - {""}))


def _is_refused(step: Step) -> bool:
    return step.state is StepState.STARTED and bool(step.observed) and step.observed[-1].reading == PROOF_REFUSED


def _refused_for(step: Step) -> str:
    """The host that was not read OFF; the executor's sentence begins with it."""
    return step.observed[-1].text.partition(" ")[0]


def _conclude(case: Case, step: Step, newest: Observation, now: float) -> Step:
    if newest.answer is Answer.SO:
        return replace(step, state=StepState.DONE, ended_at=now, because=newest.text)
    if step.verb is Verb.EVACUATE:
        return _conclude_evacuation(case, step, newest, now)
    too_late = now > step.started_at + case.policy.evacuate_deadline_s
    if newest.answer is Answer.NOT_YET and too_late:
        # Another attempt would only be another wait.
        return replace(step, state=StepState.FAILED, ended_at=now, because=f"not finished in time: {newest.text}")
    if newest.answer is Answer.FAILED or too_late:
        if step.attempt < case.policy.evacuate_attempts_max:
            return start(step, now)
        return replace(step, state=StepState.FAILED, ended_at=now, because=newest.text)
    if newest.answer is Answer.NOT_SO and step.acts and newest.at > step.acted_at + CALL_LIMIT_S:
        return _again(case, step, f"done in vain: {newest.text}", now)
    return step


def _again(case: Case, step: Step, because: str, now: float) -> Step:
    if step.attempt < case.policy.evacuate_attempts_max:
        return start(step, now)
    return replace(step, state=StepState.FAILED, ended_at=now, because=because)


def _left(case: Case, step: Step, now: float) -> Step | None:
    """Its end, where its VM is to be left alone by now: then it is not asked for once more."""
    servers = case.inventory.servers if case.inventory is not None else ()
    server = next((one for one in servers if one.id == step.subject), None)
    why_left = server.why_left(case.policy.opt_out_key) if server is not None else ""
    return failed(step, why_left, now, LEFT) if why_left else None


def failed(step: Step, because: str, now: float, *marks: str) -> Step:
    """marks: arguments that say more of how it ended."""
    args = {**step.args, **dict.fromkeys(marks, "yes")}
    return replace(step, args=args, state=StepState.FAILED, ended_at=now, because=because)


def _conclude_evacuation(case: Case, step: Step, newest: Observation, now: float) -> Step:
    target = step.args["target"]
    if COPY_THERE in newest.text and (newest.answer is Answer.FAILED or _was_dropped(step, newest)):
        because = f"{target} holds a copy that Nova cannot adopt: remove it there, or fence {target}, and order a retry"
        return replace(step, state=StepState.FAILED, ended_at=now, because=because)
    if newest.answer is Answer.FAILED:
        args = dict(step.args)
        migration, _, status = newest.reading.partition(" ")
        args["failed_on"] = _joined(step, "failed_on", target)
        args["known"] = _joined(step, "known", migration)
        if status == FAILED_ON_TARGET:
            args["unclean_on"] = _joined(step, "unclean_on", target)
        return later(case, replace(step, args=args), newest.text, now)
    is_lost = newest.answer is Answer.NOT_SO and step.acts > 0 and newest.at > step.acted_at + CALL_LIMIT_S
    if is_lost and target not in case.busy_hosts and _serves(case, target):
        # Nova never made a record of it: the call was lost on its way, or whoever stopped before it will send it yet.
        # The same target again, unless that one fell; and no other in the next round.
        again = _left(case, step, now) or _again(case, step, f"Nova makes no record of it: {newest.text}", now)
        unclean_on = _joined(step, "unclean_on", target) if again.state is StepState.FAILED else ""
        return replace(again, args={**again.args, "unclean_on": unclean_on}) if unclean_on else again
    if _was_dropped(step, newest):
        args = {**_given_up(step, newest), AWAITS: target}
        return later(case, replace(step, args=args), f"Nova dropped it: {newest.text}", now)
    if target in case.proofs and (is_lost or newest.answer is Answer.NOT_YET and _died_since(case, step)):
        # The target died while receiving, and is proven off: it cannot finish, and it cannot run the VM.
        args = {**_given_up(step, newest), AWAITS: target}
        args["unclean_on"] = _joined(step, "unclean_on", target)
        return replace(
            step, state=StepState.PLANNED, args=args, observed=(), because=f"{target} died while receiving it"
        )
    if now > step.started_at + case.policy.evacuate_deadline_s:
        args = dict(step.args)
        if step.acts and newest.answer is Answer.NOT_SO:
            args["unclean_on"] = _joined(step, "unclean_on", target)
        because = f"not finished in time: {newest.text}"
        return replace(step, state=StepState.FAILED, args=args, ended_at=now, because=because)
    return step


def _given_up(step: Step, newest: Observation) -> dict[str, str]:
    """Its arguments, with the record of this attempt: its request may still wait on the target («left_on»)."""
    migration = newest.reading.partition(" ")[0]
    left_on = (f"{step.args['target']}/{migration}",) if migration else ()
    given_up = _joined(step, "given_up", migration)
    return {**step.args, "given_up": given_up, "left_on": _joined(step, "left_on", *left_on)}


def left_unread(case: Case, step: Step, migrations: tuple[Migration, ...]) -> tuple[str, ...]:
    """The hosts where requests for its VM may still wait, one for each: those that do not serve. Of attempts that were
    given up, and of any that Nova has a record of: one may have come late from an engine that was stopped.

    Whoever reads one when the VM is elsewhere finds another task than it expects, gives up, and leaves Nova with the
    task that it expected. That is what lets a second one start the VM beside itself.
    """
    left = {migration: host for host, migration in _left_on(step)}
    left |= {one.id: one.target for one in migrations if one.server == step.subject and one.status == UNTAKEN}
    return tuple(sorted(host for host in left.values() if host in case.busy_hosts or not _serves(case, host)))


def left_on(step: Step) -> frozenset[str]:
    """The hosts that requests of attempts which were given up went to."""
    return frozenset(host for host, _ in _left_on(step))


def may_hold(step: Step) -> frozenset[str]:
    """The hosts beside its own that may run its VM: they failed to start it, or a request of it was left there."""
    return left_on(step) | frozenset(step.args.get("unclean_on", "").split(",")) - {""}


def _left_on(step: Step) -> list[tuple[str, str]]:
    entries = (one.partition("/") for one in step.args.get("left_on", "").split(",") if one)
    return [(host, migration) for host, _, migration in entries]


def _serves(case: Case, host: str) -> bool:
    verdict = case.verdicts.get(host)
    return verdict is not None and verdict.serves


def _died_since(case: Case, step: Step) -> bool:
    """A proof of another engine's time has no time of ours (it is 0.0). It is held, and no target is chosen that has an
    open incident: so it came after the step, too."""
    proven_at = case.proofs[step.args["target"]].at
    return proven_at == 0.0 or proven_at > step.started_at


def _was_dropped(step: Step, newest: Observation) -> bool:
    """Nova will never finish what it has a record of. The next attempt goes to the same target: it may be there."""
    status = newest.reading.partition(" ")[2]
    if newest.answer is not Answer.NOT_YET:
        return False
    if status == UNTAKEN:
        return newest.at > step.started_at + ACCEPTED_S
    idle = [seen for seen in step.observed if seen.reading == newest.reading]
    return status == IDLE and newest.at - idle[0].at >= IDLE_S


def _follow(case: Case, step: Step, now: float) -> tuple[Step, ...]:
    if step.verb is not Verb.EVACUATE or step.state is not StepState.DONE:
        return ()
    return (restore_state(case, step, now),)


def restore_state(case: Case, evacuated: Step, now: float) -> Step:
    """What follows every departure, however it came about: the VM's former power state, looked at where it is now."""
    args = {key: evacuated.args.get(key, "") for key in ("name", "state", "target")} | {"source": case.incident.host}
    step_id = f"{case.incident.id}/{Verb.RESTORE_STATE.value}/{evacuated.subject}"
    step = case.step(step_id) or Step(step_id, evacuated.incident, Verb.RESTORE_STATE, evacuated.subject)
    return start(step, now, args)
