# SPDX-License-Identifier: Apache-2.0
"""The words of stories about shared storages: which there are, what befalls them, and how they take orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vmhad.sim.draft import StoryError, seconds
from vmhad.sim.storage import Mood

if TYPE_CHECKING:
    from vmhad.sim.directives import Stage


class StorageWords:
    """One method a directive, as in directives.py."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.directives: dict[str, Callable[[list[str]], Sequence[str] | None]] = {
            "backend": self._backend,
            "storage": self._storage,
        }

    def _backend(self, words: list[str]) -> None:
        """backend ceph | backend nfs holds=nova,volumes clients=h1,h2 reach=h1,h2,h3 -- a storage that can cut hosts
        off; before the VMs. Without holds it holds the volumes of its name, without clients it can cut off every host,
        without reach every host has it mounted, and the segments file does not say so"""
        if self._stage.is_built:
            raise StoryError("backend comes too late: the world runs already")
        self._stage.draft.add_backend(words[0], dict(word.split("=", 1) for word in words[1:]))

    def _storage(self, words: list[str]) -> None:
        """storage ceph cuts h1 | storage ceph lets h1 | storage ceph hangs 8s -- the backend refuses, or takes again,
        what that host writes; or lets everybody wait; storage ceph orders silent | refuses | lags | lags 19s | hangs |
        loses-answers | in-vain | ok -- how it takes ours; storage ceph opens h1 -- somebody takes back what we cut"""
        backend, does, world = words[0], words[1], self._stage.world
        datacentre = world.datacentre
        if does == "orders":
            world.backends.moods[backend] = Mood(words[2])
            if len(words) > 3:
                world.backends.lags_s[backend] = seconds(words[3])
        elif does == "hangs":
            datacentre.hang_storage(backend, True)
            world.agenda.after(seconds(words[2]), lambda: datacentre.hang_storage(backend, False))
        elif does == "opens":
            world.checkers.opened.add(words[2])
            datacentre.fence_client(backend, words[2], False)
        elif does in ("cuts", "lets"):
            datacentre.cut_client(backend, words[2], does == "cuts")
        else:
            raise StoryError(f"a storage does not {does}")
