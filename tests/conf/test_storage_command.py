# SPDX-License-Identifier: Apache-2.0
"""vmhad-manage storage check, on simulated storages: what it calls wrong, what unknown, and what it leaves alone."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from vmhad.cmd import manage
from vmhad.cmd.storage_check import UNKNOWN, WELL, WRONG, Reading, check, complaints
from vmhad.conf.settings import ConfigError
from vmhad.journal import codec, keys
from vmhad.journal.journal import Journal, SegmentRecord
from vmhad.kernel.incident import Incident, State, opened
from vmhad.kernel.proof import CUT_STORAGE, Proof
from vmhad.kernel.signal import Access
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.kernel.topology import Backend, Host, Segment
from vmhad.sim.clock import Agenda, SimClock
from vmhad.sim.datacentre import Datacentre, SimHost
from vmhad.sim.life import Life
from vmhad.sim.storage import Backends, SimStorage
from vmhad.sim.store import MemoryStore

HOSTS = ("h1", "h2")
SEGMENTS = (Segment("east", tuple(map(Host, HOSTS))),)
NAME = "ceph-a"


class Site:
    """One storage with two clients, and a journal."""

    def __init__(self) -> None:
        self.datacentre = Datacentre(Agenda())
        for name in HOSTS:
            self.datacentre.add_host(SimHost(name))
        life, clock = Life(self.datacentre.agenda, "e1"), SimClock(self.datacentre.agenda)
        backend = Backend(NAME, frozenset({"nova"}), frozenset(HOSTS))
        self.storage = SimStorage(Backends(self.datacentre), backend, life, clock, 3.0)
        self.store = MemoryStore()

    def put(self, incident: Incident, *steps: Step) -> None:
        puts = {keys.incident("east", incident.id): codec.encode(incident)}
        puts |= {keys.step("east", incident.id, one.id): codec.encode(one) for one in steps}
        self.store.commit([], puts)

    def check(self) -> int:
        return check(Journal(self.store), SEGMENTS, {NAME: OneAtATime(self.storage)}, {NAME: HOSTS})


class OneAtATime:
    """Simulated time passes in one thread."""

    def __init__(self, storage: SimStorage) -> None:
        self._storage, self._turn = storage, threading.Lock()

    def read(self, host: str) -> tuple[Access, str]:
        with self._turn:
            return self._storage.read(host)

    def cut(self, host: str) -> None:
        raise AssertionError("a check changes nothing")

    def restore(self, host: str) -> None:
        raise AssertionError("a check changes nothing")


@pytest.fixture
def site() -> Site:
    return Site()


def incident(state: State, backends: tuple[str, ...] = ()) -> Incident:
    proof = Proof("h1", CUT_STORAGE, 5.0, True, 1, (), backends) if backends else None
    return replace(opened("h1.1", "east", "h1", 1.0, "it fell"), state=state, round=1, proof=proof)


def cut_of(one: Incident, attempt: int = 1, backend: str = NAME) -> Step:
    state = StepState.DONE if attempt else StepState.PLANNED
    step_id = f"{one.id}/1/cut_storage/{backend}"
    return Step(step_id, one.id, Verb.CUT_STORAGE, one.host, {"backend": backend}, state, attempt)


def test_all_is_well(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.check() == WELL
    assert capsys.readouterr().out == "2 readings of 1 storages: 0 wrong, 0 unknown\n"


def test_a_cut_that_nobody_holds_is_named(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.storage.cut("h1")
    assert site.check() == WRONG
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"h1 {NAME}: CUT, and no open incident holds it (no incident cut it off): ")
    assert last == "2 readings of 1 storages: 1 wrong, 0 unknown"


def test_a_cut_of_an_incident_that_is_over_names_that(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    over = incident(State.CLOSED)
    site.put(over, cut_of(over))
    site.storage.cut("h1")
    assert site.check() == WRONG
    assert "no open incident holds it (incident h1.1, which is over, cut it off)" in capsys.readouterr().out


@pytest.mark.parametrize("state", [State.FENCING, State.RECOVERING, State.STUCK, State.LIFTING])
def test_a_cut_that_an_open_incident_sent_is_its_own(site: Site, state: State) -> None:
    mine = incident(state)
    site.put(mine, cut_of(mine))
    site.storage.cut("h1")
    assert site.check() == WELL


@pytest.mark.parametrize(("attempt", "backend"), [(0, NAME), (1, "ceph-b")])
def test_an_open_incident_holds_only_what_it_sent(site: Site, attempt: int, backend: str) -> None:
    mine = incident(State.FENCING)
    site.put(mine, cut_of(mine, attempt, backend))
    site.storage.cut("h1")
    assert site.check() == WRONG


def test_an_incident_of_another_host_holds_nothing(site: Site) -> None:
    mine = incident(State.FENCING)
    site.put(mine, cut_of(mine))
    site.storage.cut("h2")
    assert site.check() == WRONG


def test_a_host_that_is_open_while_a_proof_rests_on_its_cut_is_named(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = incident(State.RECOVERING, (NAME,))
    site.put(mine, cut_of(mine))
    assert site.check() == WRONG
    assert f"h1 {NAME}: OPEN, though incident h1.1 rests on its cut: " in capsys.readouterr().out
    site.storage.cut("h1")
    assert site.check() == WELL


@pytest.mark.parametrize(
    ("state", "backends"), [(State.FENCING, (NAME,)), (State.LIFTING, (NAME,)), (State.RECOVERING, ("ceph-b",))]
)
def test_a_host_that_is_open_and_may_be_is_left_alone(site: Site, state: State, backends: tuple[str, ...]) -> None:
    mine = incident(state, backends)
    site.put(mine, cut_of(mine))
    assert site.check() == WELL


def test_a_storage_that_does_not_say_is_unknown_and_never_well(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.datacentre.hang_storage(NAME, True)
    assert site.check() == UNKNOWN
    assert capsys.readouterr().out.splitlines()[0].startswith(f"h1 {NAME}: UNKNOWN: ")


CUT = Reading("h1", NAME, Access.CUT, "seen")
OPEN = Reading("h1", NAME, Access.OPEN, "seen")


def test_what_begins_or_ends_while_the_storages_are_asked_is_no_complaint() -> None:
    nothing = SegmentRecord((), ())
    fencing, recovering = incident(State.FENCING), incident(State.RECOVERING, (NAME,))
    closed, lifting = incident(State.CLOSED), incident(State.LIFTING, (NAME,))
    begun, over = SegmentRecord((fencing,), (cut_of(fencing),)), SegmentRecord((closed,), (cut_of(closed),))
    resting, lifted = SegmentRecord((recovering,), ()), SegmentRecord((lifting,), ())
    for before, after in ((nothing, begun), (begun, over)):
        assert complaints([CUT], [before], [after]) == ()
    for before, after in ((begun, resting), (resting, lifted)):
        assert complaints([OPEN], [before], [after]) == ()
    assert complaints([CUT], [over], [over]) and complaints([OPEN], [resting], [resting])


def test_a_cloud_without_storages_has_nothing_to_check(site: Site) -> None:
    told = manage._arguments(["storage", "check"])
    settings: Any = SimpleNamespace(segments=SEGMENTS, storages=())
    with pytest.raises(ConfigError, match="names no storages"):
        told.run(Journal(site.store), settings, told)
