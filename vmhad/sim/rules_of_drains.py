# SPDX-License-Identifier: Apache-2.0
"""Rules of emptying a host that lives, each worked out from the journal and the truth, without the core's own code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vmhad.kernel.incident import State
from vmhad.kernel.step import Step, Verb
from vmhad.sim.compute import Post
from vmhad.sim.vm_settings import settings_in

if TYPE_CHECKING:
    from vmhad.sim.ledger import Ledger

# An engine may just be deciding what it has not written yet.
DECIDED_S = 2.0


def of_start(at: Ledger, new: Step) -> Iterator[str]:
    """A move as it was STARTED, once its whole decision is written."""
    incident, source, target = at.incidents[new.incident], new.args.get("source", ""), new.args.get("target", "")
    policy = at.policies[incident.segment]
    row = at.nova.servers.get(new.subject)
    if incident.state is not State.DRAINING:
        yield f"its live migration is started while its drain is {incident.state.value}"
    if row is not None and row.metadata.get(policy.opt_out_key, "").lower() == "false":
        yield "its live migration is started although its owner opted out"
    if row is not None and (why_left := settings_in(at.nova, at.store, row.id).why_left):
        yield f"its live migration is started although {why_left}"
    if target == source or target not in at.segment_of(source).names:
        yield f"its live migration is started to {target or 'nowhere'}, which is no other host of its segment"
    yield from _budgets(at, source, incident.segment)
    for one in at.open_steps.values():
        if one.id != new.id and one.verb in (Verb.EVACUATE, Verb.LIVE_MIGRATE) and one.subject == new.subject:
            yield f"it is moved by two incidents at once, {one.incident} and {new.incident}"
    for one in at.incidents.values():
        if one.is_open and one.is_of_host and one.host in (source, target) and one.opened_at < at.now - DECIDED_S:
            yield f"its live migration is started although incident {one.id} of {one.host} is open"


def _budgets(at: Ledger, source: str, segment: str) -> Iterator[str]:
    policy = at.policies[segment]
    moves = [one for one in at.open_steps.values() if one.verb is Verb.LIVE_MIGRATE]
    here = [one for one in moves if at.incidents[one.incident].segment == segment]
    hosts = sorted({one.args["source"] for one in here})
    if len(hosts) > policy.drains_max:
        yield f"{', '.join(hosts)} are emptied at once, more than drains_max allows ({policy.drains_max})"
    own = sum(one.args["source"] == source for one in here)
    if own > policy.live_migrations_max:
        yield f"{own} VMs leave {source} at once, more than live_migrations_max allows ({policy.live_migrations_max})"


def on_migrate(at: Ledger, post: Post) -> None:
    """A request to move a VM alive reached nova-api."""
    row = at.nova.servers.get(post.server)
    if row is None:
        return
    step = at.open_step(Verb.LIVE_MIGRATE, post.server, post.target)
    for why in of_post(at, post, step):
        at.report(f"vm {row.name}", why)
    if step is not None and not post.late:
        at.acted(post.engine, at.incidents[step.incident].host, f"vm {row.name}")


def of_post(at: Ledger, post: Post, step: Step | None) -> Iterator[str]:
    """A request that reached nova-api. A late one moves a VM that runs, wherever it is by then."""
    if post.late:
        return
    if step is None:
        yield f"a live migration to {post.target} was sent that is not STARTED in the journal"
    elif at.incidents[step.incident].state is not State.DRAINING:
        yield f"a live migration was sent while its drain is {at.incidents[step.incident].state.value}"
