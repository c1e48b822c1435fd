# SPDX-License-Identifier: Apache-2.0
"""Rules of the guard of single VMs, each worked out from the truth when a request to restart one reaches Nova, or an
order to resume one its host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vmhad.guards.hosts.lift import was_lifted
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.step import Step
from vmhad.kernel.vm_resolve import policy_of
from vmhad.sim.compute import Post
from vmhad.sim.vm_settings import settings_in

if TYPE_CHECKING:
    from vmhad.sim.ledger import Ledger

# Between the look just before an act and its arrival; a user who acts in it is answered afterwards.
LOOK_S = 0.5
# An engine may just be deciding what it has not written yet.
DECIDED_S = 2.0
# A host tells once a second which storages it reaches, and what was told just before is acted on.
TOLD_S = 4.0


def of_restart(at: Ledger, post: Post, step: Step) -> Iterator[str]:
    row, settings = at.nova.servers[post.server], settings_in(at.nova, at.store, post.server)
    policy = policy_of(at.policies[at.segment_of(step.args["host"]).name], settings)
    done = at.restarted.setdefault(post.server, [])
    done.append(at.now)
    if post.late:
        return
    if settings.why_left:
        yield f"it is restarted although {settings.why_left}"
    ordered = any(one.state is State.STUCK for one in at.incidents[step.incident].turns)
    lately = [one for one in done if one > at.now - policy.instance_window_s + DECIDED_S]
    if not ordered and len(lately) > policy.instance_starts_max:
        yield f"it is restarted for the {len(done)}th time, more often than instance_starts_max allows"
    newest = next(iter(at.nova.actions.get(post.server, ())), None)
    acted_at = at.nova.acted_at.get(post.server, 0.0)
    if newest is not None and newest.by_user and acted_at < at.now - LOOK_S:
        if newest.kind == "stop":
            yield f"it is restarted although its user stopped it {at.now - acted_at:.1f} s ago"
        elif row.task_state:
            yield f"it is restarted while its user's {newest.kind} is under way"
    for one in at.incidents.values():
        has_it = one.host == row.host and one.is_open and one.is_of_host and one.opened_at < post.at - DECIDED_S
        if has_it and not was_taken_back(at, one):
            yield f"it is restarted although incident {one.id} of its host has it"


def was_taken_back(at: Ledger, incident: Incident) -> bool:
    """Then it has the VMs that it names, and those that Nova found gone; all else of its host fails alone."""
    mine = (one for one in at.steps.values() if one.incident == incident.id)
    return incident.state is State.STUCK and was_lifted(incident, mine)


def of_resumption(at: Ledger, host: str, server: str) -> Iterator[str]:
    datacentre = at.nova.datacentre
    is_refused = host in datacentre.cut_clients.get("ceph", ()) or host in datacentre.fenced.get("ceph", ())
    if is_refused and datacentre.cut_at["ceph", host] < at.now - TOLD_S:
        yield "it is resumed although its host does not reach its storage"
    newest = next(iter(at.nova.actions.get(server, ())), None)
    acted_at = at.nova.acted_at.get(server, 0.0)
    if newest is not None and newest.by_user and newest.kind == "stop" and acted_at < at.now - LOOK_S:
        yield f"it is resumed although its user stopped it {at.now - acted_at:.1f} s ago"
