# SPDX-License-Identifier: Apache-2.0
"""When Nova is asked for what stopped lately, and of which hosts more is asked."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmhad.engine.stopped import EVERY_S, FIRST_AFTER_S, REACHES_BACK_S, Stopped, StoppedLook
from vmhad.kernel.cloud import Server, ServerState


@dataclass
class Asked:
    """A Nova that keeps how far back it was asked."""

    servers: tuple[Server, ...] = ()
    within_s: list[float] = field(default_factory=list)

    def stopped_lately(self, within_s: float) -> tuple[Server, ...]:
        self.within_s.append(within_s)
        return self.servers


def vm(name: str, host: str, updated_at: str = "12:00") -> Server:
    return Server(name, name, host, ServerState.STOPPED, updated_at=updated_at)


def test_of_each_stopped_server_its_host_is_asked_once() -> None:
    look = StoppedLook(Asked())  # type: ignore[arg-type]
    assert look.take(Stopped(0.0, (vm("a", "h1"), vm("b", "h2")))) == {"h1", "h2"}
    assert look.take(Stopped(30.0, (vm("a", "h1"), vm("b", "h2"), vm("c", "h2")))) == {"h2"}
    assert look.take(Stopped(60.0, ())) == frozenset()
    assert look.take(Stopped(90.0, (vm("a", "h1"),))) == {"h1"}, "it was started meanwhile, and fell again"
    assert look.take(Stopped(120.0, (vm("a", "h1", "12:02"),))) == {"h1"}, "the same, between two looks"
    assert look.take(Stopped(150.0, (vm("a", "h1", "12:02"),))) == frozenset()


def test_what_stopped_while_nova_was_away_is_asked_for_too() -> None:
    nova = Asked()
    look = StoppedLook(nova)  # type: ignore[arg-type]
    assert look.due(0.0) is None
    first = look.due(FIRST_AFTER_S)
    assert first is not None and look.due(FIRST_AFTER_S + EVERY_S - 1.0) is None
    look.take(first())
    assert look.due(2000.0) is not None, "and its answer never comes"
    later = look.due(4000.0)
    assert later is not None
    later()
    assert nova.within_s == [REACHES_BACK_S, 4000.0 - FIRST_AFTER_S + EVERY_S]
