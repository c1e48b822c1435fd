# SPDX-License-Identifier: Apache-2.0
"""Registering and cutting off, command by command in every order: no host that is said to be cut off can write."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace

import pytest

from tests.agent.scsi_model import Direct, ModelLun, Party, Replayed, Said
from vmhad.agent.lun_memory import LunMemory
from vmhad.agent.registrar import CUT, FOREIGN, LOST, Registrar
from vmhad.drivers.storage import scsi_lun
from vmhad.drivers.storage.scsi_lun import Lun, is_cut
from vmhad.scsi.marks import PREFIX, marks_of
from vmhad.scsi.nexus import Nexus, Overtaken
from vmhad.scsi.scsi_bytes import Kind

KEY, OTHER, OPERATOR, LUN = 0xA1, 0xB1, 0x0E, "LUN 1"
MARKS = marks_of("h", PREFIX)
RESERVED = Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY
NEXUSES = frozenset({"p", "q", "actor", "holder", "o"})
GUARDED = ModelLun(frozenset({("o", OPERATOR)}), "o", RESERVED)
# The driver is tried again by the engine; here once, where the agent does not die as well.
CUTS_MAX = 2


class InMind:
    """What a host keeps until it boots. noted: told of all that is written."""

    def __init__(self, text: str = "", noted: Callable[[str], None] = lambda text: None) -> None:
        self.text, self._noted = text, noted
        noted(text)

    def read(self) -> str:
        return self.text

    def write(self, text: str) -> None:
        self.text = text
        self._noted(text)


def agent(memory: str = "", looks: int = 1, kept: Callable[..., InMind] = InMind) -> Party:
    """Looks so many times at one path. memory: of the agent before it."""

    def runs(answers: list[Said], noted: Callable[[str], None]) -> Hashable:
        registrar = Registrar(KEY, MARKS, LunMemory(kept(memory, noted), "boot"), LUN, "p")
        word = ""
        for _ in range(looks):
            try:
                word = registrar.settle(Nexus(Replayed("p", answers), 1))
            except Overtaken as error:
                word = str(error)
        return word

    return Party(runs)


def driver(tries: int = CUTS_MAX) -> Party:
    """Cuts the host off, and says what it reads then."""

    def runs(answers: list[Said], noted: Callable[[str], None]) -> Hashable:
        actor, holder = Lun(Replayed("actor", answers), 1), Lun(Replayed("holder", answers), 1)
        for _ in range(tries):
            try:
                scsi_lun.cut(actor, holder, frozenset({KEY}), MARKS)
            except Overtaken:
                continue
            if is_cut(actor.look(), frozenset({KEY}), MARKS):
                return "CUT"
        return "not cut"

    return Party(runs)


@dataclass(frozen=True)
class State:
    """agent, driver: where each is. memory: as the agent that runs now found it. said_cut: its host was said to be cut
    off."""

    lun: ModelLun
    agent: int = 0
    driver: int = 0
    memory: str = ""
    said_cut: bool = False
    died: bool = False


class Orders:
    """All of them. eats: other commands of the host may be told of a reset in the agent's place. dies: once, at any
    moment, the agent is killed and starts again."""

    def __init__(self, lun: ModelLun, looks: int = 1, eats: bool = False, dies: bool = False) -> None:
        self._first = State(lun)
        self._looks, self._eats, self._dies = looks, eats, dies
        self._agents: dict[str, Party] = {}
        self._driver = driver(1 if dies else CUTS_MAX)
        self.ends: list[tuple[ModelLun, Hashable, Hashable]] = []
        self.open_after_cut: list[ModelLun] = []
        self.count = 0

    def play(self) -> Orders:
        seen, waiting = {self._first}, [self._first]
        while waiting:
            state = waiting.pop()
            self.count += 1
            if state.said_cut and state.lun.takes_writes_of("p"):
                self.open_after_cut.append(state.lun)
            for after in self._after(state):
                if after not in seen:
                    seen.add(after)
                    waiting.append(after)
        return self

    def _after(self, state: State) -> Iterator[State]:
        agents = self._agents.setdefault(state.memory, agent(state.memory, self._looks))
        ours, theirs = agents.step(state.agent), self._driver.step(state.driver)
        if ours.sent is None and theirs.sent is None:
            self.ends.append((state.lun, ours.result, theirs.result))
        if ours.sent is not None:
            lun, said = state.lun.after(ours.sent, NEXUSES)
            yield replace(state, lun=lun, agent=agents.after(state.agent, undated(said)))
            if self._dies and not state.died and ours.noted != state.memory:
                # Whether what it sent last was begun or not. Before it has noted anything it is as one that starts now.
                yield replace(state, memory=ours.noted, agent=0, died=True)
                yield replace(state, lun=lun, memory=ours.noted, agent=0, died=True)
        if theirs.sent is not None:
            lun, said = state.lun.after(theirs.sent, NEXUSES)
            at = self._driver.after(state.driver, said)
            yield replace(state, lun=lun, driver=at, said_cut=self._driver.step(at).result == "CUT")
        if self._eats and "p" in state.lun.attentions:
            yield replace(state, lun=state.lun.told("p"))


def undated(said: Said) -> Said:
    """Without the generation, which an agent does not look at: fewer states, the same orders."""
    status, data, sense = said
    return status, bytes(4) + data[4:] if len(data) > 8 else data, sense


def settled(lun: ModelLun, memory: str = "", looks: int = 1) -> tuple[ModelLun, Hashable, str]:
    """While nobody else speaks."""
    lun, end = agent(memory, looks).alone(lun, NEXUSES)
    return lun, end.result, end.noted


def cut(lun: ModelLun) -> ModelLun:
    lun, end = driver().alone(lun, NEXUSES)
    assert end.result == "CUT"
    return lun


def marked(lun: ModelLun, *keys: int) -> ModelLun:
    """With these of the three marks alone."""
    rest = frozenset(one for one in lun.registered if one[1] not in MARKS.all)
    return replace(lun, registered=rest | {(f"m{key}", key) for key in keys})


STARTS = {
    "another host": replace(GUARDED, registered=GUARDED.registered | {("q", OTHER)}),
    "another path": replace(GUARDED, registered=GUARDED.registered | {("q", KEY)}),
    "no reservation": ModelLun(frozenset({("q", KEY)})),
    "given back before": marked(replace(GUARDED, registered=GUARDED.registered | {("q", KEY)}), MARKS.opened),
    "already registered": replace(GUARDED, registered=GUARDED.registered | {("p", KEY)}),
}


@pytest.mark.parametrize(("start", "dies"), [*((start, False) for start in sorted(STARTS)), ("another path", True)])
def test_no_order_leaves_a_host_that_is_said_to_be_cut_off_writing(start: str, dies: bool) -> None:
    """Not even for a moment, while nobody but the agent speaks by that path."""
    played = Orders(STARTS[start], dies=dies).play()
    assert played.count > 500 and not played.open_after_cut
    assert any(theirs == "CUT" for _, _, theirs in played.ends)
    for lun, _, theirs in played.ends:
        assert MARKS.forbid & lun.keys, "every order has a cut in it"
        assert theirs != "CUT" or KEY not in lun.keys


@pytest.mark.parametrize("dies", [False, True], ids=["lives", "dies"])
def test_what_is_late_because_others_were_told_in_its_place_is_taken_back(dies: bool) -> None:
    """Then it is open for a moment, and nobody can help that; when all have ended it is not."""
    played = Orders(STARTS["another path"], eats=True, dies=dies).play()
    assert played.open_after_cut, "else the rule would not be needed"
    assert all(lun.keys & MARKS.forbid for lun in played.open_after_cut), "it reads OPEN beside the mark"
    assert not [lun for lun, _, _ in played.ends if lun.key_of("p")]


def test_a_path_is_registered_once() -> None:
    lun, word, memory = settled(GUARDED, looks=3)
    assert word == "" and lun.key_of("p") == KEY and lun.generation == 1
    again, word, _ = settled(lun, memory, looks=3)
    assert word == "" and again.registered == lun.registered


@pytest.mark.parametrize("mark", [MARKS.begun, MARKS.cut])
def test_where_a_mark_stands_nothing_is_sent(mark: int) -> None:
    lun = marked(GUARDED, mark)
    after, word, memory = settled(lun, looks=2)
    assert word == CUT and after == lun
    # Nor when somebody takes the mark away.
    assert settled(GUARDED, memory)[:2] == (GUARDED, LOST)
    assert settled(marked(GUARDED, MARKS.opened), memory)[0].key_of("p") == KEY


def test_what_was_taken_away_in_this_boot_comes_back_by_given_back_alone() -> None:
    registered, _, memory = settled(GUARDED)
    gone = cut(registered).told("p")
    assert not gone.key_of("p")
    assert settled(gone, memory)[:2] == (gone, CUT)
    taken = marked(GUARDED)
    assert settled(taken, memory)[:2] == (taken, LOST)
    back, word, _ = settled(marked(GUARDED, MARKS.opened), memory)
    assert word == "" and back.key_of("p") == KEY


def test_a_give_back_of_long_ago_is_none() -> None:
    """It stood when the path was registered: whoever took the key away after that did not give it back."""
    opened = marked(GUARDED, MARKS.opened)
    _, word, memory = settled(opened)
    assert word == ""
    assert settled(opened, memory)[:2] == (opened, LOST)
    _, word, memory = settled(marked(GUARDED, MARKS.cut), memory)
    assert word == CUT
    assert settled(opened, memory)[0].key_of("p") == KEY


def test_a_path_that_comes_while_another_one_stands_is_registered() -> None:
    _, _, memory = settled(GUARDED)
    lun, word, _ = settled(STARTS["another path"], memory)
    assert word == "" and lun.key_of("p") == KEY


@pytest.mark.parametrize("sees_the_cut", [False, True])
def test_every_path_is_registered_again_after_it_was_given_back(sees_the_cut: bool) -> None:
    """Also one that looked neither at the cut nor at what a new path registered after it."""
    memory = LunMemory(InMind(), "boot")
    p, q = (Registrar(KEY, MARKS, memory, LUN, path) for path in ("p", "q"))

    def settle(registrar: Registrar, path: str, lun: ModelLun) -> tuple[ModelLun, str]:
        way = Direct(path, lun, NEXUSES)
        word = registrar.settle(Nexus(way, 1))
        return way.lun, word

    lun, word = settle(p, "p", GUARDED)
    assert word == ""
    lun = cut(lun)
    if sees_the_cut:
        lun, word = settle(q, "q", lun)
        assert word == CUT
    lun, word = settle(q, "q", marked(lun, MARKS.opened))
    assert word == "" and lun.key_of("q") == KEY and not lun.key_of("p")
    lun, word = settle(p, "p", lun)
    assert word == "" and lun.key_of("p") == KEY


def test_a_new_boot_without_a_mark_knows_of_nothing() -> None:
    _, _, memory = settled(GUARDED)
    lun, word, _ = settled(GUARDED, memory.replace('"boot": "boot"', '"boot": "before"'))
    assert word == "" and lun.key_of("p") == KEY


def test_another_key_is_left_alone() -> None:
    lun = replace(GUARDED, registered=GUARDED.registered | {("p", OTHER)})
    after, word, _ = settled(lun)
    assert word == FOREIGN and after.registered == lun.registered


def test_who_cannot_remember_does_not_register() -> None:
    class Full(InMind):
        def write(self, text: str) -> None:
            raise OSError(28, "No space left on device")

    lun, end = agent(kept=Full).alone(GUARDED, NEXUSES)
    assert lun == GUARDED and "No space left" in str(end.result)
