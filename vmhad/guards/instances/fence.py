# SPDX-License-Identifier: Apache-2.0
"""From the suspicion that a VM failed alone to the proof that its guest may be restarted where it is.

There is nothing to switch off: on one host a hypervisor runs a guest once, and Nova ends what is left of it before it
starts it anew. So the proof is a look made after the incident began: Nova's at the server and at what was done to it,
and its hypervisor's at the guest, where somebody tells.
"""

from __future__ import annotations

from vmhad.guards.instances.judge import Guest, Nova, Remedy, Row, guest_of, is_left, is_resumed, judge, judged
from vmhad.kernel.alone import OWNED, counted_from, spent
from vmhad.kernel.beat import DomainState
from vmhad.kernel.case import Move, VmCase
from vmhad.kernel.cloud import Server
from vmhad.kernel.incident import Event
from vmhad.kernel.order import CLOSED_BY_ORDER
from vmhad.kernel.proof import Proof
from vmhad.kernel.step import Answer, Observation, Verb
from vmhad.kernel.verdict import Ailment, Judgement

LOOK_AGAIN_S = 2.0
# What it was opened on may be what it is decided from.
JUST_BEFORE_S = 1.0
# While something is waited for it may be stopped, or deleted.
OLD_S = 5.0
# Whoever works on it, or cannot tell, has this long before it is left to them.
UNTOLD_S = 120.0
# A host tells that it lost a storage some seconds after the first error of a disk on it.
STORAGE_TOLD_S = 8.0
# How a reason ends that is policy's.
LEAVES = " = leave"


def suspect(case: VmCase, now: float) -> Move:
    """SUSPECTED: did it fail, and is it ours to restart?"""
    if "close" in case.orders:
        return Move(CLOSED_BY_ORDER, Event.CLOSED)
    if case.owner:
        return Move(f"{OWNED}: {case.owner}", Event.DISMISSED)
    since = _since(case, now)
    row = judge(case) if _is_read_since(case, since) else None
    if row is None:
        return Move(case.incident.because, held=case.incident.held, needs_inventory=since, wake_at=now + LOOK_AGAIN_S)
    if row.judgement is Judgement.SUSPECT:
        return _wait(case, row, now)
    why_not = _why_not(case, row)
    if why_not:
        return Move(why_not, Event.DISMISSED)
    if not case.verdict.serves or (case.verdict.unfit and case.verdict.ailment is not Ailment.HARDWARE):
        # Hardware that complains carries the VM it carried before; elsewhere it is moved by its host's drain.
        held = f"its host is not well: {case.verdict.because}"
        return Move(case.incident.because, held=held, wake_at=now + LOOK_AGAIN_S)
    if case.hold:
        return Move(case.incident.because, held=case.hold, wake_at=now + LOOK_AGAIN_S)
    return Move(row.because, Event.FAILED)


def fence(case: VmCase, now: float) -> Move:
    """FENCING: the proof, or what speaks against it."""
    if case.owner:
        return Move(f"{OWNED}: {case.owner}", Event.WITHDRAWN)
    if "close" in case.orders:
        return Move(CLOSED_BY_ORDER, Event.WITHDRAWN)
    since = _since(case, now)
    if not _is_read_since(case, since):
        because = "looked at again before it is restarted"
        return Move(because, held=case.incident.held, needs_inventory=since, wake_at=now + LOOK_AGAIN_S)
    row = judge(case)
    why_not = _why_not(case, row)
    if row.judgement is Judgement.SUSPECT or why_not:
        return Move(why_not or row.because, Event.WITHDRAWN)
    resumed = is_resumed(case)
    no_more = "" if resumed else _spent(case)
    if no_more:
        return Move(no_more, Event.EXHAUSTED)
    held = case.hold or _beside_hold(case) or _storage_hold(case, resumed, now)
    if held:
        return Move(case.incident.because, held=held, wake_at=now + LOOK_AGAIN_S)
    if row.remedy is Remedy.REBOOT and case.standing is not None and case.domain_at < case.standing.at:
        # A reboot of its user may have been over when Nova was asked, and not begun when its hypervisor was.
        return Move(case.incident.because, held=case.incident.held, wake_at=now + LOOK_AGAIN_S)
    if case.under_way >= case.policy.instance_restarts_max:
        held = f"{case.under_way} restarts are under way, as many as instance_restarts_max allows"
        return Move(case.incident.because, held=held, wake_at=now + LOOK_AGAIN_S)
    return Move(f"proven: {row.because}", Event.PROVEN, proof=_proof(case, row, resumed))


def _beside_hold(case: VmCase) -> str:
    """'' or why nothing is started here: Nova may not know where a live migration left it."""
    return f"{case.beside} says that it has its guest: nothing is started here before that ends" if case.beside else ""


def _storage_hold(case: VmCase, resumed: bool, now: float) -> str:
    """'' or why what its disk failed waits: restarted without its disk it would only be broken more."""
    if guest_of(case.domain) not in (Guest.FROZEN, Guest.DISK_PAUSED):
        return ""
    how = "resumed" if resumed else "restarted"
    if case.storage_down:
        return f"storage {case.storage_down} is not reached from its host: it is {how} when that is back"
    if now < case.incident.turns[-1].at + STORAGE_TOLD_S:
        return f"its host's storages are read for some seconds more before it is {how}"
    return ""


def _spent(case: VmCase) -> str:
    since = counted_from(case.incident)
    resumed = sum(one.verb is Verb.RESUME and one.started_at >= since for one in case.steps)
    return spent(
        case.incident, case.starts, case.policy.instance_starts_max, case.policy.instance_window_s, resumed
    )


def _is_read_since(case: VmCase, since: float) -> bool:
    return case.standing is not None and case.standing.at >= since


def _since(case: VmCase, now: float) -> float:
    """When how it stands must have been read: since it began, or was looked at again; and never long ago."""
    begun = case.incident.turns[-1].at if case.incident.round > 1 else case.incident.opened_at - JUST_BEFORE_S
    return max(begun, now - OLD_S)


def _wait(case: VmCase, row: Row, now: float) -> Move:
    """A task of its user ends, a beat comes: it is asked again. What nobody can tell for long is left alone, unless its
    hypervisor says all the time that it failed: a task may take long, and when it is over it still has failed."""
    is_long = now > case.incident.opened_at + UNTOLD_S
    is_ill = judged(Nova.ACTIVE, guest_of(case.domain)).judgement is Judgement.FAILED
    if is_long and not (is_ill and Nova.BUSY in row.nova):
        return Move(f"left alone: {row.because}", Event.DISMISSED)
    since = now - (OLD_S if is_long else LOOK_AGAIN_S / 2)
    return Move(case.incident.because, held=row.because, needs_inventory=since, wake_at=now + LOOK_AGAIN_S)


def was_left_by_policy(because: str, server: Server) -> bool:
    """Whether this end of its incident was a policy's doing: what that says anew counts for it, too."""
    return because.endswith(LEAVES) or because == server.settings.why_left


def _why_not(case: VmCase, row: Row) -> str:
    """'' or why it is not touched."""
    if row.judgement is Judgement.HEALTHY:
        return row.because
    server = case.standing.server if case.standing else None
    if server is not None and server.opted_out(case.policy.opt_out_key):
        return "its owner opted out"
    if server is not None and server.settings.why_left:
        return server.settings.why_left
    if is_left(case.policy, row):
        return f"left alone: {row.because}, and {row.policy}{LEAVES}"
    return ""


def _proof(case: VmCase, row: Row, resumed: bool) -> Proof:
    """Of the looks that it rests on the older one dates it: what lives after that voids it."""
    assert case.standing is not None
    remedy = Verb.RESUME.value if resumed else row.remedy.value
    seen = [Observation(case.standing.at, Answer.SO, remedy, row.because)]
    if case.domain is not None and case.domain.state is not DomainState.RUNNING:
        said = f"its hypervisor says {case.domain.state.value}"
        said += f" ({case.domain.detail})" if case.domain.detail else ""
        seen.append(Observation(case.domain_at, Answer.SO, case.domain.state.value, said))
    at = min(one.at for one in seen)
    return Proof(case.incident.host, "guest_gone", at, False, case.incident.round, tuple(seen))
