# SPDX-License-Identifier: Apache-2.0
"""Who is asked at gates, when, and how many at a time; what is believed of what was seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from vmhad.engine.gates import AT_ONCE, EVERY_S, OLD_S, WANTED_S, Gates
from vmhad.engine.guests import Guests
from vmhad.kernel.beat import Beat, Domain, DomainState, HeardBeat
from vmhad.kernel.gate import Gate, GateAsk, GateSeen, Ready
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.sim.clock import Agenda, SimClock

AGENT_OLD_S = 10.0


class Eye:
    """Says READY of whoever it is asked of, unless it is told otherwise."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.says: dict[str, Ready] = {}

    def read(self, server_id: str, gate: Gate) -> tuple[Ready, str]:
        self.asked.append(server_id)
        return self.says.get(server_id, Ready.READY), f"{gate}"


class Desk:
    """ports.Workers whose calls are made when the test says so."""

    def __init__(self) -> None:
        self.calls: dict[str, Callable[[], object]] = {}

    def submit(self, name: str, call: Callable[[], object]) -> bool:
        return name not in self.calls and self.calls.setdefault(name, call) is call

    def finished(self) -> Sequence[tuple[str, object]]:
        found, self.calls = self.calls, {}
        return [(name, call()) for name, call in found.items()]


class Room:
    def __init__(self, eye: Eye | None = None) -> None:
        self.agenda, self.desk, self.eye, self.guests = Agenda(0.0), Desk(), eye or Eye(), Guests()
        self.gates = Gates(self.eye, self.desk, SimClock(self.agenda), self.guests)

    def tick(self, *asks: GateAsk, incident: str = "h1.1", after_s: float = 0.0) -> None:
        """What a round of the engine does with it."""
        self.agenda.now += after_s
        for name, result in self.desk.finished():
            self.gates.ended(name)
            self.gates.take(result)  # type: ignore[arg-type]
        self.gates.want(incident, asks, self.agenda.now)
        self.gates.begin(self.agenda.now)

    def ready(self, *steps: Step) -> dict[str, GateSeen]:
        return dict(self.gates.of(steps, self.agenda.now, AGENT_OLD_S))


def ask(server: str, gate: str = "tcp:80") -> GateAsk:
    return GateAsk(server, gate, server)


def arrived(server: str, gate: str = "tcp:80", target: str = "h2") -> Step:
    args = {"ready": gate, "target": target, "state": "active"}
    return Step(f"e/{server}/{target}", "h1.1", Verb.EVACUATE, server, args, StepState.DONE, started_at=1.0)


def test_nobody_is_asked_while_nobody_waits() -> None:
    room = Room()
    room.tick()
    room.tick(after_s=10.0)
    assert room.desk.calls == {} and room.eye.asked == []


def test_who_is_waited_for_is_asked_and_again_after_a_while() -> None:
    room = Room()
    room.tick(ask("db"))
    room.tick(ask("db"), after_s=0.1)
    assert room.eye.asked == ["db"] and room.desk.calls == {}
    assert room.ready(arrived("db")) == {"db": GateSeen("tcp:80", Ready.READY, "tcp:80", 0.1)}
    room.tick(ask("db"), after_s=EVERY_S)
    assert len(room.desk.calls) == 1


def test_a_few_at_a_time_and_whoever_waited_longest_first() -> None:
    room = Room()
    asks = [ask(f"db-{number}") for number in range(AT_ONCE * 2 + 1)]
    for _ in range(6):
        room.tick(*asks, after_s=0.5)
        assert len(room.desk.calls) <= AT_ONCE
    assert sorted(room.eye.asked[: len(asks)]) == [one.server for one in asks]


def test_one_that_never_answers_keeps_its_place_and_no_other() -> None:
    room = Room()
    room.tick(*(ask(f"slow-{number}") for number in range(AT_ONCE)))
    hung = dict(room.desk.calls)
    room.gates.want("h1.2", (ask("db"),), room.agenda.now)
    room.gates.begin(room.agenda.now + 100.0)
    assert room.desk.calls == hung
    room.gates.ended(next(iter(hung)))
    del room.desk.calls[next(iter(hung))]
    room.gates.want("h1.2", (ask("db"),), room.agenda.now + 100.0)
    room.gates.begin(room.agenda.now + 100.0)
    assert "gate tcp:80 of db" in room.desk.calls


def test_what_nobody_waits_for_any_more_is_forgotten() -> None:
    room = Room()
    room.tick(ask("db"))
    room.tick(ask("db"), after_s=1.0)
    assert room.ready(arrived("db"))
    room.tick(after_s=1.0)
    assert not room.ready(arrived("db"))


def test_an_incident_that_is_decided_no_more_waits_for_nobody() -> None:
    """Its segment is another engine's by now."""
    room = Room()
    room.tick(ask("db"))
    room.tick(ask("other"), incident="h5.1", after_s=1.0)
    assert "db" in room.gates.seen
    room.tick(ask("other"), incident="h5.1", after_s=WANTED_S)
    assert "db" not in room.gates.seen
    room.desk.calls.clear()
    room.gates.begin(room.agenda.now + 2 * WANTED_S)
    assert not room.desk.calls


def test_what_was_seen_long_ago_says_nothing() -> None:
    room = Room()
    room.tick(ask("db"))
    room.tick(ask("db"), after_s=1.0)
    room.agenda.now += OLD_S - 0.1
    assert room.ready(arrived("db"))
    room.agenda.now += 0.1
    assert not room.ready(arrived("db"))


def test_a_gate_of_a_later_release_is_unknown() -> None:
    room = Room()
    room.tick(ask("db", "quic:443"))
    room.tick(ask("db", "quic:443"), after_s=1.0)
    seen = room.ready(arrived("db", "quic:443"))["db"]
    assert seen.ready is Ready.UNKNOWN and "the gate 'quic:443' must be one of" in seen.words
    assert room.eye.asked == []


def test_without_an_eye_nobody_is_asked() -> None:
    room = Room()
    room.gates.eye = None
    room.tick(ask("db"))
    assert room.desk.calls == {} and not room.ready(arrived("db"))


def beat(host: str, at: float, **domains: Domain) -> HeardBeat:
    return HeardBeat(Beat(host, "boot", "run", 1, at, at, domains=domains), at)


@pytest.mark.parametrize(
    ("domain", "ready", "words"),
    [
        (Domain(DomainState.RUNNING, agent=True), Ready.READY, "its guest agent is there"),
        (Domain(DomainState.RUNNING, agent=None), Ready.NOT_READY, "its guest agent is not there yet"),
        (Domain(DomainState.RUNNING, agent=False), Ready.NOT_READY, "its guest agent is not there yet"),
        (Domain(DomainState.UNRESPONSIVE, agent=False), Ready.NOT_READY, "its guest is unresponsive"),
        (Domain(DomainState.PAUSED, agent=True), Ready.NOT_READY, "its guest is paused"),
        (None, Ready.UNKNOWN, "no agent on h2 tells of its guest"),
    ],
)
def test_beats_tell_of_guest_agents_and_nobody_is_asked(domain: Domain | None, ready: Ready, words: str) -> None:
    room = Room()
    room.guests.take(beat("h2", 0.0, **({"db": domain} if domain else {})))
    room.tick(ask("db", "agent"))
    seen = room.ready(arrived("db", "agent"))["db"]
    assert (seen.ready, seen.words) == (ready, words)
    assert room.desk.calls == {}
    room.agenda.now += AGENT_OLD_S + 0.1
    assert room.ready(arrived("db", "agent"))["db"].ready is Ready.UNKNOWN


@pytest.mark.parametrize("turned", [False, True])
def test_of_one_that_arrived_twice_the_host_counts_that_tells_of_it(turned: bool) -> None:
    room = Room()
    room.guests.take(beat("h3", 0.0, db=Domain(DomainState.RUNNING, agent=True)))
    steps = [arrived("db", "agent", "h2"), arrived("db", "agent", "h3")]
    assert room.ready(*(reversed(steps) if turned else steps))["db"].ready is Ready.READY
