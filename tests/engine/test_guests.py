# SPDX-License-Identifier: Apache-2.0
"""What is kept of what the agents say of guests: the newest, while it is fresh, and each failure once."""

from __future__ import annotations

from vmhad.engine.guests import Guests
from vmhad.kernel.beat import Beat, Domain, DomainState, HeardBeat
from vmhad.kernel.policy import OnFailure, Policy
from vmhad.kernel.signal import Reading
from vmhad.kernel.topology import Host, Segment

EAST = Segment("east", (Host("h1"), Host("h2")))
CRASHED = Domain(DomainState.CRASHED, "failed", 50.0)


def heard(at: float, boot: str = "b", refused: str = "", **domains: Domain) -> HeardBeat:
    beat = Beat("h1", boot, "r", 1, at, at, storages={"nfs": Reading.DOWN, "ceph": Reading.UP}, domains=domains)
    return HeardBeat(beat, at, refused)


def ill(guests: Guests, now: float, policy: Policy | None = None) -> list[str]:
    return [one.server for one in guests.ill(EAST, policy or Policy(), now)]


def test_the_newest_word_of_a_host_counts_while_it_is_fresh() -> None:
    guests = Guests()
    guests.take(heard(100.0, vm=CRASHED))
    guests.take(heard(99.0))
    guests.take(heard(101.0, refused="its clock is wrong"))
    assert guests.of("vm", "h1", 101.0, 15.0) == (CRASHED, 100.0)
    assert guests.of("vm", "h2", 101.0, 15.0) == guests.of("vm", "h1", 116.0, 15.0) == (None, 0.0)
    assert guests.storage_down("h1", 101.0, 15.0) == "nfs" and not guests.storage_down("h1", 116.0, 15.0)
    assert ill(guests, 101.0) == ["vm"] and ill(guests, 116.0) == []


def test_a_libvirt_that_cannot_be_asked_changes_nothing() -> None:
    guests = Guests()
    guests.take(heard(100.0, vm=CRASHED))
    guests.take(HeardBeat(Beat("h1", "b", "r", 2, 101.0, 101.0, domains=None), 101.0))
    assert ill(guests, 101.0) == ["vm"]


def test_what_was_let_be_is_ill_again_when_it_fails_anew() -> None:
    guests = Guests()
    guests.take(heard(100.0, vm=CRASHED))
    guests.let("vm", "h1")
    assert ill(guests, 100.0) == []
    guests.take(heard(110.0, vm=Domain(DomainState.CRASHED, "failed", 105.0)))
    assert ill(guests, 110.0) == ["vm"]
    guests.let("vm", "h1")
    guests.take(heard(120.0, boot="another", vm=Domain(DomainState.CRASHED, "failed", 105.0)))
    assert ill(guests, 120.0) == ["vm"]


def test_a_silent_agent_is_an_illness_only_by_policy_and_after_a_while() -> None:
    guests = Guests()
    guests.take(heard(100.0, vm=Domain(DomainState.UNRESPONSIVE, "guest agent disconnected", 50.0)))
    assert ill(guests, 100.0) == []
    restart = Policy(on_silent_agent=OnFailure.RESTART, silent_agent_s=60.0)
    assert ill(guests, 100.0, restart) == []
    guests.take(heard(110.0, vm=Domain(DomainState.UNRESPONSIVE, "guest agent disconnected", 50.0)))
    assert ill(guests, 110.0, restart) == ["vm"]


def test_what_policy_leaves_is_not_ill() -> None:
    guests = Guests()
    guests.take(heard(100.0, vm=CRASHED))
    assert ill(guests, 100.0, Policy(on_crash=OnFailure.LEAVE)) == []


def test_another_host_has_a_guest_only_by_a_fresh_word_that_it_is_not_off() -> None:
    guests = Guests()
    for at, state in enumerate(DomainState, start=100):
        guests.take(heard(float(at), vm=Domain(state)))
        there = "" if state in (DomainState.SHUT_OFF, DomainState.CRASHED) else "h1"
        assert guests.beside("vm", "h2", float(at), 15.0) == there
        assert guests.beside("vm", "h1", float(at), 15.0) == guests.beside("other", "h2", float(at), 15.0) == ""
    guests.take(heard(200.0, vm=Domain(DomainState.RUNNING)))
    assert guests.beside("vm", "h2", 215.0, 15.0) == "h1" and not guests.beside("vm", "h2", 216.0, 15.0)
