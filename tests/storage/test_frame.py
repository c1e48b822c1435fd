# SPDX-License-Identifier: Apache-2.0
"""The frame that measures storages sees what it is there to see: a rig whose storage lies is told from one that does
not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.rounds import Round, play, report, summary
from tests.storage.stamps import Stamps
from vmhad.kernel.signal import Access


class Switch:
    """ports.Storage that cuts late_s after it was told to, and says CUT at once or when it is true."""

    def __init__(self, late_s: float, honest: bool) -> None:
        self._late_s = late_s
        self._honest = honest
        self.cut_at = float("inf")

    def is_cut(self) -> bool:
        return time.monotonic() >= self.cut_at

    def read(self, host: str) -> tuple[Access, str]:
        told = self.cut_at < float("inf")
        return (Access.CUT if (self.is_cut() if self._honest else told) else Access.UNKNOWN), host

    def cut(self, host: str) -> None:
        self.cut_at = time.monotonic() + self._late_s

    def restore(self, host: str) -> None:
        self.cut_at = float("inf")


class Pretended:
    """A rig whose writer is a thread that looks at the switch. mute: its answers are lost once it is told to cut."""

    name, host = "pretended", "h"

    def __init__(self, where: Path, storage: Switch, mute: bool = False) -> None:
        self.storage = storage
        self._stamps = Stamps(where / "stamps")
        self._mute = mute
        self._landed = 0
        self._end = threading.Event()

    def fresh(self) -> None:
        self.storage.restore(self.host)

    def start_writer(self, in_flight: int) -> None:
        self._writer = threading.Thread(target=self._write)
        self._writer.start()

    def _write(self) -> None:
        while not self._end.wait(0.001):
            if not self.storage.is_cut():
                self._landed += 1
                if not (self._mute and self.storage.cut_at < float("inf")):
                    self._stamps.add(time.monotonic())

    def last_accepted(self) -> float:
        return self._stamps.last()

    def accepted_since(self, at: float) -> int:
        return self._stamps.since(at)

    def held(self) -> int:
        return self._landed

    def close(self) -> None:
        self._end.set()
        self._writer.join()
        self._stamps.close()


@pytest.fixture
def played(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Round]:
    late_s, honest, mute = request.param
    rig = Pretended(tmp_path, Switch(late_s, honest), mute)
    try:
        yield play(rig, 1, 0.0, watch_s=0.5)
    finally:
        rig.close()


@pytest.mark.parametrize("played", [(0.3, True, False)], indirect=True)
def test_an_honest_storage_proves_after_the_last_write(played: Round) -> None:
    assert not played.false_proof
    assert 0.2 < played.order_to_last_write_s <= played.order_to_proof_s


@pytest.mark.parametrize("played", [(0.3, False, False)], indirect=True)
def test_a_proof_before_the_last_write_is_false(played: Round) -> None:
    assert played.false_proof
    assert played.order_to_proof_s < 0.2 < played.order_to_last_write_s


@pytest.mark.parametrize("played", [(0.3, False, True)], indirect=True)
def test_a_write_that_lands_and_is_never_answered_is_seen(played: Round) -> None:
    assert played.false_proof and played.order_to_last_write_s < 0.2


def test_stamps_are_seen_by_another_who_maps_them(tmp_path: Path) -> None:
    writer, watcher = Stamps(tmp_path / "s"), Stamps(tmp_path / "s")
    for at in (1.0, 2.0, 3.0):
        writer.add(at)
    assert watcher.last() == 3.0
    assert [watcher.since(at) for at in (0.5, 1.0, 2.5, 3.0)] == [3, 2, 1, 0]


def test_a_report_replaces_what_stood_there_of_its_driver(tmp_path: Path) -> None:
    path = tmp_path / "storage.json"
    for name, rounds_played in (("b", 1), ("a", 2), ("b", 3)):
        report(summary(name, [Round(0.01, 0.5, 0)] * rounds_played), path)
    assert [(one["driver"], one["rounds"]) for one in json.loads(path.read_text())] == [("a", 2), ("b", 3)]
