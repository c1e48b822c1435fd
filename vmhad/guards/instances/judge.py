# SPDX-License-Identifier: Apache-2.0
"""Did this VM fail, or does its user want it so? A table; the first row that fits decides, and says why.

Rules the table keeps: whatever its user did or does is left alone; what nobody can tell is left alone; a guest that its
hypervisor says runs is never restarted because Nova says otherwise, and the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vmhad.kernel.beat import DISK_PAUSED, Domain, DomainState
from vmhad.kernel.case import VmCase
from vmhad.kernel.cloud import ServerState, Standing
from vmhad.kernel.policy import OnFailure, OnIoError, Policy
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.kernel.verdict import Judgement

# libvirt's own reasons, as a beat has them.
PANICKED, SHUT_DOWN = "panicked", "shutdown"
# What a look says of a user who acted since the proof.
USERS = "user's"


class Nova(StrEnum):
    """What Nova says of the server. BUSY: somebody's task is under way. STOPPED_ITSELF: Nova switched it off, because
    it found the guest gone, and nobody did anything since."""

    UNREAD = "unread"
    GONE = "gone"
    ELSEWHERE = "elsewhere"
    BUSY = "busy"
    STOPPED_ITSELF = "stopped by Nova itself"
    STOPPED = "stopped"
    ACTIVE = "active"
    OTHER = "in another state"


class Guest(StrEnum):
    """What its hypervisor says of the guest."""

    UNKNOWN = "unknown"
    RUNNING = "running"
    PAUSED = "paused"
    SHUT_DOWN = "shut down from inside"
    SHUT_OFF = "off"
    CRASHED = "crashed"
    PANICKED = "panicked"
    FROZEN = "frozen"
    DISK_PAUSED = "paused by its disk"
    UNRESPONSIVE = "unresponsive"
    OTHER = "other"


class Remedy(StrEnum):
    """START: Nova calls it stopped. REBOOT: Nova calls it active, and restarts the guest whatever became of it."""

    NONE = ""
    START = "start"
    REBOOT = "reboot"


@dataclass(frozen=True, slots=True)
class Row:
    """An empty set matches everything. SUSPECT: waits until it can be told. policy: the field that says whether a
    remedy is wanted."""

    nova: frozenset[Nova]
    guest: frozenset[Guest]
    judgement: Judgement
    because: str
    remedy: Remedy = Remedy.NONE
    policy: str = ""


def _row(
    nova: str, guest: str, judgement: Judgement, because: str, remedy: Remedy = Remedy.NONE, policy: str = ""
) -> Row:
    return Row(
        frozenset(Nova[word] for word in nova.split()),
        frozenset(Guest[word] for word in guest.split()),
        judgement,
        because,
        remedy,
        policy,
    )


TABLE: tuple[Row, ...] = (
    _row("UNREAD", "", Judgement.SUSPECT, "how Nova says that it stands is being read"),
    _row("GONE", "", Judgement.HEALTHY, "it was deleted"),
    _row("ELSEWHERE", "", Judgement.HEALTHY, "it has left its host"),
    _row("BUSY", "", Judgement.SUSPECT, "somebody's task for it is under way"),
    _row("OTHER", "", Judgement.HEALTHY, "it is neither active nor stopped: that is somebody's wish"),
    _row("STOPPED", "", Judgement.HEALTHY, "it was stopped by its user"),
    _row(
        "STOPPED_ITSELF",
        "SHUT_DOWN",
        Judgement.HEALTHY,
        "its hypervisor says that it was shut down from inside: that is its user's wish",
    ),
    _row(
        "STOPPED_ITSELF",
        "RUNNING PAUSED FROZEN DISK_PAUSED UNRESPONSIVE",
        Judgement.SUSPECT,
        "Nova calls it stopped and its hypervisor says that it is there",
    ),
    _row(
        "STOPPED_ITSELF",
        "UNKNOWN SHUT_OFF CRASHED PANICKED OTHER",
        Judgement.FAILED,
        "Nova found its guest gone and switched it off",
        Remedy.START,
        "on_crash",
    ),
    _row("ACTIVE", "PANICKED", Judgement.FAILED, "its guest panicked", Remedy.REBOOT, "on_panic"),
    _row("ACTIVE", "CRASHED", Judgement.FAILED, "its guest is gone or broken", Remedy.REBOOT, "on_crash"),
    _row("ACTIVE", "FROZEN", Judgement.FAILED, "its disk fails it", Remedy.REBOOT, "on_io_error"),
    _row(
        "ACTIVE", "DISK_PAUSED", Judgement.FAILED, "its disk failed it and it was paused", Remedy.REBOOT, "on_io_error"
    ),
    _row(
        "ACTIVE",
        "UNRESPONSIVE",
        Judgement.FAILED,
        "its guest agent answered once and does not any more",
        Remedy.REBOOT,
        "on_silent_agent",
    ),
    _row("ACTIVE", "SHUT_DOWN", Judgement.HEALTHY, "it was shut down from inside: that is its user's wish"),
    _row("ACTIVE", "PAUSED", Judgement.HEALTHY, "its guest is paused: that is somebody's wish"),
    _row("ACTIVE", "UNKNOWN RUNNING SHUT_OFF OTHER", Judgement.HEALTHY, "nothing says that it failed"),
)


def judge(case: VmCase) -> Row:
    return judged(nova_of(case.standing, case.incident.host), guest_of(case.domain))


def judged(nova: Nova, guest: Guest) -> Row:
    for row in TABLE:
        if (not row.nova or nova in row.nova) and (not row.guest or guest in row.guest):
            return row
    raise AssertionError(f"no row for {nova.value}, {guest.value}")


def nova_of(standing: Standing | None, host: str) -> Nova:
    if standing is None:
        return Nova.UNREAD
    server = standing.server
    if server is None:
        return Nova.GONE
    if server.host != host:
        return Nova.ELSEWHERE
    if server.task_state:
        return Nova.BUSY
    if server.state is ServerState.ACTIVE:
        return Nova.ACTIVE
    if server.state is not ServerState.STOPPED:
        return Nova.OTHER
    newest = standing.actions[0] if standing.actions else None
    by_itself = newest is not None and newest.kind == "stop" and not newest.by_user
    return Nova.STOPPED_ITSELF if by_itself else Nova.STOPPED


def guest_of(domain: Domain | None) -> Guest:
    if domain is None:
        return Guest.UNKNOWN
    if domain.state is DomainState.CRASHED and domain.detail == PANICKED:
        return Guest.PANICKED
    if domain.state is DomainState.SHUT_OFF and domain.detail == SHUT_DOWN:
        return Guest.SHUT_DOWN
    if domain.state is DomainState.FROZEN and domain.detail.startswith(DISK_PAUSED):
        return Guest.DISK_PAUSED
    return Guest[domain.state.name]


def is_left(policy: Policy, row: Row) -> bool:
    """The segment's policy says that a VM which fails so is left as it is."""
    return bool(row.policy) and getattr(policy, row.policy).value == OnFailure.LEAVE.value


def is_resumed(case: VmCase) -> bool:
    """Its guest goes on where it was, rather than being started anew: by policy, until it was tried often enough or
    its host's agent declined."""
    if case.policy.on_io_error is not OnIoError.RESUME or guest_of(case.domain) is not Guest.DISK_PAUSED:
        return False
    return case.resumes < case.policy.instance_starts_max and not any(map(_was_declined, case.steps))


def _was_declined(step: Step) -> bool:
    """By the agent: its user's was another reason not to act."""
    is_over = step.verb is Verb.RESUME and step.state is StepState.FAILED
    return is_over and not step.acts and not any(one.reading == USERS for one in step.observed[-1:])


def is_worth_asking(policy: Policy, domain: Domain, ill_s: float) -> bool:
    """What its hypervisor says is enough to open an incident, if Nova calls it active."""
    row = judged(Nova.ACTIVE, guest_of(domain))
    long_enough = domain.state is not DomainState.UNRESPONSIVE or ill_s >= policy.silent_agent_s
    return row.judgement is Judgement.FAILED and long_enough and not is_left(policy, row)
