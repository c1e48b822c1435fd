# SPDX-License-Identifier: Apache-2.0
"""How many hosts of a segment may fail at once, whichever they are, with every VM back: a bound, never optimistic.

There are too many sets of hosts to play them all, and a trial knows one order of arrivals only. So the bound asks: can
the VMs of any so many hosts, wherever they are put and in whatever order, take from one of them its last target? A
target is taken by VMs that leave no room there, by members of its group, or by dying. Where all that they could take is
less than there is, everyone finds a place, however it goes. The true number may be higher, never lower.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import gcd

from vmhad.guards.hosts.board import Kind, disk_gib
from vmhad.guards.hosts.place import fits_alone
from vmhad.kernel.cloud import Group, Room, Server
from vmhad.kernel.step import StepState
from vmhad.survivability.ground import Ground

# vCPUs, RAM, disk.
Figures = tuple[int, int, int]
# What a host's whole room of one kind is priced at, so that the three kinds can be added up; whole numbers, so nothing
# is rounded.
WHOLE = 10**9
NEVER = 10**18


@dataclass(frozen=True, slots=True)
class Bound:
    """hosts: so many. because: what is not sure with one more; '' where no more are there to fail."""

    hosts: int
    because: str


@dataclass(frozen=True, slots=True)
class _Ask:
    """What one VM, or several alike, must find. apart: on how many hosts its group may be in its way. targets: who has
    all that it wants now. lacking: receivers that Nova would refuse it, which the plan cannot see."""

    server: Server
    apart: int
    targets: tuple[str, ...]
    lacking: int


def bounds_of(ground: Ground) -> tuple[Bound, Bound]:
    """Of all protected VMs; and of those alone that can be evacuated and that no hard-affinity group ties to others."""
    loads, tied, hopeless = _Loads(ground), _tied(ground), _hopeless(ground)
    alone = _alone(ground, loads, tied.keys())
    if hopeless:
        return Bound(0, hopeless[0]), alone
    for many in range(1, alone.hosts + 1):
        if why := _unsure_together(tied.values(), many, loads, ground):
            return Bound(many - 1, why), alone
    return alone, alone


def _alone(ground: Ground, loads: _Loads, tied: Iterable[str]) -> Bound:
    """What is not sure of so many hosts is not sure of more."""
    found = Bound(len(ground.segment.names) - 1, "")
    taken: dict[tuple[Figures, tuple[str, ...]], _Taken] = {}
    for ask in _asks(ground, tied):
        key = (_asked(ask.server), ask.targets)
        if key not in taken:
            taken[key] = _Taken(ask.server, ask.targets, ground, loads)

        def is_unsure(many: int, ask: _Ask = ask, taken: _Taken = taken[key]) -> bool:
            return not _is_sure(ask, taken, many, loads, ground)

        first = 1 + bisect_left(range(1, found.hosts + 1), True, key=is_unsure)
        if first <= found.hosts:
            found = Bound(first - 1, _said(ask, first))
    return found


class _Loads:
    """The most that any so many hosts leave to be placed, of each kind, and by price. prices: of one unit of each;
    grains: whatever is placed is so many whole grains of each, 0 where nothing is asked of it."""

    def __init__(self, ground: Ground) -> None:
        rooms = [ground.board.left[name] for name in ground.board.turns if name in ground.board.left]
        sums = _sum(map(_room, rooms))
        self.prices = tuple(max(1, WHOLE * max(1, len(rooms)) // max(1, one)) for one in sums)
        rows: list[tuple[int, ...]] = []
        self.grains: Figures = (0, 0, 0)
        for name, plans in ground.plans.items():
            coming = {step.subject for step in plans if step.state is not StepState.FAILED}
            asked = [_asked(one) for one in ground.servers[name] if one.id in coming]
            for vcpus, ram_mib, disk in asked:
                self.grains = gcd(self.grains[0], vcpus), gcd(self.grains[1], ram_mib), gcd(self.grains[2], disk)
            rows.append((*_sum(asked), sum(map(self.price, asked)), len(asked)))
        self._most: list[list[int]] = [[0, *accumulate(sorted(kind, reverse=True))] for kind in zip(*rows, strict=True)]

    def price(self, asked: Figures) -> int:
        return max(unit * figure for unit, figure in zip(self.prices, asked, strict=True))

    def figures(self, many: int) -> Figures:
        vcpus, ram_mib, disk = (kind[many] for kind in self._most[:3])
        return vcpus, ram_mib, disk

    def priced(self, many: int) -> int:
        return self._most[3][many]

    def vms(self, many: int) -> int:
        return self._most[4][many]


class _Taken:
    """Of how many targets so much of load can leave no room for one VM. To take a host is to fill one kind of its room:
    what that needs at least is added up from the cheapest host on, kind by kind, and by price; the less of both counts.
    """

    def __init__(self, server: Server, targets: Iterable[str], ground: Ground, loads: _Loads) -> None:
        self._own, self._loads = _asked(server), loads
        rooms = (room for name in targets if (room := ground.board.left.get(name)))
        needed = [_to_fill(room, self._own, loads.grains) for room in rooms]
        prices = [min(unit * one for unit, one in zip(loads.prices, row, strict=True)) for row in needed]
        self._by_price = list(accumulate(sorted(prices)))
        self._by_kind = [list(accumulate(sorted(row[kind] for row in needed))) for kind in range(len(self._own))]

    def most(self, many: int) -> int:
        loads, own = self._loads, self._own
        priced = bisect_right(self._by_price, loads.priced(many) - loads.price(own))
        figures = loads.figures(many)
        apart = sum(
            bisect_right(sums, load - mine) for sums, load, mine in zip(self._by_kind, figures, own, strict=True)
        )
        return min(priced, apart, max(0, loads.vms(many) - 1))


def _to_fill(room: Room, own: Figures, grains: Figures) -> Figures:
    """What fills it for good is more than it has beside that one VM: the next whole grain."""
    rows = zip(_room(room), own, grains, strict=True)
    vcpus, ram_mib, disk = (((left - mine) // grain + 1) * grain if grain else NEVER for left, mine, grain in rows)
    return vcpus, ram_mib, disk


def _is_sure(ask: _Ask, taken: _Taken, many: int, loads: _Loads, ground: Ground) -> bool:
    """With hosts that Nova refuses it, a try may be spent on each, and on none twice: so no target may be full."""
    if ask.lacking and (
        ask.lacking >= ground.policy.evacuate_attempts_max or loads.vms(many) > ground.policy.evacuations_per_target_max
    ):
        return False
    return many + ask.apart + taken.most(many) < len(ask.targets)


def _said(ask: _Ask, many: int) -> str:
    name, alike = ask.server.name or ask.server.id, f"{len(ask.targets)} hosts could take it now"
    if ask.lacking:
        return f"{name} with any {many}: {alike}, and Nova may refuse it once too often on those without its traits"
    return f"{name} with any {many}: {alike}, and the others may leave it none"


def _asks(ground: Ground, tied: Iterable[str]) -> list[_Ask]:
    """One for all that are alike, the hardest first; without those that are tied or not evacuated."""
    seen: dict[tuple[Kind, int, tuple[str, ...]], Server] = {}
    without = {*tied, *ground.unsettled}
    for name, plans in sorted(ground.plans.items()):
        coming = {step.subject for step in plans if step.state is not StepState.FAILED} - without
        for server in ground.servers[name]:
            if server.id in coming:
                apart = sum(map(_in_its_way, ground.board.groups_of.get(server.id, ())))
                needs = ground.needs.get(server.id, ())
                seen.setdefault((ground.kinds[server.id], apart, needs), server)
    fitting: dict[Kind, tuple[str, ...]] = {}
    for kind, _, _ in seen:
        fitting[kind] = fitting.get(kind) or tuple(one for one in ground.board.turns if kind in ground.fits[one])
    asks = []
    for (kind, apart, needs), server in seen.items():
        has = [one for one in ground.board.turns if not set(needs) - set(ground.traits.get(one, ()))]
        targets = tuple(one for one in fitting[kind] if one in set(has)) if needs else fitting[kind]
        asks.append(_Ask(server, apart, targets, len(ground.board.turns) - len(has)))
    return sorted(asks, key=lambda one: (len(one.targets) - one.apart, -one.server.ram_mib, one.server.id))


def _in_its_way(group: Group) -> int:
    """On how many hosts at most there can be as many others of the group as may be."""
    return (len(group.members) - 1) // group.max_per_host if group.policy == "anti-affinity" else 0


def _tied(ground: Ground) -> Mapping[str, Group]:
    """server id -> its hard-affinity group, where others of that have a host, too."""
    found: dict[str, Group] = {}
    for group in ground.groups.values():
        members = [one for one in group.members if one in ground.homes]
        if group.policy == "affinity" and len(members) > 1:
            found.update(dict.fromkeys(members, group))
    return found


def _hopeless(ground: Ground) -> list[str]:
    """Why VMs would not come back whatever room there is."""
    refused = [
        f"{step.args.get('name') or step.subject}: {step.because}"
        for _, plans in sorted(ground.plans.items()) for step in plans if step.state is StepState.FAILED
    ]  # fmt: skip
    return refused + [f"{one}: {why}" for one, why in sorted(ground.unsettled.items())]


def _unsure_together(groups: Iterable[Group], many: int, loads: _Loads, ground: Ground) -> str:
    """Of the groups that go as one. Only the first one of each takes room at once; so wherever it can go there must be
    room for all that fails."""
    figures = loads.figures(many)
    wide = [one for one in ground.board.turns if _holds(ground.board.left.get(one), figures)]
    for group in {one.id: one for one in groups}.values():
        hosts = {ground.homes[one] for one in group.members if one in ground.homes}
        mine = [one for host in hosts for one in ground.servers.get(host, ()) if one.id in group.members]
        if len(hosts) > 1 or not ground.policy.affinity_groups_movable:
            return f"the hard-affinity group {group.id}: it cannot be moved as one"
        can = [one for one in ground.board.turns if mine and all(fits_alone(vm, one, ground.board) for vm in mine)]
        if set(can) - set(wide) or len(can) <= many:
            return f"the hard-affinity group {group.id} with any {many}: others may take the room that its VMs wait for"
    return ""


def _holds(room: Room | None, figures: Sequence[int]) -> bool:
    return room is None or all(left >= one for left, one in zip(_room(room), figures, strict=True))


def _sum(rows: Iterable[Figures]) -> Figures:
    vcpus = ram_mib = disk = 0
    for row in rows:
        vcpus, ram_mib, disk = vcpus + row[0], ram_mib + row[1], disk + row[2]
    return vcpus, ram_mib, disk


def _room(room: Room) -> Figures:
    return room.vcpus, room.ram_mib, room.disk_gib


def _asked(server: Server) -> Figures:
    return server.vcpus, server.ram_mib, disk_gib(server)
