# SPDX-License-Identifier: Apache-2.0
"""vmhad-manage storage check: what the storages say of each host, held against what the journal's incidents make of it.

For an operator's monitoring: an order that leaves an engine too late, after its incident is over, is told to nobody
else. It asks the storages and changes nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from vmhad.conf.settings import ConfigError, Settings
from vmhad.journal.journal import Journal, SegmentRecord
from vmhad.kernel.incident import State
from vmhad.kernel.proof import CUT_STORAGE
from vmhad.kernel.signal import Access
from vmhad.kernel.step import Verb
from vmhad.kernel.topology import Segment
from vmhad.ports import Storage
from vmhad.wiring import open_storages

# Of one storage at a time: a driver has only so many calls, and its server has other things to do.
AT_ONCE = 8
# What an exit code tells, as monitoring has it.
WELL, WRONG, UNKNOWN = 0, 1, 3
# Its storages are to be cut off while it is in these.
RESTS_ON_CUTS = (State.RECOVERING, State.RECOVERED)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a storage said of a host."""

    host: str
    storage: str
    access: Access
    words: str


def add_storage(nouns: Any) -> None:
    """Adds the noun to vmhad-manage."""
    verbs = nouns.add_parser("storage", help="what cuts hosts off from their disks").add_subparsers(required=True)
    one = verbs.add_parser(
        "check",
        help="which hosts are cut off and no open incident holds it; exits with 1 if any, 3 if a storage did not say",
    )
    one.set_defaults(run=check_storages)


def check_storages(journal: Journal, settings: Settings, told: argparse.Namespace) -> int:
    """Raises ConfigError, Unanswered."""
    if not settings.storages:
        raise ConfigError("the segments file names no storages: there is nothing to check.")
    clients = {one.name: tuple(one.clients) for one in settings.storages}
    return check(journal, settings.segments, open_storages(settings), clients)


def check(
    journal: Journal,
    segments: Sequence[Segment],
    storages: Mapping[str, Storage],
    clients: Mapping[str, Iterable[str]],
) -> int:
    """Prints what is found. The journal is read before the storages and after them: what begins or ends meanwhile is
    held by one of the two."""
    before = [journal.load(one.name) for one in segments]
    readings = read_all(storages, clients)
    after = [journal.load(one.name) for one in segments]
    wrong = complaints(readings, before, after)
    silent = [one for one in readings if one.access is Access.UNKNOWN]
    for line in wrong:
        print(line)
    for one in silent:
        print(f"{one.host} {one.storage}: UNKNOWN: {one.words}")
    print(f"{len(readings)} readings of {len(storages)} storages: {len(wrong)} wrong, {len(silent)} unknown")
    return WRONG if wrong else UNKNOWN if silent else WELL


def read_all(storages: Mapping[str, Storage], clients: Mapping[str, Iterable[str]]) -> tuple[Reading, ...]:
    """By storage and host."""
    with ExitStack() as pools:
        asked = []
        for name in sorted(storages):
            pool = pools.enter_context(ThreadPoolExecutor(AT_ONCE))
            asked += [(host, name, pool.submit(storages[name].read, host)) for host in sorted(clients[name])]
        return tuple(Reading(host, name, *answer.result()) for host, name, answer in asked)


def complaints(
    readings: Iterable[Reading], before: Sequence[SegmentRecord], after: Sequence[SegmentRecord]
) -> tuple[str, ...]:
    """A line for each host that is cut off while no open incident holds it, and each that is not while one rests on
    its cut."""
    holding, ended = cutters((*before, *after)), cutters(after, ended=True)
    resting = _resting(before).items() & _resting(after).items()
    relied_on = {(host, storage): incident for (host, storage), incident in sorted(resting)}
    found = []
    for one in readings:
        there = (one.host, one.storage)
        what = ""
        if one.access is Access.CUT and there not in holding:
            by = f"incident {ended[there]}, which is over, cut it off" if there in ended else "no incident cut it off"
            what = f"CUT, and no open incident holds it ({by})"
        elif one.access is Access.OPEN and there in relied_on:
            what = f"OPEN, though incident {relied_on[there]} rests on its cut"
        if what:
            found.append(f"{one.host} {one.storage}: {what}: {one.words}")
    return tuple(found)


def cutters(records: Iterable[SegmentRecord], ended: bool = False) -> dict[tuple[str, str], str]:
    """(host, storage) -> the newest incident, open or ended, that sent a cut there."""
    found = {}
    for record in records:
        mine = {one.id: one for one in record.incidents if one.is_open is not ended}
        for step in record.steps:
            if step.verb is Verb.CUT_STORAGE and step.attempt and step.incident in mine:
                found[step.subject, step.args["backend"]] = step.incident
    return found


def _resting(records: Iterable[SegmentRecord]) -> dict[tuple[str, str], str]:
    """(host, storage) -> the incident whose proof is that the host is cut off there."""
    found = {}
    for record in records:
        for one in record.incidents:
            proof = one.proof if one.state in RESTS_ON_CUTS else None
            if proof is not None and proof.kind == CUT_STORAGE:
                found.update({(one.host, storage): one.id for storage in proof.backends})
    return found
