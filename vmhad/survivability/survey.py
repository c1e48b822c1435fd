# SPDX-License-Identifier: Apache-2.0
"""Every loss of a cloud, played through once; after a change only those that it can touch.

Rule kept: what is not played again would have ended the same, to the target. A trial rests on the servers of its hosts,
on where the members of their groups are, on the receivers that it looked at, and on who had fewer hosts to choose from
than whom; where all of that is as it was, so is its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from vmhad.guards.hosts.board import Kind
from vmhad.guards.hosts.place import END
from vmhad.survivability.cloud import Cloud, Loss
from vmhad.survivability.ground import Ground, ground_of
from vmhad.survivability.trial import Choices, Fate, lose

# Of one segment, and of one set of its hosts.
Key = tuple[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Survey:
    """fates: what becomes of each loss in each segment that it reaches into. played: how many were played for this
    survey; the others are an older one's."""

    cloud: Cloud
    losses: tuple[Loss, ...]
    grounds: Mapping[str, Ground]
    fates: Mapping[Key, Fate]
    played: int

    def of(self, loss: Loss) -> dict[str, Fate]:
        """Segment -> its fate there."""
        names = {name: frozenset(ground.servers) for name, ground in self.grounds.items()}
        return {key[0]: self.fates[key] for key in _keys(loss, names)}

    def after(self, cloud: Cloud) -> Survey:
        """The same losses, where hosts are as they were, of the cloud as it is now."""
        return _surveyed(cloud, self.losses, self)


def survey(cloud: Cloud, losses: Iterable[Loss]) -> Survey:
    return _surveyed(cloud, tuple(losses), None)


def _surveyed(cloud: Cloud, losses: tuple[Loss, ...], before: Survey | None) -> Survey:
    old_grounds: Mapping[str, Ground] = before.grounds if before else {}
    grounds = {one.name: ground_of(one, cloud, old_grounds.get(one.name)) for one in cloud.segments}
    stands = {name: _standing(old_grounds.get(name), ground) for name, ground in grounds.items()}
    fates: dict[Key, Fate] = {}
    played, names = 0, _names(cloud)
    for key in dict.fromkeys(key for loss in losses for key in _keys(loss, names)):
        old = before.fates.get(key) if before else None
        if old is not None and stands[key[0]](old):
            fates[key] = old
        else:
            fates[key] = lose(grounds[key[0]], key[1])
            played += 1
    return Survey(cloud, losses, grounds, fates, played)


def _names(cloud: Cloud) -> dict[str, frozenset[str]]:
    return {segment.name: frozenset(segment.names) for segment in cloud.segments}


def _keys(loss: Loss, names: Mapping[str, frozenset[str]]) -> list[Key]:
    return [(segment, lost) for segment, mine in sorted(names.items()) if (lost := loss.hosts & mine)]


def _standing(old: Ground | None, new: Ground) -> Callable[[Fate], bool]:
    """Whether a fate that was found on the older ground stands on the new one."""
    if old is None or (old.segment, old.policy) != (new.segment, new.policy):
        return lambda fate: False
    own = _hosts_of_their_own(old, new)
    receivers = _receivers_that_changed(old, new)
    deltas = {name: _delta(old, new, name) for name in receivers}
    moved = {kind: delta for one in deltas.values() for kind, delta in one.items() if delta}
    total = {kind: sum(one.get(kind, 0) for one in deltas.values()) for kind in moved}

    def stands(fate: Fate) -> bool:
        if fate.hosts & own:
            return False
        mine = receivers - fate.hosts
        if any(name in fate.named or _was_reached(name, fate, old, new) for name in mine):
            return False
        lost = receivers & fate.hosts
        delta = total if not lost else {kind: sum(deltas[name].get(kind, 0) for name in mine) for kind in total}
        return not delta or _chose_the_same(fate, delta)

    return stands


def _hosts_of_their_own(old: Ground, new: Ground) -> frozenset[str]:
    """Whose loss is another one now: their servers, or what these need or are grouped with, changed."""
    found = {name for name in new.servers if old.servers[name] != new.servers[name]}
    touched = _changed(old.ends, new.ends) | _changed(old.unsettled, new.unsettled) | _changed(old.needs, new.needs)
    for group_id in _changed(old.groups, new.groups) | _groups_that_moved(old, new):
        was, now = old.groups.get(group_id), new.groups.get(group_id)
        members = {*(was.members if was else ()), *(now.members if now else ())}
        touched |= members
    return frozenset(found | {name for name, mine in new.servers.items() if any(one.id in touched for one in mine)})


def _changed(old: Mapping[str, object], new: Mapping[str, object]) -> set[str]:
    return set() if old == new else {one for one in {*old, *new} if old.get(one) != new.get(one)}


def _groups_that_moved(old: Ground, new: Ground) -> set[str]:
    moved = _changed(old.homes, new.homes)
    return {group.id for one in moved for group in new.board.groups_of.get(one, ())}


def _receivers_that_changed(old: Ground, new: Ground) -> frozenset[str]:
    """Those that stand elsewhere in the line, have another room, zone or traits, or receive no more or for the first
    time."""

    def seen(ground: Ground, name: str) -> object:
        if name not in ground.board.turns:
            return None
        inventory = ground.inventory
        return ground.board.turns[name], ground.board.left.get(name), inventory.zones.get(name), ground.traits.get(name)

    return frozenset(name for name in new.segment.names if seen(old, name) != seen(new, name))


def _delta(old: Ground, new: Ground, name: str) -> dict[Kind, int]:
    """How many hosts more each kind of server can choose from for this one."""
    was, now = old.fits.get(name, frozenset()), new.fits.get(name, frozenset())
    # A kind that only one of them knows is none of a server that both have.
    both = old.board.kinds.keys() & new.board.kinds.keys()
    return {kind: (kind in now) - (kind in was) for kind in (was ^ now) & both}


def _was_reached(name: str, fate: Fate, old: Ground, new: Ground) -> bool:
    return min(old.board.turns.get(name, END), new.board.turns.get(name, END)) <= fate.depth


def _chose_the_same(fate: Fate, delta: Mapping[Kind, int]) -> bool:
    """With so many more to choose from everybody has his turn as before, and nobody has none who had one."""
    for kind, count in fate.fewest.items():
        change = delta.get(kind, 0)
        if change and min(count, count + change) <= 0:
            return False
    return all(_order(choices, {}) == _order(choices, delta) for choices in fate.orders)


def _order(choices: Choices, delta: Mapping[Kind, int]) -> dict[Kind, int]:
    """The rank of each kind by what it can choose from; those with as many share one."""
    counts = {kind: count + delta.get(kind, 0) for kind, count in choices}
    ranks = {count: rank for rank, count in enumerate(sorted(set(counts.values())))}
    return {kind: ranks[count] for kind, count in counts.items()}
