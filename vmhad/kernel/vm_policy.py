# SPDX-License-Identifier: Apache-2.0
"""What an operator wants of VMs: policies, each a match and what it says of the VMs that match.

The most specific one decides, setting by setting. A policy is as specific as its keys are, compared like words in a
dictionary: KEYS names them, the most specific first; the policy with the more specific first key wins, else its second
key counts, and so on; whoever names one key more wins. Each pair of metadata counts as a key. Two that are equally
specific, may match one VM and say different things of it are a tie: no order of ours would be what was meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from itertools import combinations

from vmhad.kernel.policy import OnFailure, OnIoError

# What a match may name, the most specific first: the VM itself, what it was made part of, what was written on it, what
# it is made of, whose it is, where it is.
KEYS = ("server", "group", "metadata", "tag", "image", "flavor", "project", "aggregate", "zone", "domain")
# A VM may have several of these at a time, so two of them with different values may match one VM.
SEVERAL = ("tag", "aggregate")
# What Masakari's users write on a VM that is to be kept alive, and what counts as yes there.
FLAG = "HA_Enabled"
YES = frozenset({"1", "t", "true", "on", "y", "yes"})
# A flagged VM goes before those of which nothing is said: Masakari's «first preference».
FLAGGED_PRIORITY = 1
PRIORITY_MAX = 100
# How Nova writes ids.
ID_LENGTH, ID_DASHES = 36, 4


class Protect(StrEnum):
    """FLAGGED: only those whose owner wrote HA_Enabled=True on them."""

    YES = "yes"
    NO = "no"
    FLAGGED = "flagged"


@dataclass(frozen=True, slots=True)
class VmSettings:
    """What the policies of VMs come to for one VM. None: nothing, so that its segment's Policy says it.

    protect: False: it is left alone, why_left says by what. priority: the higher one is recovered first. order_group:
    the name of what it belongs to where one group waits for another; '' for none. after: the groups that it waits for.
    ready_after_s: how long after it arrived elsewhere those that wait for its group wait yet. ready: the gate that they
    wait for beside that, as kernel.gate writes it; '' for none. storage_only_proof: can only be stricter than the
    segment's.
    """

    protect: bool | None = None
    why_left: str = ""
    priority: int = 0
    order_group: str = ""
    after: tuple[str, ...] = ()
    ready_after_s: float = 0.0
    ready: str = ""
    storage_only_proof: bool | None = None
    rebuild_local_disks: bool | None = None
    instance_starts_max: int | None = None
    instance_window_s: float | None = None
    on_crash: OnFailure | None = None
    on_panic: OnFailure | None = None
    on_io_error: OnIoError | None = None
    on_silent_agent: OnFailure | None = None


NOTHING_SAID = VmSettings()


@dataclass(frozen=True, slots=True)
class Match:
    """Every key that is named must fit; of several values of a key one is enough. Names nothing: fits every VM.

    server, image, project, domain: ids. group: an id or a name. flavor, aggregate, zone: names. metadata: key ->
    values. Values are compared whole, and without regard to case.
    """

    server: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    metadata: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tag: tuple[str, ...] = ()
    image: tuple[str, ...] = ()
    flavor: tuple[str, ...] = ()
    project: tuple[str, ...] = ()
    aggregate: tuple[str, ...] = ()
    zone: tuple[str, ...] = ()
    domain: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Those that it names, the most specific first; metadata once for each of its pairs."""
        named: list[str] = []
        for key in KEYS:
            named += [key] * (len(self.metadata) if key == "metadata" else bool(getattr(self, key)))
        return tuple(named)

    @property
    def rank(self) -> tuple[int, ...]:
        """Larger for the more specific one."""
        return tuple(len(KEYS) - KEYS.index(key) for key in self.keys)

    def __str__(self) -> str:
        parts = []
        for key in dict.fromkeys(self.keys):
            values = getattr(self, key)
            pairs = values.items() if key == "metadata" else [("", values)]
            parts += [f"{key} {name}{'=' if name else ''}{'|'.join(told)}" for name, told in sorted(pairs)]
        return ", ".join(parts) or "all"


@dataclass(frozen=True, slots=True)
class Settings:
    """What one policy says. None: nothing of that."""

    protect: Protect | None = None
    priority: int | None = None
    order_group: str | None = None
    after: tuple[str, ...] | None = None
    ready_after_s: float | None = None
    ready: str | None = None
    storage_only_proof: bool | None = None
    rebuild_local_disks: bool | None = None
    instance_starts_max: int | None = None
    instance_window_s: float | None = None
    on_crash: OnFailure | None = None
    on_panic: OnFailure | None = None
    on_io_error: OnIoError | None = None
    on_silent_agent: OnFailure | None = None

    @property
    def said(self) -> Mapping[str, object]:
        return {name: value for name in SETTINGS if (value := getattr(self, name)) is not None}


SETTINGS = tuple(one.name for one in fields(Settings))


@dataclass(frozen=True, slots=True)
class VmPolicy:
    name: str
    match: Match
    settings: Settings


@dataclass(frozen=True, slots=True)
class VmPolicies:
    """All policies of VMs, by name. version: grows by one with every change, whatever it is."""

    version: int = 0
    policies: tuple[VmPolicy, ...] = ()

    @property
    def ranked(self) -> tuple[VmPolicy, ...]:
        """The most specific first; of equally specific ones by name."""
        return tuple(sorted(sorted(self.policies, key=lambda one: one.name), key=_rank, reverse=True))

    def named(self, name: str) -> VmPolicy | None:
        return next((one for one in self.policies if one.name == name), None)

    def with_one(self, policy: VmPolicy) -> tuple[VmPolicy, ...]:
        """Its policies with this one, in place of what has its name."""
        others = (one for one in self.policies if one.name != policy.name)
        return tuple(sorted((*others, policy), key=lambda one: one.name))

    def without(self, name: str) -> tuple[VmPolicy, ...]:
        return tuple(one for one in self.policies if one.name != name)


def _rank(policy: VmPolicy) -> tuple[int, ...]:
    return policy.match.rank


def ties(policies: Iterable[VmPolicy]) -> Iterator[str]:
    """A sentence for each two that leave open what counts, and what to do about it."""
    by_keys: dict[tuple[str, ...], list[VmPolicy]] = {}
    for one in sorted(policies, key=lambda each: each.name):
        by_keys.setdefault(one.match.keys, []).append(one)
    for keys in sorted(by_keys):
        for a, b in combinations(by_keys[keys], 2):
            differing = [name for name in a.settings.said if b.settings.said.get(name, _of(a, name)) != _of(a, name)]
            if differing and _may_meet(a.match, b.match):
                by = f"by {', '.join(keys)}" if keys else "all"
                said = ", ".join(f"{name} ({_of(a, name)} and {_of(b, name)})" for name in differing)
                yield (
                    f"policies {a.name!r} and {b.name!r} are a tie: both match {by}, one VM may fit both, and they "
                    f"say different {said}; let one of them match by one key more, or say the same"
                )


def _of(policy: VmPolicy, setting: str) -> object:
    return policy.settings.said.get(setting)


def _may_meet(a: Match, b: Match) -> bool:
    """Whether one VM may fit both, as far as can be told without asking anybody. Both name the same keys."""
    for name in a.metadata.keys() & b.metadata.keys():
        if not folded(a.metadata[name]) & folded(b.metadata[name]):
            return False
    for key in KEYS:
        if key in SEVERAL or key == "metadata" or not getattr(a, key):
            continue
        one, other = folded(getattr(a, key)), folded(getattr(b, key))
        # A group may be meant by its id here and by its name there.
        if not one & other and not (key == "group" and len({_is_id(name) for name in one | other}) > 1):
            return False
    return True


def _is_id(text: str) -> bool:
    return len(text) == ID_LENGTH and text.count("-") == ID_DASHES


def folded(values: Iterable[str]) -> frozenset[str]:
    return frozenset(one.casefold() for one in values)
