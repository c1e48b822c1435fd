# SPDX-License-Identifier: Apache-2.0
"""The incident machine: every state is reached, every open state has a way out, and what is not listed raises."""

import pytest

from vmhad.kernel.incident import ENDED, TRANSITIONS, Event, State, UnlistedEvent, opened, turn


def test_every_state_is_listed_and_reached() -> None:
    reached = {State.SUSPECTED} | {to for edges in TRANSITIONS.values() for to in edges.values()}
    assert reached == set(State) == set(TRANSITIONS)


def test_every_event_is_used() -> None:
    assert {event for edges in TRANSITIONS.values() for event in edges} == set(Event)


def test_nothing_is_recovered_without_passing_through_fencing() -> None:
    assert [state for state, edges in TRANSITIONS.items() if State.RECOVERING in edges.values()] == [State.FENCING]
    assert TRANSITIONS[State.FENCING][Event.PROVEN] is State.RECOVERING


def test_every_open_state_can_end() -> None:
    can_end = set(ENDED)
    for _ in State:
        can_end |= {state for state, edges in TRANSITIONS.items() if set(edges.values()) & can_end}
    assert can_end == set(State)


def test_an_unlisted_event_raises() -> None:
    incident = opened("h.1", "s", "h", 1.0, "because")
    with pytest.raises(UnlistedEvent, match="no edge for lifted"):
        turn(incident, Event.LIFTED, 2.0, "because")


def test_a_new_fence_is_a_new_round() -> None:
    incident = turn(opened("h.1", "s", "h", 1.0, "a"), Event.FAILED, 2.0, "b")
    assert incident.round == 1
    again = turn(turn(incident, Event.PROVEN, 3.0, "c"), Event.PROOF_LOST, 4.0, "d")
    assert (again.round, again.state) == (2, State.FENCING)
