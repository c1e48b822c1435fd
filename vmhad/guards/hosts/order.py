# SPDX-License-Identifier: Apache-2.0
"""Groups of VMs that wait for each other: the application starts when its database runs, and not before.

Rule kept: nothing waits for ever. Who is refused, or was given up, is waited for no more; and nobody waits longer than
order_wait_s for each link of the chain that it hangs on, counted from when the recovery of its own host began.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from vmhad.kernel.case import Case
from vmhad.kernel.cloud import Server
from vmhad.kernel.step import Step, StepState, Verb

# Arguments of an evacuation, for the incidents that see no more of the VM than that.
ORDER_GROUP, AFTER, READY_AFTER_S = "order_group", "after", "ready_after_s"


def marks(server: Server) -> dict[str, str]:
    """What its evacuation says of it to those that wait; nothing where its policies say nothing."""
    settings = server.settings
    said = {
        ORDER_GROUP: settings.order_group,
        AFTER: ",".join(settings.after),
        READY_AFTER_S: f"{settings.ready_after_s:g}" if settings.ready_after_s else "",
    }
    return {key: text for key, text in said.items() if text}


class Order:
    """Who has to wait for whom in one decision."""

    def __init__(self, case: Case, now: float) -> None:
        self._case, self._now = case, now

    def waits(self, server: Server) -> str:
        """'' or whom it waits for."""
        after = frozenset(server.settings.after) - {server.settings.order_group}
        if not after or self._now >= self._begun_at + self._case.policy.order_wait_s * self._links(after):
            return ""
        groups = sorted(after & self._awaited.keys())
        if groups:
            return f"waits for {' and '.join(groups)}"
        if self._case.unplanned:
            hosts = " and ".join(sorted(self._case.unplanned))
            return f"waits to know whether {' or '.join(sorted(after))} has to come from {hosts}"
        return ""

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
            return self._now < min(step.ended_at, self._now) + float(step.args.get(READY_AFTER_S, "0"))
        return step.is_open

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
