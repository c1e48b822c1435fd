# SPDX-License-Identifier: Apache-2.0
"""The explorer finds nothing where the guards stand, and finds it at once where one of them is cut out.

Here it goes to depth 1, and to depth 2 for a second; `vmhad-sim explore --depth 2` goes all the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest

from vmhad.cmd import sim
from vmhad.engine.executor import Executor
from vmhad.engine.ownership import Ownership
from vmhad.journal import keys
from vmhad.kernel.step import Step
from vmhad.ports import Compare
from vmhad.sim.adversary import ON_SEND, Adversary, Epochs
from vmhad.sim.arena import Arena
from vmhad.sim.explore import explore, play
from vmhad.sim.likeness import Likeness
from vmhad.sim.store import MemoryStore


@contextmanager
def cut_out(owner: type, name: str, instead: Callable[..., object]) -> Iterator[None]:
    """A guard of the shipped core, switched off for as long as the block runs."""
    guard = getattr(owner, name)
    setattr(owner, name, instead)
    try:
        yield
    finally:
        setattr(owner, name, guard)


@contextmanager
def without_epoch_check() -> Iterator[None]:
    """The store takes an owner's commit whatever epoch and commit count it carries."""
    guarded = MemoryStore.commit

    def unguarded(
        store: MemoryStore, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str] = ()
    ) -> int:
        kept = [one for one in compares if not one.key.endswith(("/epoch", "/commits"))]
        return guarded(store, kept, puts, deletes)

    with cut_out(MemoryStore, "commit", unguarded):
        yield


@contextmanager
def without_proof_check() -> Iterator[None]:
    """Nobody reads a host's power just before an act that rests on its being off."""

    def unasked(executor: Executor, step: Step) -> str:
        return ""

    with cut_out(Executor, "_proof_refusal", unasked):
        yield


@contextmanager
def without_lease() -> Iterator[None]:
    """An owner acts for as long as it believes to be one."""

    def for_ever(ownership: Ownership, segment: str) -> float:
        return 1000.0

    with cut_out(Ownership, "remaining_s", for_ever):
        yield


@pytest.mark.parametrize("opening", ["cut", "hang"])
def test_no_rule_breaks_whatever_goes_wrong_once(opening: str) -> None:
    found = explore(1, (opening,))
    assert found.complete
    assert found.runs == found.choices + 1 > 300
    assert found.states > 500
    assert not found.counterexamples


@pytest.mark.parametrize(
    ("guard", "opening", "word"),
    [
        (without_epoch_check, "cut", "wrote under epoch 1 while epoch 2 stood"),
        (without_proof_check, "cut", "was not read before it was evacuated"),
        (without_lease, "cut", "acted while e2 owns"),
    ],
)
def test_a_guard_that_is_cut_out_is_missed(guard: Callable[[], Iterator[None]], opening: str, word: str) -> None:
    with guard():
        found = explore(1, (opening,), stop_at_first=True)
    example = found.counterexamples[0]
    assert any(word in one.broken for one in found.counterexamples), found
    with guard():
        assert example.broken in play(example.script, opening).broken
    assert not play(example.script, opening).broken


def test_one_script_is_one_run() -> None:
    first = play({}, "cut")
    number = next(n for n, point in enumerate(first.points) if point.what == "e1 sends evacuate")
    script = {number: "sleeps 17 s before it leaves"}
    told = [[(point.at, point.what, point.chosen) for point in play(script, "cut").points] for _ in range(2)]
    assert told[0] == told[1]
    assert told[0][:number] == [(point.at, point.what, point.chosen) for point in first.points[:number]]
    assert len(first.points[number].options) == len(ON_SEND)


def test_worlds_are_alike_when_all_in_them_is() -> None:
    arenas = [Arena(Adversary({}), "cut") for _ in range(3)]
    for arena in arenas:
        arena.open()
        arena.run(4.0)
    assert Likeness().of(arenas[0]) == Likeness().of(arenas[1])
    arenas[1].datacentre.vms["vm"].guests.add("h2")
    assert Likeness().of(arenas[0]) != Likeness().of(arenas[1])
    engine = arenas[2].nodes["e1"].engine
    engine.ownership.lost("east")
    assert Likeness().of(arenas[0]) != Likeness().of(arenas[2])


def test_the_command_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert sim.main(["explore", "--depth", "2", "--opening", "cut", "--cpu-limit", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["depth"] == 2 and told["violations"] == 0 and not told["complete"]
    assert {"runs", "states", "cpu_seconds"} <= set(told)


def test_an_epoch_has_one_writer_and_only_grows() -> None:
    epochs, key = Epochs(), keys.epoch("east")

    def landed(engine: str, had: int, claimed: int, puts: int | None = None) -> list[str]:
        compares = [Compare(key, b"%d" % claimed)]
        epochs.breaches.clear()
        epochs.landed(engine, key, b"%d" % had, compares, {} if puts is None else {key: b"%d" % puts})
        return list(epochs.breaches)

    assert landed("e1", 0, 0, 1) == []
    assert landed("e1", 1, 1) == []
    assert landed("e2", 1, 1, 2) == []
    assert landed("e1", 2, 1) == ["e1 wrote under epoch 1 while epoch 2 stood"]
    assert landed("e1", 2, 2) == ["e1 wrote under epoch 2, which is e2's"]
    assert landed("e2", 2, 2, 4) == ["e2 made epoch 4 of epoch 2"]


def test_a_power_off_that_reaches_a_host_whose_fence_is_not_open_is_a_breach() -> None:
    arena = Arena(Adversary({}), "cut")
    arena.run(5.0)
    arena.nodes["e1"].engine.executor.world.power.off("h2")
    assert "host h2: a power_off reaches it while its fence is not open: []" in arena.broken
