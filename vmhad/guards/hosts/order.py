# SPDX-License-Identifier: Apache-2.0
"""Groups of VMs that wait for each other: the application starts when its database runs, and not before.

Rule kept: nothing waits for ever. Who is refused, or was given up, is waited for no more; and nobody waits longer than
order_wait_s for each link of the chain that it hangs on, counted from when the recovery of its own host began.

Ready is a level, not an edge: who was ready and is not any more is waited for again by those that have not begun, until
the limit. So nothing has to be remembered of it, and an heir that looks anew decides the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from vmhad.kernel.case import Case
from vmhad.kernel.cloud import Inventory, Server, ServerState
from vmhad.kernel.gate import GateAsk, GateSeen, Ready
from vmhad.kernel.step import Step, StepState, Verb

# Arguments of an evacuation, for the incidents that see no more of the VM than that.
ORDER_GROUP, AFTER, READY_AFTER_S, READY = "order_group", "after", "ready_after_s", "ready"
# The argument of one that was started when the limit was over: who is not ready yet.
UNREADY = "unready"


def marks(server: Server) -> dict[str, str]:
    """What its evacuation says of it to those that wait; nothing where its policies say nothing."""
    settings = server.settings
    said = {
        ORDER_GROUP: settings.order_group,
        AFTER: ",".join(settings.after),
        READY_AFTER_S: f"{settings.ready_after_s:g}" if settings.ready_after_s else "",
        READY: settings.ready,
    }
    return {key: text for key, text in said.items() if text}


def gate_of(step: Step) -> str:
    """The gate that is asked once it has arrived. One that is to be off is never ready, and one that left its host by
    another hand before it was begun is not ours to wait for."""
    is_to_run = step.args.get("state") != ServerState.STOPPED.value
    return step.args.get(READY, "") if is_to_run and step.started_at and step.state is StepState.DONE else ""


class Order:
    """Who has to wait for whom in one decision."""

    def __init__(self, case: Case, now: float) -> None:
        self._case, self._now = case, now

    def waits(self, server: Server) -> str:
        """'' or whom it waits for."""
        after = _before(server)
        if not after or self._now >= self._begun_at + self._case.policy.order_wait_s * self._links(after):
            return ""
        groups = sorted(after & self._awaited.keys())
        if groups:
            name, seen = self._first_unready(groups)
            return f"waits for {' and '.join(groups)}" + (f": {_said(name, seen)}" if seen is not None else "")
        if self._case.unplanned:
            hosts = " and ".join(sorted(self._case.unplanned))
            return f"waits to know whether {' or '.join(sorted(after))} has to come from {hosts}"
        return ""

    def overdue(self, server: Server) -> str:
        """Of one that waits no more: '' or who is not ready all the same."""
        name, seen = self._first_unready(_before(server))
        return _said(name, seen) if name else ""

    def asks(self, inventory: Inventory) -> tuple[GateAsk, ...]:
        """Of those that arrived and that somebody of this incident waits for just now."""
        if not any(one.settings.after for one in inventory.servers) or not self._gated:
            return ()
        servers = {server.id: server for server in inventory.servers}
        planned = (one for one in self._case.steps if one.verb is Verb.EVACUATE and one.state is StepState.PLANNED)
        waiting = (servers[one.subject] for one in planned if one.subject in servers)
        wanted = frozenset[str]().union(*(_before(one) for one in waiting if self.waits(one)))
        found = {
            step.subject: GateAsk(step.subject, gate_of(step), step.args.get("name", step.subject))
            for step in self._gated.values()
            if step.args.get(ORDER_GROUP, "") in wanted
        }
        return tuple(found[server_id] for server_id in sorted(found))

    @property
    def _begun_at(self) -> float:
        """What another engine stamped may be of any time: it counts from the take-over, and waits once more."""
        turns = self._case.incident.turns
        return min(max(turns[-1].at, self._case.ours_since), self._now) if turns else self._now

    @cached_property
    def _awaited(self) -> Mapping[str, frozenset[str]]:
        """Group -> those that its members wait for, of the groups with a member that is to come or not ready yet."""
        found: dict[str, frozenset[str]] = {}
        for step in self._evacuations():
            group = step.args.get(ORDER_GROUP, "")
            if group and self._is_awaited(step):
                after = frozenset(step.args.get(AFTER, "").split(",")) - {"", group}
                found[group] = found.get(group, frozenset()) | after
        return found

    def _evacuations(self) -> Iterable[Step]:
        """Of an incident that goes on with none of its own only what has arrived."""
        mine = (step for step in self._case.steps if step.verb is Verb.EVACUATE)
        idle = self._case.idle
        theirs = (one for one in self._case.elsewhere if one.state is StepState.DONE or one.incident not in idle)
        return (*mine, *theirs)

    def _is_awaited(self, step: Step) -> bool:
        if step.state is StepState.DONE:
            # By another engine's clock it may have ended after now.
            is_young = self._now < min(step.ended_at, self._now) + float(step.args.get(READY_AFTER_S, "0"))
            return is_young or (step.id in self._gated and not self._is_ready(step))
        return step.is_open

    @cached_property
    def _gated(self) -> Mapping[str, Step]:
        """Those that arrived and whose gates count, by the step's id. Who was given up since is waited for no more."""
        arrived = {step.id: step for step in self._evacuations() if gate_of(step)}
        if not arrived:
            return arrived
        everywhere = (*self._case.steps, *self._case.elsewhere)
        failed = {one.subject for one in everywhere if one.verb is Verb.EVACUATE and one.state is StepState.FAILED}
        return {key: step for key, step in arrived.items() if step.subject not in failed}

    def _is_ready(self, step: Step) -> bool:
        """By a look that began after it arrived; where another engine's clock says that it arrived after now, by any
        look of ours."""
        seen = self._case.ready.get(step.subject)
        since = step.ended_at if step.ended_at <= self._now else self._case.ours_since
        is_newer = seen is not None and seen.gate == gate_of(step) and seen.at >= since
        return is_newer and seen is not None and seen.ready is Ready.READY

    @cached_property
    def _unready(self) -> Mapping[str, tuple[bool, str, str]]:
        """Group -> the first one of it, by name, that arrived and is not ready: whether it was not looked at yet, its
        name, its id. Of those that were not there is nothing to say while there are others."""
        found: dict[str, tuple[bool, str, str]] = {}
        for step in self._gated.values():
            if not self._is_ready(step):
                group, name = step.args.get(ORDER_GROUP, ""), step.args.get("name", step.subject)
                one = (step.subject not in self._case.ready, name, step.subject)
                found[group] = min(found.get(group, one), one)
        return found

    def _first_unready(self, groups: Iterable[str]) -> tuple[str, GateSeen | None]:
        """Its name, '' for none, and what was seen of it."""
        found = [self._unready[group] for group in groups if group in self._unready]
        if not found:
            return "", None
        _, name, server_id = min(found)
        return name, self._case.ready.get(server_id)

    def _links(self, groups: frozenset[str]) -> int:
        """How long the chain is."""
        return max(self._depths.get(one, 1) for one in groups)

    @cached_property
    def _depths(self) -> Mapping[str, int]:
        """How many links hang from each group, itself one of them: of several ways down the longest. One that goes in a
        circle ends where it began, so no way has more links than there are groups on it."""
        depths, below = dict.fromkeys(self._awaited, 1), self._awaited
        for _ in depths:
            depths = {one: 1 + max((depths.get(each, 1) for each in below[one]), default=0) for one in depths}
        return {one: min(depth, len(self._reached(one))) for one, depth in depths.items()}

    def _reached(self, group: str) -> frozenset[str]:
        """All that it waits for, and what these wait for; and itself."""
        found, new = frozenset({group}), frozenset({group})
        while new:
            new = frozenset().union(*(self._awaited.get(one, frozenset()) for one in new)) - found
            found |= new
        return found


def _said(name: str, seen: GateSeen | None) -> str:
    """READY of before it arrived says nothing."""
    if seen is not None and seen.ready is Ready.NOT_READY:
        return f"{name} is not ready: {seen.words}"
    told = f": {seen.words}" if seen is not None and seen.ready is Ready.UNKNOWN else ""
    return f"it is not known whether {name} is ready{told}"


def _before(server: Server) -> frozenset[str]:
    """The groups that it comes after."""
    return frozenset(server.settings.after) - {server.settings.order_group}
