# SPDX-License-Identifier: Apache-2.0
"""What a beat says of a guest, for every state that libvirt knows, and what is remembered between two lists."""

from __future__ import annotations

import pytest

from vmhad.agent.guest_states import (
    BLOCKED,
    CRASHED,
    DISK_QUIET_S,
    PANICKED,
    PAUSED,
    RUNNING,
    SHUT_OFF,
    GuestStates,
    Row,
    level,
)
from vmhad.kernel.beat import DISK_PAUSED, Domain, DomainState


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        (RUNNING, 1, DomainState.RUNNING),
        (BLOCKED, 0, DomainState.RUNNING),
        (PAUSED, 1, DomainState.PAUSED),
        (PAUSED, 5, DomainState.FROZEN),
        (PAUSED, 6, DomainState.CRASHED),
        (PAUSED, 99, DomainState.PAUSED),
        (SHUT_OFF, 0, DomainState.SHUT_OFF),
        (SHUT_OFF, 1, DomainState.SHUT_OFF),
        (SHUT_OFF, 2, DomainState.SHUT_OFF),
        (SHUT_OFF, 3, DomainState.CRASHED),
        (SHUT_OFF, 6, DomainState.CRASHED),
        (CRASHED, 1, DomainState.CRASHED),
        (7, 0, DomainState.OTHER),
        (0, 0, DomainState.OTHER),
        (42, 0, DomainState.OTHER),
    ],
)
def test_the_list_alone(state: int, reason: int, said: DomainState) -> None:
    assert level(state, reason)[0] is said


class Guest:
    """One guest whose list is taken again and again."""

    def __init__(self) -> None:
        self.states = GuestStates()
        self.process = 1
        self.now = 100.0

    def list(
        self, state: int = RUNNING, reason: int = 1, disk: str = "", agent: bool | None = None, panic: bool = False
    ) -> Domain:
        """A second later. disk, agent, panic: what was heard since the last list."""
        self.now += 1.0
        rows = [Row("vm", self.process, state, reason)]
        self.states.meet(rows)
        if disk:
            self.states.disk_error("vm", disk, self.now)
        if agent is not None:
            self.states.agent("vm", agent)
        if panic:
            self.states.panic("vm")
        return self.states.take(rows, self.now)["vm"]


def test_since_when() -> None:
    guest = Guest()
    assert [guest.list().since_s for _ in range(3)] == [101.0] * 3
    guest.process = -1
    assert guest.list(SHUT_OFF, 3) == Domain(DomainState.CRASHED, "crashed", 104.0)
    assert guest.list(SHUT_OFF, 3).since_s == 104.0


def test_a_disk_that_gives_errors_without_a_pause() -> None:
    guest = Guest()
    guest.list()
    assert guest.list(disk="vda") == Domain(DomainState.FROZEN, "I/O error on vda", 102.0)
    assert guest.list().state is DomainState.FROZEN
    guest.now += DISK_QUIET_S
    assert guest.list().state is DomainState.RUNNING


def test_a_disk_error_is_forgotten_with_the_process() -> None:
    guest = Guest()
    guest.list(disk="vda")
    guest.process = 2
    assert guest.list().state is DomainState.RUNNING


@pytest.mark.parametrize("heard", ["before it is off", "with its end"])
def test_a_panic_that_ended_a_guest_is_told_as_one(heard: str) -> None:
    guest = Guest()
    guest.list(panic=heard == "before it is off")
    guest.process = -1
    told = [guest.list(SHUT_OFF, 3, panic=heard == "with its end"), guest.list(SHUT_OFF, 3)]
    assert told == [Domain(DomainState.CRASHED, PANICKED, 102.0)] * 2
    guest.process = 2
    assert guest.list().state is DomainState.RUNNING
    guest.process = -1
    assert guest.list(SHUT_OFF, 3).detail == "crashed"


def test_a_panic_is_forgotten_with_its_guest() -> None:
    guest = Guest()
    guest.list(panic=True)
    guest.states.meet([])
    guest.process = -1
    assert guest.list(SHUT_OFF, 3).detail == "crashed"


def test_a_pause_for_an_error_names_the_disk() -> None:
    guest = Guest()
    guest.list()
    assert guest.list(PAUSED, 5, disk="vdb").detail == "paused by an I/O error on vdb"
    assert guest.list(PAUSED, 5).state is DomainState.FROZEN


def test_what_was_resumed_runs_until_its_disk_fails_it_again() -> None:
    guest = Guest()
    guest.list()
    assert guest.list(PAUSED, 5, disk="vdb").detail.startswith(DISK_PAUSED)
    assert guest.list().state is DomainState.RUNNING
    assert guest.list(disk="vdb") == Domain(DomainState.FROZEN, "I/O error on vdb", 104.0)


def test_an_agent_that_answered_once() -> None:
    guest = Guest()
    assert guest.list(agent=False).state is DomainState.RUNNING
    assert guest.list(agent=True).state is DomainState.RUNNING
    assert guest.list(agent=False) == Domain(DomainState.UNRESPONSIVE, "guest agent disconnected", 103.0, False)
    assert guest.list(agent=True).state is DomainState.RUNNING
    guest.list(agent=False)
    guest.process = 2
    assert guest.list().state is DomainState.RUNNING


def test_whether_its_agent_is_there_is_told_of_each_process_anew() -> None:
    guest = Guest()
    assert guest.list(agent=False).agent is None
    assert guest.list(agent=True).agent is True
    assert guest.list(agent=False).agent is False
    guest.process = 2
    assert guest.list().agent is None


def test_a_paused_guest_is_paused_whatever_its_agent_does() -> None:
    guest = Guest()
    guest.list(agent=True)
    assert guest.list(PAUSED, 1, agent=False).state is DomainState.PAUSED


def test_who_is_not_in_the_list_is_gone() -> None:
    guest = Guest()
    guest.list(agent=True)
    guest.states.meet([])
    assert guest.states.take([], 200.0) == {}
    guest.states.disk_error("vm", "vda", 201.0)
    assert guest.list(agent=False).state is DomainState.RUNNING
