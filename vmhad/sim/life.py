# SPDX-License-Identifier: Apache-2.0
"""Whether an engine's process runs, is stopped for a while, or is dead.

All that belongs to one process (threads, eyes, calls) hangs on one Life: a process dies and freezes as one.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from vmhad.sim.clock import Agenda


class Killed(BaseException):
    """The process died inside this call. Not an Exception: no code of the engine may catch it."""


class Life:
    """One engine's process."""

    def __init__(self, agenda: Agenda, name: str) -> None:
        self._agenda = agenda
        self.name = name
        self.dead = False
        self.thaw_at = 0.0
        self.calls = 0
        self.kill_at_call: int | None = None
        self.freeze_in_act: tuple[str, float] | None = None
        self.freeze_before: tuple[str, float] | None = None
        self.born_at, self.died_at = agenda.now, inf
        self.is_late = False
        self.on_kill: Callable[[], None] = lambda: None
        self.before_freeze: list[Callable[[], None]] = []
        self.on_send: Callable[[str, Callable[[], None]], None] | None = None

    @property
    def frozen(self) -> bool:
        return self._agenda.now < self.thaw_at

    @property
    def runs(self) -> bool:
        return not self.dead and not self.frozen

    def kill(self) -> None:
        if not self.dead:
            self.dead, self.died_at = True, self._agenda.now
            self.on_kill()

    def freeze(self, seconds: float) -> None:
        for call in self.before_freeze:
            call()
        self.thaw_at = max(self.thaw_at, self._agenda.now + seconds)

    def at(self, when: float, call: Callable[[], None], periodic: bool = False) -> None:
        """Runs call then, or when the process goes on, or never if it is dead. periodic: as Ticket has it."""

        def due() -> None:
            if self.frozen:
                self._agenda.at(self.thaw_at, due)
            elif not self.dead:
                call()

        self._agenda.at(when, due, periodic)

    def after(self, delay_s: float, call: Callable[[], None], periodic: bool = False) -> None:
        self.at(self._agenda.now + delay_s, call, periodic)

    def count_call(self) -> None:
        """Every port call passes here: the crash sweep kills the engine at the n-th. Raises Killed."""
        if self.dead:
            raise Killed(self.name)
        self.calls += 1
        if self.kill_at_call is not None and self.calls >= self.kill_at_call:
            self.kill()
            raise Killed(self.name)

    def stops_before(self, work: str) -> bool:
        """Whether the process stops just now, before a thread of it begins this work."""
        if self.freeze_before is None or f"/{self.freeze_before[0]}" not in work:
            return False
        seconds, self.freeze_before = self.freeze_before[1], None
        self.freeze(seconds)
        return True

    def send(self, verb: str, act: Callable[[], None]) -> None:
        """Makes a change to the world, or lets it leave only after the freeze a story put between check and send."""
        if self.on_send is not None:
            self.on_send(verb, act)
        elif self.freeze_in_act is not None and self.freeze_in_act[0] == verb:
            seconds = self.freeze_in_act[1]
            self.freeze_in_act = None
            self.freeze(seconds)
            self._agenda.at(self.thaw_at, lambda: self._late(act))
        else:
            act()

    def _late(self, act: Callable[[], None]) -> None:
        """A request that arrives when its sender has long looked away: whatever the peer answers, nobody reads it."""
        self.is_late = True
        try:
            act()
        except Exception:  # noqa: BLE001 - the peer's answer goes nowhere
            return
        finally:
            self.is_late = False
