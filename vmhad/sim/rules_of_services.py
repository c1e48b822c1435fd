# SPDX-License-Identifier: Apache-2.0
"""Rules of the guard of services, each worked out from the truth when an order to restart one reaches its host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vmhad.kernel.beat import UnitState
from vmhad.kernel.incident import State
from vmhad.kernel.step import Step, Verb
from vmhad.sim.hands import ServiceOrder
from vmhad.sim.rules_of_vms import was_taken_back

if TYPE_CHECKING:
    from vmhad.sim.ledger import Ledger

# How old the word of an agent may be that an order rests on, and the way of the order.
TOLD_S = 5.0
# An engine may just be deciding what it has not written yet.
DECIDED_S = 2.0


def hear(at: Ledger, order: ServiceOrder) -> None:
    """An order to restart a service reached the agent of its host."""
    subject = f"{order.host}/{order.service}"
    steps = (one for one in at.open_steps.values() if one.verb is Verb.RESTART_SERVICE and one.subject == subject)
    for why in of_restart(at, order, next(steps, None)):
        at.report(f"service {subject}", why)
    if not order.late:
        at.acted(order.engine, order.host, f"service {subject}")


def of_restart(at: Ledger, order: ServiceOrder, step: Step | None) -> Iterator[str]:
    truth, policy = at.nova.datacentre, at.policies[at.segment_of(order.host).name]
    unit = truth.services.unit(order.host, order.service)
    if order.late:
        return
    if step is None:
        yield "its restart was sent that is not STARTED in the journal"
        return
    lasts_s = order.at - at.nova.agenda.start_s - unit.since_s
    if unit.is_wanted_off and lasts_s > TOLD_S:
        yield f"it is restarted although somebody stopped it {lasts_s:.1f} s ago"
    for one in at.incidents.values():
        opened_at = one.opened_at - at.offset_s(order.engine)
        has_it = one.host == order.host and one.is_open and one.is_of_host and opened_at < order.at - DECIDED_S
        if has_it and not was_taken_back(at, one):
            yield f"it is restarted although incident {one.id} of its host is open"
    if unit.state is UnitState.RUNS and unit.invocation == order.known and not truth.hosts[order.host].stalled:
        if at.now - at.nova.services[order.host].last_seen < policy.service_hung_s:
            yield "it is restarted although it runs and Nova hears it"
    if unit.invocation == order.known and not unit.is_wanted_off:
        yield from _too_often(at, order, step)


def _too_often(at: Ledger, order: ServiceOrder, step: Step) -> Iterator[str]:
    policy = at.policies[at.segment_of(order.host).name]
    done = at.restarted.setdefault(step.subject, [])
    done.append(at.now)
    ordered = any(one.state is State.STUCK for one in at.incidents[step.incident].turns)
    lately = [one for one in done if one > at.now - policy.service_window_s + DECIDED_S]
    if not ordered and len(lately) > policy.service_starts_max:
        yield f"it is restarted for the {len(done)}th time, more often than service_starts_max allows"
