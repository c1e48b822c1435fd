# SPDX-License-Identifier: Apache-2.0
"""One guard of the core, and how it is switched off."""

from __future__ import annotations

from dataclasses import dataclass

from vmhad.sim.cuts import Cut


@dataclass(frozen=True)
class Mutant:
    """guard: what is off. needs: what a script must have for the guard to be asked at all; others are not played.

    seed: the one that found it. lonely: its seeds have guests that fail alone. agents: its hosts have agents. drains:
    hosts ail in them, and are emptied. storages: storages cut hosts off in them.
    story: the one of tests/stories that finds it, where no seed is on record.
    """

    name: str
    guard: str
    cuts: tuple[Cut, ...]
    needs: tuple[str, ...] = ()
    seed: int | None = None
    lonely: bool = False
    agents: bool = False
    drains: bool = False
    storages: bool = False
    story: str = ""
