# SPDX-License-Identifier: Apache-2.0
"""What is known before a failure as one document: plain values, for a terminal, a file, metrics or an API to carry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vmhad.kernel.step import StepState
from vmhad.survivability.bound import bounds_of
from vmhad.survivability.cloud import HOST, Cloud, Loss, single_losses
from vmhad.survivability.ground import Ground
from vmhad.survivability.single_points import single_points
from vmhad.survivability.survey import Survey, survey

VERSION = 1
NAMES_TOLD = 4
Row = dict[str, Any]


def survivability(
    cloud: Cloud, asked: Iterable[Loss] = (), before: Survey | None = None
) -> tuple[Mapping[str, Any], Survey]:
    """Of every single host, of every domain, and of what is asked beside. before: a survey of the same losses, of which
    is taken over what still stands; the one that comes back is the next one's."""
    losses = (*single_losses(cloud.segments), *asked)
    found = before.after(cloud) if before is not None and before.losses == losses else survey(cloud, losses)
    return document(found), found


def document(found: Survey) -> Row:
    """never: the protected VMs that come back from no failure of their host, whatever room there is. losses: each with
    the others that would be left."""
    never = [row for _, ground in sorted(found.grounds.items()) for row in _never(ground)]
    hopeless = {row["server"] for row in never}
    losses = [_loss(loss, found, hopeless) for loss in found.losses]
    kinds = list(dict.fromkeys(row["kind"] for row in losses))
    points = [
        {"kind": one.kind, "subject": one.subject, "because": one.because, "to_do": one.to_do}
        for one in single_points(found.cloud)
    ]
    return {
        "version": VERSION,
        "segments": [_segment(ground) for _, ground in sorted(found.grounds.items())],
        "summary": [_counted(kind, losses) for kind in kinds],
        "never": never,
        "losses": losses,
        "single_points": points,
    }


def _never(ground: Ground) -> Iterator[Row]:
    names = {one.id: one.name or one.id for mine in ground.servers.values() for one in mine}
    for host, plans in sorted(ground.plans.items()):
        for step in plans:
            if step.state is StepState.FAILED:
                yield _vm(step.subject, names[step.subject], host, step.because)


def _segment(ground: Ground) -> Row:
    together, alone = bounds_of(ground)
    return {
        "name": ground.segment.name,
        "hosts": len(ground.segment.names),
        "receivers": len(ground.board.turns),
        "protected": sum(len(plans) for plans in ground.plans.values()),
        "any_hosts": {"hosts": together.hosts, "because": together.because},
        "any_hosts_alone": {"hosts": alone.hosts, "because": alone.because},
    }


def _loss(loss: Loss, found: Survey, hopeless: set[str]) -> Row:
    recovered, left, never = 0, [], 0
    for segment, fate in found.of(loss).items():
        recovered += len(fate.recovered)
        servers = {one.id: one for host in fate.hosts for one in found.grounds[segment].servers[host]}
        for server_id, because in sorted(fate.left.items()):
            one = servers[server_id]
            if server_id in hopeless:
                never += 1
            else:
                left.append(_vm(server_id, one.name or one.id, one.host, because))
    hosts = {} if loss.kind == HOST else {"hosts": sorted(loss.hosts)}
    return {
        "kind": loss.kind, "name": loss.name, **hosts, "survived": not left and not never, "recovered": recovered,
        "never": never, "left": left,
    }  # fmt: skip


def _vm(server: str, name: str, host: str, because: str) -> Row:
    return {"server": server, "name": name, "host": host, "because": because}


def _counted(kind: str, losses: Sequence[Row]) -> Row:
    mine = [row for row in losses if row["kind"] == kind]
    return {"kind": kind, "asked": len(mine), "survived": sum(row["survived"] for row in mine)}


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """The document for a terminal: first what holds, then what does not and why, then what to do."""
    for row in told["segments"]:
        what = f"{row['protected']} protected VMs, {row['hosts']} hosts, {row['receivers']} of them receive"
        yield f"segment {row['name']}: {what}"
        yield from _bound_lines(row)
    for row in told["summary"]:
        yield f"{row['survived']} of {row['asked']} of kind {row['kind']} can be lost with every protected VM back"
    if told["never"]:
        yield f"{len(told['never'])} VMs come back from no failure of their host:"
        yield from _by_reason(told["never"])
    for row in told["losses"]:
        if row["left"]:
            all_of = row["recovered"] + row["never"] + len(row["left"])
            yield f"{row['kind']} {row['name']}: {len(row['left'])} of {all_of} VMs would be left:"
            yield from _by_reason(row["left"])
    for row in told["single_points"]:
        yield f"{row['kind']} {row['subject']}: {row['because']}"
        yield f"    {row['to_do']}"


def _bound_lines(row: Mapping[str, Any]) -> Iterator[str]:
    together, alone = row["any_hosts"], row["any_hosts_alone"]
    why = f"; one more is not sure: {together['because']}" if together["because"] else ""
    yield f"  any {together['hosts']} hosts at once can be lost{why}"
    if alone["hosts"] != together["hosts"]:
        why = f"; one more is not sure: {alone['because']}" if alone["because"] else ""
        yield f"  any {alone['hosts']} as for the VMs that can be evacuated, each by itself{why}"


def _by_reason(rows: Sequence[Row]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for row in rows:
        reasons.setdefault(row["because"], []).append(row["name"])
    for because, names in sorted(reasons.items()):
        more = f" and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
        yield f"    {', '.join(names[:NAMES_TOLD])}{more}: {because}"
