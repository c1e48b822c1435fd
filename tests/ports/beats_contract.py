# SPDX-License-Identifier: Apache-2.0
"""What a Beats behind the port does: ONE list of cases for every world.

tests/ports/test_beats_contract.py runs CASES over a real RabbitMQ, with signed messages, and on the simulated bus. Lost
and late beats are allowed by the port, and that one beat more counts as news than need be; what it may not do is
believe, block, or raise.

| what                                                                        | case                           |
|-----------------------------------------------------------------------------|--------------------------------|
| a beat is heard as it was sent, whatever is in it                           | heard_as_it_was_said           |
| that libvirt cannot be asked is not «no guests»                             | libvirt_that_cannot_be_asked   |
| read takes them: they are not there twice                                   | read_takes                     |
| of a host the newest; of several, oldest first                              | the_newest_of_each             |
| every engine hears every beat                                               | heard_by_every_engine          |
| a beat that says nothing new wakes nobody; a guest, a service, a storage,   | woken_by_news_only             |
| a leaving, a boot, and a beat after a silence do                            | woken_after_silence            |
| one host cannot speak for another; a stranger for nobody                    | forged                         |
| what was said once cannot be said again; a run that ended stays ended       | played_again, an_old_run       |
| a clock that is far off: heard, but no life                                 | a_clock_that_is_off            |
| a beat is as old as it is, though its host's clock was stepped              | a_clock_that_steps             |
| garbage spoils nothing that comes after                                     | garbage                        |
| a bus that is away: nothing, at once; it comes back by itself               | bus_away_and_back              |
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from vmhad.kernel.beat import Beat, Domain, DomainState, HeardBeat, PeerView, Plane, StorageBeat
from vmhad.kernel.signal import Reading
from vmhad.ports import Beats

UPTIME_S = 5000.0


class Bench(Protocol):
    """A bus with the hosts h1, h2 and h3, and engines that listen. woken: how often one of them was."""

    woken: int

    def engine(self) -> Beats:
        """Another engine that listens, and is heard to."""

    def now(self) -> float:
        """The engines' clock."""

    def wall(self) -> float:
        """The engines' Unix time."""

    def say(self, beat: Beat) -> None:
        """The agent of beat.host says it; it leaves at once, in order."""

    def forge(self, beat: Beat, by: str) -> None:
        """The host by, or '' for somebody without any key, says it in the name of beat.host."""

    def garbage(self) -> None:
        """Somebody says what no agent would."""

    def go_away(self) -> None: ...

    def come_back(self) -> None: ...

    def pass_time(self, seconds: float) -> None: ...

    def wait(self, what: str, holds: Callable[[], bool]) -> None: ...


@dataclass(frozen=True)
class Case:
    name: str
    run: Callable[[Bench], None]


CASES: list[Case] = []


def case(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
    CASES.append(Case(run.__name__, run))
    return run


class Host:
    """Makes the beats of one host. Its boot clock starts at UPTIME_S when the first one is made."""

    def __init__(self, bench: Bench, name: str = "h1", run: str = "run-1", boot: str = "boot-1") -> None:
        self._bench = bench
        self._began = bench.now()
        self.off_s = 0.0
        self.beat = Beat(name, boot, run, 0, 0.0, 0.0)

    def next(self, **changes: object) -> Beat:
        uptime_s = UPTIME_S + self._bench.now() - self._began + 0.001 * (self.beat.count + 1)
        self.beat = replace(
            self.beat,
            count=self.beat.count + 1,
            uptime_s=uptime_s,
            sent_at=self._bench.wall() + self.off_s,
            **changes,  # type: ignore[arg-type]
        )
        return self.beat

    def says(self, **changes: object) -> Beat:
        beat = self.next(**changes)
        self._bench.say(beat)
        return beat


class Ear:
    """All that one engine has heard."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._beats = bench.engine()
        self.heard: list[HeardBeat] = []

    def read(self) -> list[HeardBeat]:
        before = time.monotonic()
        heard = list(self._beats.read())
        assert time.monotonic() - before < 0.5, "read blocks"
        self.heard += heard
        return heard

    def has(self, beat: Beat) -> bool:
        self.read()
        return any(one.beat == beat for one in self.heard)

    def waits_for(self, beat: Beat) -> HeardBeat:
        self._bench.wait(f"beat {beat.count} of {beat.host}", lambda: self.has(beat))
        return next(one for one in self.heard if one.beat == beat)

    def never_heard(self, beat: Beat, after: Host) -> None:
        """after: another host, whose next beat comes behind it."""
        self.waits_for(after.says())
        assert not self.has(beat)


FULL = {
    "services": {"libvirtd": Reading.UP, "nova-compute": Reading.DOWN},
    "storages": {"nfs": Reading.UNKNOWN},
    "peers": {
        "h2": PeerView({Plane.STORAGE: Reading.DOWN, Plane.TENANT: Reading.UNKNOWN}, {"nfs": StorageBeat("b", 7, 1.5)})
    },
    "domains": {
        "s1": Domain(DomainState.RUNNING, "booted", 12.5),
        "s2": Domain(DomainState.FROZEN, "enospc «voll»", 4999.0),
    },
    "hardware": ("ECC: 3 errors",),
}  # fmt: skip


@case
def heard_as_it_was_said(bench: Bench) -> None:
    ear, host = Ear(bench), Host(bench)
    before = bench.now()
    heard = ear.waits_for(host.says(**FULL))
    assert heard.refused == ""
    assert before - 0.1 <= heard.at <= bench.now()
    assert ear.waits_for(host.says(domains={})).beat.domains == {}


@case
def libvirt_that_cannot_be_asked(bench: Bench) -> None:
    ear, host = Ear(bench), Host(bench)
    assert ear.waits_for(host.says(domains=None)).beat.domains is None


@case
def read_takes(bench: Bench) -> None:
    ear, host = Ear(bench), Host(bench)
    ear.waits_for(host.says())
    assert ear.read() == []


@case
def the_newest_of_each(bench: Bench) -> None:
    ear, one, two, last = Ear(bench), Host(bench), Host(bench, "h2"), Host(bench, "h3")
    woken = bench.woken
    one.says()
    bench.pass_time(0.3)
    two.says()
    bench.pass_time(0.3)
    newest = one.says()
    bench.pass_time(0.3)
    last.says()
    # Each of the three is heard for the first time, and that wakes: the last one of them came behind all others.
    bench.wait("three hosts", lambda: bench.woken >= woken + 3)
    heard = ear.read()
    assert [beat.beat.host for beat in heard] == ["h2", "h1", "h3"]
    assert heard[1].beat == newest
    assert [beat.at for beat in heard] == sorted(beat.at for beat in heard)


@case
def heard_by_every_engine(bench: Bench) -> None:
    ears, host = [Ear(bench), Ear(bench)], Host(bench)
    beat = host.says()
    for ear in ears:
        ear.waits_for(beat)


@case
def woken_by_news_only(bench: Bench) -> None:
    ear, host = Ear(bench), Host(bench)
    ear.waits_for(host.says(**FULL))
    woken = bench.woken
    for _ in range(3):
        ear.waits_for(host.says(peers={}))
    assert bench.woken == woken
    guests = {"s1": Domain(DomainState.CRASHED, "crashed", 5000.0)}
    news = (
        {"domains": guests},
        {"domains": None},
        {"services": {"nova-compute": Reading.UP}},
        {"storages": {"nfs": Reading.DOWN}},
        {"leaving": True},
    )
    for change in news:
        woken = bench.woken
        ear.waits_for(host.says(**change))
        assert bench.woken == woken + 1, f"{change} is no news"


@case
def woken_after_silence(bench: Bench) -> None:
    ear, host = Ear(bench), Host(bench)
    ear.waits_for(host.says())
    woken = bench.woken
    bench.pass_time(2.5)
    ear.waits_for(host.says())
    assert bench.woken == woken + 1


@case
def forged(bench: Bench) -> None:
    ear, victim, other = Ear(bench), Host(bench), Host(bench, "h2")
    ear.waits_for(victim.says())
    woken = bench.woken
    for by in ("h2", ""):
        false = victim.next(leaving=True)
        bench.forge(false, by)
        ear.never_heard(false, Host(bench, "h3", f"run-after-{by or 'nobody'}"))
    ear.waits_for(other.says())
    # h3 was heard for the first time, and h2; nothing of h1.
    assert bench.woken == woken + 2
    assert ear.waits_for(victim.says(leaving=False)).refused == ""


@case
def played_again(bench: Bench) -> None:
    ear, host, other = Ear(bench), Host(bench), Host(bench, "h2")
    early, late = host.says(), host.says()
    ear.waits_for(late)
    ear.heard.clear()
    for again in (late, early):
        bench.say(again)
        ear.never_heard(again, other)
    ear.waits_for(host.says())


@case
def an_old_run(bench: Bench) -> None:
    ear, old, other = Ear(bench), Host(bench), Host(bench, "h2")
    ear.waits_for(old.says())
    new = Host(bench, "h1", "run-2")
    bench.pass_time(0.05)
    ear.waits_for(new.says())
    bench.pass_time(0.05)
    ear.never_heard(old.says(), other)
    booted = Host(bench, "h1", "run-3", "boot-2")
    ear.waits_for(booted.says())
    bench.pass_time(0.05)
    ear.never_heard(Host(bench, "h1", "run-4", "boot-1").says(), other)


@case
def a_clock_that_is_off(bench: Bench) -> None:
    ear, host = Ear(bench), Host(bench)
    host.off_s = -300.0
    heard = ear.waits_for(host.says())
    assert heard.refused in ("its clock is 300 s off ours", "its clock is 301 s off ours")
    host.off_s = 0.0
    assert ear.waits_for(host.says()).refused == ""


@case
def a_clock_that_steps(bench: Bench) -> None:
    ear, host = Ear(bench), Host(bench)
    ages = []
    for off_s in (0.0, 20.0, -20.0, 300.0, 0.0):
        host.off_s = off_s
        said = bench.now()
        ages.append(ear.waits_for(host.says()).at - said)
    assert all(abs(age) < 0.5 for age in ages), ages


@case
def garbage(bench: Bench) -> None:
    ear, host = Ear(bench), Host(bench)
    ear.waits_for(host.says())
    bench.garbage()
    ear.waits_for(host.says())
    assert {one.beat.host for one in ear.heard} == {"h1"}


@case
def bus_away_and_back(bench: Bench) -> None:
    ear, host = Ear(bench), Host(bench)
    ear.waits_for(host.says())
    bench.go_away()
    assert ear.read() == []
    bench.come_back()
    bench.wait("a beat after the bus came back", lambda: ear.has(host.says()))
