# SPDX-License-Identifier: Apache-2.0
"""Who is recovered before whom: priorities, groups that wait for each other, and that nothing waits for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from bare_cases import case_of

from vmhad.guards.hosts.board import board
from vmhad.guards.hosts.order import Order, marks
from vmhad.guards.hosts.place import in_order
from vmhad.guards.hosts.recover import recover
from vmhad.kernel.case import Case, Move
from vmhad.kernel.cloud import ComputeService, Inventory, Room, Server, ServerState
from vmhad.kernel.gate import GateAsk, GateSeen, Ready
from vmhad.kernel.incident import State, opened
from vmhad.kernel.incident import Turn as Turned
from vmhad.kernel.policy import Policy
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.kernel.verdict import Judgement, Verdict
from vmhad.kernel.vm_policy import VmSettings

DEAD = Verdict(Judgement.FAILED, "it is dead", 1)
SOUND = Verdict(Judgement.HEALTHY, "", 8)
BEGUN_AT = 100.0


def server(name: str, **settings: Any) -> Server:
    plain = Server(name, name, "h1", ServerState.ACTIVE, volume_backed=True)
    return replace(plain, settings=VmSettings(**settings))


DB = server("db-1", order_group="db")
APP = server("app-1", order_group="app", after=("db",))
WEB = server("web-1", order_group="web", after=("app",))
ALL = (DB, APP, WEB)


def evacuation(one: Server, state: StepState, incident: str = "h1.1", ended_at: float = 0.0) -> Step:
    step_id = f"{incident}/{Verb.EVACUATE.value}/{one.id}"
    args = {"name": one.name, **marks(one)}
    return Step(step_id, incident, Verb.EVACUATE, one.id, args, state, started_at=1.0, ended_at=ended_at)


def case(*steps: Step, **more: Any) -> Case:
    incident = replace(opened("h1.1", "east", "h1", 1.0, "dead"), state=State.RECOVERING)
    incident = replace(incident, turns=(*incident.turns, Turned(BEGUN_AT, State.RECOVERING, "proven")))
    more.setdefault("policy", Policy(order_wait_s=60.0))
    return replace(case_of(incident, DEAD, more.pop("policy")), steps=steps, **more)


def planned(servers: Sequence[Server] = ALL) -> list[Step]:
    return [evacuation(one, StepState.PLANNED) for one in servers]


def test_a_group_waits_for_those_that_it_comes_after() -> None:
    order = Order(case(*planned()), BEGUN_AT)
    assert [order.waits(one) for one in ALL] == ["", "waits for db", "waits for app"]


@pytest.mark.parametrize("state", [StepState.PLANNED, StepState.STARTED])
def test_also_for_those_of_another_incident(state: StepState) -> None:
    theirs = (evacuation(DB, state, incident="h2.1"),)
    assert Order(case(elsewhere=theirs), BEGUN_AT).waits(APP) == "waits for db"
    assert Order(case(elsewhere=theirs, idle=frozenset({"h2.1"})), BEGUN_AT).waits(APP) == ""


def test_and_until_it_is_known_whom_a_host_that_fell_had() -> None:
    unknown = case(unplanned=frozenset({"h3", "h2"}))
    assert Order(unknown, BEGUN_AT).waits(APP) == "waits to know whether db has to come from h2 and h3"
    assert Order(unknown, BEGUN_AT).waits(DB) == ""


@pytest.mark.parametrize("state", [StepState.DONE, StepState.FAILED])
def test_who_arrived_or_was_given_up_is_waited_for_no_more(state: StepState) -> None:
    assert Order(case(evacuation(DB, state, ended_at=BEGUN_AT)), BEGUN_AT).waits(APP) == ""


@pytest.mark.parametrize("ended_at", [BEGUN_AT, BEGUN_AT + 5000.0])
def test_who_arrived_may_need_a_while_to_be_ready(ended_at: float) -> None:
    """Where an engine wrote that it arrived whose clock is ahead, too."""
    slow = server("db-1", order_group="db", ready_after_s=30.0)
    arrived = case(evacuation(slow, StepState.DONE, ended_at=ended_at), policy=Policy(order_wait_s=600.0))
    assert Order(arrived, BEGUN_AT + 29.0).waits(APP) == "waits for db"
    if ended_at == BEGUN_AT:
        assert Order(arrived, BEGUN_AT + 30.0).waits(APP) == ""
    assert Order(arrived, BEGUN_AT + 600.0).waits(APP) == ""


def test_also_where_its_own_incident_is_over() -> None:
    slow = server("db-1", order_group="db", ready_after_s=30.0)
    theirs = (evacuation(slow, StepState.DONE, incident="h2.1", ended_at=BEGUN_AT),)
    told = case(elsewhere=theirs, idle=frozenset({"h2.1"}))
    assert Order(told, BEGUN_AT + 29.0).waits(APP) == "waits for db"
    assert Order(told, BEGUN_AT + 30.0).waits(APP) == ""


def test_nobody_waits_longer_than_the_limit_for_each_link_of_the_chain() -> None:
    waiting = case(*planned())
    assert Order(waiting, BEGUN_AT + 59.9).waits(APP) == "waits for db"
    assert Order(waiting, BEGUN_AT + 60.0).waits(APP) == ""
    assert Order(waiting, BEGUN_AT + 119.9).waits(WEB) == "waits for app"
    assert Order(waiting, BEGUN_AT + 120.0).waits(WEB) == ""


def test_a_circle_ends() -> None:
    a, b = server("a", order_group="a", after=("b",)), server("b", order_group="b", after=("a", "b"))
    circle = case(*planned((a, b)))
    assert [Order(circle, BEGUN_AT).waits(one) for one in (a, b)] == ["waits for b", "waits for a"]
    assert [Order(circle, BEGUN_AT + 120.0).waits(one) for one in (a, b)] == ["", ""]


def test_nothing_is_written_of_a_vm_that_no_policy_speaks_of() -> None:
    assert marks(server("x")) == {}
    assert marks(server("x", order_group="a", after=("b", "c"), ready_after_s=2.5)) == {
        "order_group": "a",
        "after": "b,c",
        "ready_after_s": "2.5",
    }


GATED = server("db-1", order_group="db", ready="tcp:5432")


def looked(ready: Ready, at: float = BEGUN_AT + 1.0, gate: str = "tcp:5432") -> dict[str, GateSeen]:
    return {"db-1": GateSeen(gate, ready, "10.0.0.5:5432 says so", at)}


def gated(seen: dict[str, GateSeen], *more: Step, **told: Any) -> Case:
    """The database has arrived, and was looked at."""
    return case(evacuation(GATED, StepState.DONE, ended_at=BEGUN_AT), *more, ready=seen, **told)


def test_who_arrived_is_waited_for_until_its_gate_says_ready() -> None:
    now = BEGUN_AT + 2.0
    assert Order(gated({}), now).waits(APP) == "waits for db"
    words = "waits for db: db-1 is not ready: 10.0.0.5:5432 says so"
    assert Order(gated(looked(Ready.NOT_READY)), now).waits(APP) == words
    words = "waits for db: it is not known whether db-1 is ready: 10.0.0.5:5432 says so"
    assert Order(gated(looked(Ready.UNKNOWN)), now).waits(APP) == words
    assert Order(gated(looked(Ready.READY)), now).waits(APP) == ""


def test_a_look_of_before_it_arrived_or_at_another_gate_says_nothing() -> None:
    now = BEGUN_AT + 2.0
    assert Order(gated(looked(Ready.READY, BEGUN_AT - 0.1)), now).waits(APP).startswith("waits for db")
    assert Order(gated(looked(Ready.READY, gate="port")), now).waits(APP).startswith("waits for db")


def test_a_clock_that_was_ahead_does_not_make_it_wait_until_the_limit() -> None:
    late = evacuation(GATED, StepState.DONE, ended_at=BEGUN_AT + 5000.0)
    told = case(late, ready=looked(Ready.READY), ours_since=BEGUN_AT + 0.5)
    assert Order(told, BEGUN_AT + 2.0).waits(APP) == ""
    earlier = replace(told, ours_since=BEGUN_AT + 1.5)
    assert Order(earlier, BEGUN_AT + 2.0).waits(APP).startswith("waits for db")


def test_the_delay_counts_beside_the_gate() -> None:
    slow = server("db-1", order_group="db", ready="tcp:5432", ready_after_s=30.0)
    told = case(evacuation(slow, StepState.DONE, ended_at=BEGUN_AT), ready=looked(Ready.READY))
    assert Order(told, BEGUN_AT + 29.0).waits(APP) == "waits for db"
    assert Order(told, BEGUN_AT + 30.0).waits(APP) == ""


def test_the_limit_ends_that_too_and_it_is_told_who_is_not_ready() -> None:
    assert Order(gated(looked(Ready.UNKNOWN)), BEGUN_AT + 59.0).waits(APP)
    over = Order(gated(looked(Ready.UNKNOWN)), BEGUN_AT + 60.0)
    assert over.waits(APP) == ""
    assert over.overdue(APP) == "it is not known whether db-1 is ready: 10.0.0.5:5432 says so"
    assert Order(gated({}), BEGUN_AT + 60.0).overdue(APP) == "it is not known whether db-1 is ready"
    assert Order(gated(looked(Ready.READY)), BEGUN_AT + 60.0).overdue(APP) == ""


def test_nobody_waits_for_the_gate_of_one_that_is_to_be_off_left_by_itself_or_was_given_up() -> None:
    arrived = evacuation(GATED, StepState.DONE, ended_at=BEGUN_AT)
    off = replace(arrived, args={**arrived.args, "state": "stopped"})
    assert Order(case(off), BEGUN_AT + 1.0).waits(APP) == ""
    gone = replace(arrived, started_at=0.0)
    assert Order(case(gone), BEGUN_AT + 1.0).waits(APP) == ""
    lost = evacuation(GATED, StepState.FAILED, incident="h2.1")
    given_up = case(arrived, elsewhere=(lost,), idle=frozenset({"h2.1"}))
    assert Order(given_up, BEGUN_AT + 1.0).waits(APP) == ""


def test_only_who_is_waited_for_is_asked() -> None:
    told = inventory(GATED, APP, WEB)
    here = gated({}, *planned((APP, WEB)))
    assert Order(here, BEGUN_AT + 1.0).asks(told) == (GateAsk("db-1", "tcp:5432", "db-1"),)
    assert Order(here, BEGUN_AT + 500.0).asks(told) == ()
    assert Order(gated({}), BEGUN_AT + 1.0).asks(told) == ()
    assert Order(gated({}, *planned((WEB,))), BEGUN_AT + 1.0).asks(told) == ()
    ungated = case(evacuation(DB, StepState.DONE, ended_at=BEGUN_AT), *planned((APP,)))
    assert Order(ungated, BEGUN_AT + 1.0).asks(told) == ()


def test_the_decision_says_whom_to_ask() -> None:
    elsewhere = (evacuation(GATED, StepState.DONE, incident="h2.1", ended_at=BEGUN_AT),)
    assert recovered(APP, elsewhere=elsewhere).asks == (GateAsk("db-1", "tcp:5432", "db-1"),)


def inventory(*servers: Server, vcpus: int = 8) -> Inventory:
    services = tuple(ComputeService(name, True, True, "", False, "") for name in ("h2", "h3"))
    rooms = (Room("h2", vcpus, 65536, 100), Room("h3", 0, 65536, 100))
    return Inventory("h1", BEGUN_AT + 1.0, servers, (), (), {}, services, rooms)


def test_the_higher_priority_comes_first_whoever_was_refused() -> None:
    servers = (server("a"), server("b", priority=-1), server("c", priority=5))
    steps = {one.id: evacuation(one, StepState.PLANNED) for one in servers}
    steps["c"] = replace(steps["c"], attempt=3, args={**steps["c"].args, "failed_on": "h3"})
    at = board(case(*steps.values()), inventory(*servers), steps)
    assert in_order(steps, at) == ["c", "a", "b"]


def recovering(*servers: Server, vcpus: int = 8) -> dict[str, Step]:
    """What is made of them in one go."""
    move = recovered(*servers, vcpus=vcpus)
    return {step.subject: step for step in move.steps if step.verb is Verb.EVACUATE}


def recovered(*servers: Server, vcpus: int = 8, **more: Any) -> Move:
    of_host = [
        Step(f"h1.1/0/{verb.value}", "h1.1", verb, "h1", state=StepState.DONE, attempt=1)
        for verb in (Verb.FORCE_DOWN, Verb.DISABLE)
    ]
    verdicts = {"h1": DEAD, "h2": SOUND, "h3": SOUND}
    told = case(*of_host, verdicts=verdicts, inventory=inventory(*servers, vcpus=vcpus), **more)
    return recover(told, BEGUN_AT + 2.0)


def test_one_that_waits_keeps_its_try_and_says_for_whom() -> None:
    found = recovering(*ALL)
    assert found["db-1"].state is StepState.STARTED
    assert (found["app-1"].state, found["app-1"].attempt) == (StepState.PLANNED, 0)
    assert found["app-1"].because == "waits for db"


def test_the_last_room_goes_to_the_higher_priority() -> None:
    found = recovering(server("a"), server("b", priority=7), vcpus=1)
    assert {name: step.state for name, step in found.items()} == {"a": StepState.PLANNED, "b": StepState.STARTED}
