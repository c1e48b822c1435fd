# SPDX-License-Identifier: Apache-2.0
"""One decision as operations on keys, in an order that may be cut anywhere.

A commit too large for one transaction is cut into parts, and an engine may die between two of them. So what has to be
known first goes first (the fence budget's new entries with their incidents and STARTED acts, then incidents, then
claims, then steps) and what lets go goes last (claims released, budget entries removed, the incidents that end). Cut
anywhere, the journal says rather too much than too little is under way, and the next owner finishes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vmhad.journal import codec, keys
from vmhad.kernel.incident import Incident
from vmhad.kernel.step import Step, Verb
from vmhad.ports import Compare, Conflict

# A commit's compares, puts and deletes together; etcd itself takes 128 of each and 1.5 MiB in all, base64 included.
OPERATIONS_MAX = 100
PART_BYTES_MAX = 512 * 1024
# Every part also compares the epoch and the commit count, and puts the count.
_PART_FRAME = 3


class Contended(Conflict):
    """A claim, the budget or the record is not as read: load and decide again. subjects: keys of contested claims."""

    def __init__(self, text: str, subjects: Iterable[str] = ()) -> None:
        super().__init__(text)
        self.subjects = tuple(subjects)


@dataclass(frozen=True, slots=True)
class Change:
    """What one decision writes.

    claims: subject key (keys.open_host, keys.open_vm) -> incident id, or None to release; only an incident that this
    change names, itself or in a step, can be released from. fences: the incidents with an open fence (before, after),
    cloud-wide. deletes: keys, such as those of handled orders. certificates: step id -> those of what it settles, key
    -> JSON; they are written with their step or not at all.
    """

    incidents: tuple[Incident, ...] = ()
    steps: tuple[Step, ...] = ()
    claims: Mapping[str, str | None] = field(default_factory=dict)
    fences: tuple[frozenset[str], frozenset[str]] | None = None
    deletes: tuple[str, ...] = ()
    certificates: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)

    @property
    def read_first(self) -> tuple[str, ...]:
        """The keys whose present values decide whether this change may be written."""
        return (*self.claims, *((keys.FENCES,) if self.fences is not None else ()))


@dataclass(frozen=True, slots=True)
class Operation:
    """Put value at key (None: delete it), if compare holds. with_next: never cut off from the one after it."""

    key: str
    value: bytes | None
    compare: Compare | None = None
    with_next: bool = False

    @property
    def cost(self) -> int:
        return 1 if self.compare is None else 2

    @property
    def size(self) -> int:
        found = self.compare.value if self.compare is not None else None
        return len(self.key) + len(self.value or b"") + len(found or b"")


def parts(segment: str, change: Change, found: Mapping[str, bytes | None]) -> tuple[tuple[Operation, ...], ...]:
    """The change in transactions, to be written in order. found: present values of change.read_first.

    Raises Contended where a present value forbids it, ValueError for a change that contradicts itself.
    """
    whole = _pack(_operations(segment, change, found, split=False))
    return whole if len(whole) <= 1 else _pack(_operations(segment, change, found, split=True))


def _operations(segment: str, change: Change, found: Mapping[str, bytes | None], split: bool) -> list[Operation]:
    if any(incident.segment != segment for incident in change.incidents):
        raise ValueError(f"an incident of another segment in a change of {segment}")
    budget_in, budget_out = _budget(change, found, split)
    claimed, released = _claims(change, found)
    fencing = frozenset() if change.fences is None else change.fences[1] - change.fences[0]

    def urgent(step: Step) -> bool:
        return step.verb in (Verb.POWER_OFF, Verb.CUT_STORAGE) and step.incident in fencing

    running = sorted((i for i in change.incidents if i.is_open), key=lambda i: i.id not in fencing)
    ended = [i for i in change.incidents if not i.is_open]
    first = [i for i in running if i.id in fencing]
    operations = [
        *budget_in,
        *_incidents(first),
        *_steps(segment, filter(urgent, change.steps), change),
        *_incidents(running[len(first) :]),
        *claimed,
        *_steps(segment, (s for s in change.steps if not urgent(s)), change),
    ]
    operations += [*released, *(Operation(key, None) for key in change.deletes), *budget_out, *_incidents(ended)]
    _refuse_twice(operations, {keys.FENCES} if split else set())
    return operations


def _incidents(incidents: Iterable[Incident]) -> Iterator[Operation]:
    for incident in incidents:
        yield Operation(keys.incident(incident.segment, incident.id), codec.encode(incident))


def _steps(segment: str, steps: Iterable[Step], change: Change) -> Iterator[Operation]:
    for step in steps:
        for key, raw in change.certificates.get(step.id, {}).items():
            yield Operation(key, raw, with_next=True)
        yield Operation(keys.step(segment, step.incident, step.id), codec.encode(step))


def _budget(change: Change, found: Mapping[str, bytes | None], split: bool) -> tuple[list[Operation], list[Operation]]:
    """What goes first and what goes last; in a split commit entries are added first and removed last."""
    if change.fences is None:
        return [], []
    before, after = change.fences
    raw = found[keys.FENCES]
    if codec.decode_names(keys.FENCES, raw) != before:
        raise Contended("the cloud's fence budget has changed since it was read")
    if not split or before <= after:
        return [_replace_names(raw, after)], []
    if after <= before:
        return [], [_replace_names(raw, after)]
    both = _replace_names(raw, before | after)
    return [both], [_replace_names(both.value, after)]


def _replace_names(raw: bytes | None, names: frozenset[str]) -> Operation:
    return Operation(keys.FENCES, codec.encode_names(names), Compare(keys.FENCES, raw))


def _claims(change: Change, found: Mapping[str, bytes | None]) -> tuple[list[Operation], list[Operation]]:
    ours = {incident.id for incident in change.incidents} | {step.incident for step in change.steps}
    claimed, released, taken = [], [], []
    for key, incident_id in change.claims.items():
        raw = found[key]
        holder = None if raw is None else raw.decode(errors="replace")
        if incident_id is None:
            if not ours:
                raise ValueError(f"a change that releases {key} must name the incident that lets go")
            if holder in ours:
                released.append(Operation(key, None, Compare(key, raw)))
        elif holder is None:
            claimed.append(Operation(key, incident_id.encode(), Compare(key, None)))
        elif holder == incident_id:
            claimed.append(Operation(key, raw, Compare(key, raw)))
        else:
            taken.append((key, holder))
    if taken:
        texts = ", ".join(f"{key} by incident {holder}" for key, holder in taken)
        raise Contended(f"already claimed: {texts}", (key for key, _ in taken))
    return claimed, released


def _refuse_twice(operations: Sequence[Operation], allowed: set[str]) -> None:
    seen: set[str] = set()
    for operation in operations:
        if operation.key in seen and operation.key not in allowed:
            raise ValueError(f"one change writes {operation.key} twice")
        seen.add(operation.key)


def _pack(operations: Iterable[Operation]) -> tuple[tuple[Operation, ...], ...]:
    packed: list[tuple[Operation, ...]] = []
    part: list[Operation] = []
    cost = size = 0
    for group in _groups(operations):
        more_cost, more_size = sum(one.cost for one in group), sum(one.size for one in group)
        if part and (cost + more_cost > OPERATIONS_MAX - _PART_FRAME or size + more_size > PART_BYTES_MAX):
            packed.append(tuple(part))
            part, cost, size = [], 0, 0
        part += group
        cost += more_cost
        size += more_size
    if part:
        packed.append(tuple(part))
    return tuple(packed)


def _groups(operations: Iterable[Operation]) -> Iterator[list[Operation]]:
    """What may be parted from each other."""
    group: list[Operation] = []
    for operation in operations:
        group.append(operation)
        if not operation.with_next:
            yield group
            group = []
