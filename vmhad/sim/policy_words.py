# SPDX-License-Identifier: Apache-2.0
"""The word of stories about policies of VMs: left in the journal as vmhad-manage leaves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vmhad.conf.settings import ConfigError
from vmhad.conf.vm_policies_file import ALL, policy_of
from vmhad.conf.yaml_file import Field, parse
from vmhad.journal.policies import PolicyShelf, created, deleted
from vmhad.kernel.vm_policy import VmPolicy
from vmhad.ports import Refused
from vmhad.sim.draft import StoryError

if TYPE_CHECKING:
    from vmhad.sim.directives import Stage


class PolicyWords:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.directives: dict[str, Callable[[list[str]], Sequence[str] | None]] = {"vm-policy": self._policy}

    def _policy(self, words: list[str]) -> None:
        """vm-policy db metadata.role=db group=g1 says priority=5 | vm-policy rest all says protect=flagged |
        vm-policy db gone"""
        shelf = PolicyShelf(self._stage.world.store)
        there = shelf.newest()
        try:
            if words[1] == "gone":
                shelf.replace(there.version, deleted(there, words[0]))
            else:
                shelf.replace(there.version, created(there, _read(words)))
        except (ConfigError, Refused) as error:
            raise StoryError(str(error)) from None


def _read(words: list[str]) -> VmPolicy:
    at = words.index("says")
    match: Any = ALL
    if words[1:at] != [ALL]:
        match = {}
        for word in words[1:at]:
            key, _, value = word.partition("=")
            kind, _, name = key.partition(".")
            if name:
                match.setdefault(kind, {})[name] = value
            else:
                match[kind] = value.split(",")
    said = {name: parse(text, "the story", name) for name, _, text in (word.partition("=") for word in words[at + 1 :])}
    return policy_of(Field("the story", "", {"name": words[0], "match": match, "settings": said}))
