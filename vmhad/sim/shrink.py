# SPDX-License-Identifier: Apache-2.0
"""The shortest story of a failing script: what can be left out while it still fails in the same way is left out.

Delta debugging over what a reader has to keep in mind: hosts (with all that is said of them), faults, VMs, engines,
groups, and the numbers of the policies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from vmhad.sim.directives import Stage
from vmhad.sim.draft import StoryError, seconds
from vmhad.sim.mischief import Timed
from vmhad.sim.seeds import Played, play_script
from vmhad.sim.show import spoken
from vmhad.sim.story import RULE
from vmhad.sim.swarm import Script

DECLARING = ("seed", "pace", "agents", "segment", "group", "host", "vm")
MANY_HOSTS = ("cut", "unplug", "crash", "stop-compute", "isolate", "reboot", "restore")
# What has to come right does so after it.
MENDS = ("heal", "order retry stuck")
NAME = re.compile(r"\b(?:[a-z]{1,2}\d+|\d+(?:\.\d+)?)\b")
# How long the story goes on after the rule was broken.
AFTERWARDS_S = 5.0
MISUNDERSTOOD = (StoryError, KeyError, ValueError, IndexError)


@dataclass
class _Search:
    """kind: how it failed, without names and numbers. to_its_end: something never came right. left: how many plays are
    still allowed."""

    kind: str
    to_its_end: bool
    left: int

    def fails(self, script: Script) -> bool:
        if self.left <= 0:
            return False
        self.left -= 1
        try:
            return self.kind in kinds(play_script(script, passing_over=False, to_its_end=self.to_its_end))
        except MISUNDERSTOOD:
            return False

    def reduce(self, items: Sequence[str], build: Callable[[Sequence[str]], Script]) -> list[str]:
        """The smallest part of items found with which the script still fails: halves first, then ever smaller parts."""
        kept, parts = list(items), 2
        while kept and parts <= 2 * len(kept):
            size = max(1, len(kept) // parts)
            for start in range(0, len(kept), size):
                rest = kept[:start] + kept[start + size :]
                if self.fails(build(rest)):
                    kept, parts = rest, max(2, parts - 1)
                    break
            else:
                if size == 1:
                    break
                parts *= 2
        return kept


def kinds(played: Played) -> set[str]:
    """How it failed: the sentences without their names and numbers."""
    return {NAME.sub("#", why) for why in played.failed}


def shrink(played: Played, plays_max: int = 400) -> Script:
    """The shortest script found that fails in the first way in which this one did. Raises ValueError if it did not."""
    if not played.failed:
        raise ValueError(f"seed {played.seed} did not fail")
    search = _Search(NAME.sub("#", played.failed[0]), not played.violations, plays_max)
    script = _cut_short(search, as_run(played.story))
    for reduced in (_hosts, _faults, _declared, _words, _faults):
        script = reduced(search, script)
    return script


def as_run(story: Sequence[str]) -> Script:
    """A played story as a script with its own times: nothing in it is passed over any more."""
    declarations: list[str] = []
    faults: list[Timed] = []
    at = 0.0
    for line in story:
        word, *rest = line.split()
        if word == "run":
            at = round(at + seconds(rest[0]), 3)
        elif word in DECLARING or (word == "engine" and not at and not faults):
            declarations.append(line)
        elif word in MANY_HOSTS:
            faults.extend((at, f"{word} {host}") for host in rest)
        else:
            faults.append((at, line))
    return Script(tuple(declarations), tuple(faults), at, at)


def story_of(script: Script, why: str) -> str:
    """Its text, as tests/stories has it, with what comes of it now."""
    lines, at = [*script.declarations], 0.0
    for when, line in script.faults:
        if when > at:
            lines.append(f"run {round(when - at, 3):g}s")
            at = when
        lines.append(line)
    lines.append(f"run {round(script.ends_at_s - at, 3):g}s")
    stage = Stage()
    for line in lines:
        stage.perform(line)
    said = spoken(stage.world.said, with_engine=len(stage.world.nodes) > 1)
    return "\n".join([f"# {why}", *lines, RULE, *said, "", "show vms", RULE, *stage.perform("show vms")]) + "\n"


def _cut_short(search: _Search, script: Script) -> Script:
    """Where a rule was broken, nothing after that matters; where something never came right, all of it may."""
    stage = Stage()
    for line in script.declarations:
        stage.perform(line)
    for when, line in script.faults:
        stage.world.run(when - stage.world.agenda.elapsed_s)
        stage.perform(line)
    stage.world.run(script.ends_at_s - stage.world.agenda.elapsed_s)
    told = (said for said in stage.world.said if said.word == "BREACH")
    first = next((one for one in told if NAME.sub("#", f"{one.subject}: {one.text}") == search.kind), None)
    if first is None:
        return script
    ends_at_s = round(first.at + AFTERWARDS_S, 3)
    shorter = tuple(fault for fault in script.faults if fault[0] <= first.at)
    cut = replace(script, faults=shorter, ends_at_s=ends_at_s)
    return cut if search.fails(cut) else script


def _hosts(search: _Search, script: Script) -> Script:
    """Whatever names a host goes with it."""
    every = [line.split()[1] for line in script.declarations if line.startswith("host ")]

    def build(kept: Sequence[str]) -> Script:
        gone = set(every) - set(kept)
        declarations = tuple(line for line in script.declarations if not gone & set(line.split()))
        faults = tuple(fault for fault in script.faults if not gone & set(fault[1].split()))
        return replace(script, declarations=declarations, faults=faults)

    return build(search.reduce(every, build))


def _faults(search: _Search, script: Script) -> Script:
    def build(kept: Sequence[str]) -> Script:
        numbers = {int(number) for number in kept}
        faults = (one for number, one in enumerate(script.faults) if number in numbers or one[1] in MENDS)
        return replace(script, faults=tuple(faults))

    breaking = [str(number) for number, one in enumerate(script.faults) if one[1] not in MENDS]
    return build(search.reduce(breaking, build))


def _declared(search: _Search, script: Script) -> Script:
    """VMs, engines, paces and groups; a group goes from its members' lines too."""
    optional = [line for line in script.declarations if line.split()[0] in ("vm", "engine", "group", "pace", "seed")]

    def build(kept: Sequence[str]) -> Script:
        lines = [line for line in script.declarations if line in kept or line not in optional]
        named = {f"group={line.split()[1]}" for line in lines if line.startswith("group ")}
        return replace(script, declarations=tuple(_without_groups(line, named) for line in lines))

    return build(search.reduce(optional, build))


def _without_groups(line: str, named: set[str]) -> str:
    words = (word for word in line.split(" ") if not word.startswith("group=") or word in named)
    return " ".join(words) if line.startswith("vm ") else line


def _words(search: _Search, script: Script) -> Script:
    """Options of all lines, each on its own."""
    every = [f"{number}:{word}" for number, line in enumerate(script.declarations) for word in _options(line)]

    def build(kept: Sequence[str]) -> Script:
        lines = [
            " ".join(word for word in line.split(" ") if word not in _options(line) or f"{number}:{word}" in kept)
            for number, line in enumerate(script.declarations)
        ]
        return replace(script, declarations=tuple(lines))

    return build(search.reduce(every, build))


def _options(line: str) -> Iterator[str]:
    if line.split()[0] in ("segment", "host", "vm", "engine", "pace") and "'" not in line:
        yield from (word for word in line.split(" ")[1:] if "=" in word)
