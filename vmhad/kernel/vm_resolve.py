# SPDX-License-Identifier: Apache-2.0
"""Which policy decides what of one VM: for the core, which needs the values, and for an operator who asks why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache

from vmhad.kernel.cloud import Server
from vmhad.kernel.policy import Policy
from vmhad.kernel.vm_policy import (
    FLAG,
    FLAGGED_PRIORITY,
    KEYS,
    NOTHING_SAID,
    SETTINGS,
    YES,
    Match,
    Protect,
    VmPolicy,
    VmSettings,
    folded,
)

# What of VmSettings stands in the place of what the segment's Policy says.
OF_POLICY = tuple(one.name for one in fields(VmSettings) if one.name in {each.name for each in fields(Policy)})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What counts of servers and stands in no row of theirs. aggregates: host -> names. groups: server -> the id and
    the name of its server group. domains: project -> its domain. Of those that were asked for; unknown: which of these
    whoever was asked would not tell, in his words."""

    aggregates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    domains: Mapping[str, str] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)


NOWHERE = Surroundings()
# Keys that a match can only be held against with what surroundings say, and where they say it.
DOMAIN = "domain"
SURROUNDED = {"aggregate": "aggregates", "group": "groups", DOMAIN: "domains"}


def needed(policies: Iterable[VmPolicy]) -> frozenset[str]:
    """Which surroundings these policies ask for."""
    return frozenset(key for one in policies for key in one.match.keys) & SURROUNDED.keys()


def domains_of(policies: Iterable[VmPolicy]) -> frozenset[str]:
    """The domains that they name."""
    return frozenset(domain for one in policies for domain in one.match.domain)


def is_flagged(server: Server) -> bool:
    """As Masakari reads it: its key is this very one, its value any yes."""
    return server.metadata.get(FLAG, "").strip().casefold() in YES


def fits(match: Match, server: Server, around: Surroundings) -> bool:
    return all(_fits(key, match, server, around) for key in KEYS if getattr(match, key))


def _fits(key: str, match: Match, server: Server, around: Surroundings) -> bool:
    if key == "metadata":
        return all(
            name in server.metadata and server.metadata[name].casefold() in _wanted(values)
            for name, values in match.metadata.items()
        )
    has: tuple[str, ...]
    if key == "group":
        has = around.groups.get(server.id, ())
    elif key == "aggregate":
        has = around.aggregates.get(server.host, ())
    elif key == "tag":
        has = server.tags
    elif key == DOMAIN:
        has = (around.domains.get(server.project, ""),)
    else:
        has = (str(getattr(server, "id" if key == "server" else key)),)
    wanted = _wanted(getattr(match, key))
    return any(one.casefold() in wanted for one in has)


@lru_cache(maxsize=4096)
def _wanted(values: tuple[str, ...]) -> frozenset[str]:
    """Asked of every server that is read, for every policy."""
    return folded(values)


def settings_of(ranked: Sequence[VmPolicy], server: Server, around: Surroundings) -> VmSettings:
    """ranked: the most specific first."""
    found: dict[str, object] = {}
    by: dict[str, str] = {}
    for one in ranked:
        if fits(one.match, server, around):
            for name, value in one.settings.said.items():
                if name not in found:
                    found[name], by[name] = value, one.name
    if "priority" not in found and is_flagged(server):
        found["priority"] = FLAGGED_PRIORITY
    if not found:
        return NOTHING_SAID
    why_left = _why_left(found.pop("protect", None), by.get("protect", ""), server)
    protect = not why_left if "protect" in by else None
    return replace(NOTHING_SAID, protect=protect, why_left=why_left, **found)  # type: ignore[arg-type]


def _why_left(protect: object, by: str, server: Server) -> str:
    if protect is Protect.NO:
        return f"VM policy {by!r} leaves it alone"
    if protect is Protect.FLAGGED and not is_flagged(server):
        return f"VM policy {by!r} protects only those with {FLAG}=True"
    return ""


def settled(server: Server, ranked: Sequence[VmPolicy], around: Surroundings) -> Server:
    """The server with what the policies say of it."""
    settings = settings_of(ranked, server, around)
    return server if settings == server.settings else replace(server, settings=settings)


def policy_of(policy: Policy, settings: VmSettings) -> Policy:
    """Its segment's policy as it holds for one VM."""
    if settings is NOTHING_SAID:
        return policy
    said = {name: value for name in OF_POLICY if (value := getattr(settings, name)) is not None}
    said["storage_only_proof"] = policy.storage_only_proof and settings.storage_only_proof is not False
    return replace(policy, **said)


# Why.


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting of one VM. by: the policy that decides it, or '' where none does."""

    setting: str
    value: str
    by: str
    because: str


def explained(
    ranked: Sequence[VmPolicy], server: Server, around: Surroundings, policy: Policy | None
) -> Iterator[Explained]:
    """Every setting, in the order they are listed. policy: its segment's; None where its host is in no segment."""
    fitting = [one for one in ranked if fits(one.match, server, around)]
    for name in SETTINGS:
        said = [one for one in fitting if name in one.settings.said]
        if name == "protect":
            yield _protect(said, server, policy)
        elif said:
            yield _decided(name, said, policy)
        elif name == "priority" and is_flagged(server):
            yield Explained(name, str(FLAGGED_PRIORITY), "", f"no policy says it, and its owner wrote {FLAG}=True")
        elif name in OF_POLICY and policy is not None:
            yield Explained(name, spelled(getattr(policy, name)), "", "no policy says it: as its segment has it")
        else:
            nothing = getattr(NOTHING_SAID, name)
            value = "as its segment has it" if nothing is None else spelled(nothing) or "none"
            yield Explained(name, value, "", "no policy says it")


def _decided(name: str, said: Sequence[VmPolicy], policy: Policy | None) -> Explained:
    value = said[0].settings.said[name]
    because = _over(name, said)
    if name == "storage_only_proof" and value and policy is not None and not policy.storage_only_proof:
        return Explained(name, "no", "", f"its segment says no, and a VM policy can only be stricter; {because}")
    return Explained(name, spelled(value), said[0].name, because)


def _over(name: str, said: Sequence[VmPolicy]) -> str:
    """How the first one won."""
    first, *others = said
    words = f"policy {first.name!r} matches it by {_by(first)}"
    for one in others:
        value = spelled(one.settings.said[name])
        than = "equally specific, says the same" if one.match.rank == first.match.rank else "less specific"
        words += f"; over {one.name!r} by {_by(one)}, {than}" + (f", which says {value}" * than.startswith("less"))
    return words


def _protect(said: Sequence[VmPolicy], server: Server, policy: Policy | None) -> Explained:
    """Its owner's own word comes first: nobody touches a VM against it."""
    if policy is not None and server.opted_out(policy.opt_out_key):
        over = f"; that goes before policy {said[0].name!r}" if said else ""
        return Explained("protect", "no", "", f"its owner wrote {policy.opt_out_key}=false on it{over}")
    flag = f"; its {FLAG} is {server.metadata[FLAG]!r}" if FLAG in server.metadata else ""
    if not said:
        return Explained("protect", "yes", "", f"no policy says it: every VM is protected{flag}")
    value = said[0].settings.protect
    why_left = _why_left(value, said[0].name, server)
    because = _over("protect", said)
    if value is Protect.FLAGGED:
        because += f", which protects those with {FLAG}=True{flag or f'; it has no {FLAG}'}"
    return Explained("protect", "no" if why_left else "yes", said[0].name, because)


def _by(policy: VmPolicy) -> str:
    return str(policy.match)


def spelled(value: object) -> str:
    """As a file has it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
