# SPDX-License-Identifier: Apache-2.0
"""What takes the place of a guard of the shipped core that is switched off: each answers as if it had never been asked.

A cut replaces one function, method or entry, at run time; mutants_list.py says which cuts make a mutant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from vmhad.engine.cases import Cases
from vmhad.engine.executor import Executor
from vmhad.guards.hosts import columns, settle
from vmhad.journal import keys
from vmhad.journal.journal import Journal
from vmhad.kernel.beat import Unit, UnitState
from vmhad.kernel.case import Health
from vmhad.kernel.cloud import Standing
from vmhad.kernel.proof import Proof
from vmhad.kernel.signal import Reading
from vmhad.kernel.step import Answer, Observation, Step, Verb, start
from vmhad.kernel.verdict import Judgement

# The package has functions of these names, so that they hide the modules.
fence, lift, recover = (import_module(f"vmhad.guards.hosts.{name}") for name in ("fence", "lift", "recover"))
fence_of_vms = import_module("vmhad.guards.instances.fence")
fence_of_services = import_module("vmhad.guards.services.fence")
Wrap = Callable[[Any], Any]


@dataclass(frozen=True)
class Cut:
    """owner: a module, a class or a dict; name: of its function, method or entry; wrap: what was there -> what is."""

    owner: Any
    name: Any
    wrap: Wrap


def always(value: Any) -> Wrap:
    return lambda was: lambda *args, **kwargs: value


def taken_for_unseen(*words: columns.Peers) -> Wrap:
    def wrap(was: Any) -> Any:
        def call(*args: Any) -> Any:
            peers = was(*args)
            return columns.Peers.UNSEEN if peers in words else peers

        return call

    return wrap


def as_property(value: Any) -> Wrap:
    return lambda was: property(lambda one: value)


def by_nobody(was: Any) -> Any:
    """Of a VM's standing, among the arguments: whatever was done to it, no user did it."""
    return _standing_as(was, lambda one: replace(one, actions=tuple(replace(a, by_user=False) for a in one.actions)))


def without_task(was: Any) -> Any:
    return _standing_as(was, lambda one: replace(one, server=one.server and replace(one.server, task_state="")))


def _standing_as(was: Any, change: Callable[[Standing], Standing]) -> Any:
    def call(*args: Any) -> Any:
        return was(*(change(one) if isinstance(one, Standing) else one for one in args))

    return call


def by_accident(was: Any) -> Any:
    """Of a service, among the arguments: whatever is off failed, nobody wanted it off."""

    def failed(unit: Unit | None) -> Unit | None:
        wanted = unit is not None and unit.is_wanted_off
        return replace(unit, state=UnitState.FAILED, kept_off="") if wanted and unit is not None else unit

    def call(*args: Any) -> Any:
        told = [replace(one, unit=failed(one.unit)) if isinstance(one, Health) else one for one in args]
        return was(*((failed(one[0]), one[1]) if isinstance(one, tuple) else one for one in told))

    return call


def without_policy(**numbers: Any) -> Wrap:
    """The first argument that has a policy is given one with these numbers."""

    def wrap(was: Any) -> Any:
        def call(*args: Any) -> Any:
            return was(*(_eased(one, numbers) for one in args))

        return call

    return wrap


def _eased(one: Any, numbers: Mapping[str, Any]) -> Any:
    case = getattr(one, "case", None)
    if case is not None:
        return replace(one, case=_eased(case, numbers))
    policy = getattr(one, "policy", None)
    if policy is not None and not isinstance(one, Cases):
        return replace(one, policy=replace(policy, **numbers))
    return replace(one, **numbers) if type(one).__name__ == "Policy" else one


# What takes the place of a guard.


def proof_at_once(was: Any) -> Any:
    def call(case: Any, step: Step, now: float) -> Proof | None:
        seen = (Observation(now, Answer.SO, Reading.OFF.value, ""),) * 2
        fresh = Proof(case.incident.host, Verb.POWER_OFF.value, now, True, case.incident.round, seen)
        return fresh if step.acts else None

    return call


def proof_unsent(was: Any) -> Any:
    return lambda case, step, now: was(case, replace(step, acts=1), now)


def unsent(was: Any) -> Any:
    """power_off is not sent where it is off already."""

    def call(self: Executor, step: Step, effect: Any, answer: Answer) -> bool:
        return bool(was(self, step, effect, answer)) and not (effect.insists and answer is Answer.SO)

    return call


def unknown_is_off(was: Any) -> Any:
    def call(step: Step, level: tuple[Reading, str]) -> Any:
        reading, text = level
        return was(step, (Reading.OFF if reading is Reading.UNKNOWN else reading, text))

    return call


def judged_off(was: Any) -> Any:
    def call(*args: Any) -> Any:
        found = was(*args)
        return columns.Power.OFF if found is columns.Power.UNKNOWN else found

    return call


def down_first(was: Any) -> Any:
    """force_down is sent together with power_off."""

    def call(case: Any, now: float) -> Any:
        move = was(case, now)
        step_id = f"{case.incident.id}/{case.incident.round}/{Verb.FORCE_DOWN.value}"
        if case.step(step_id) is None and move.event is None:
            args = {"proof_hosts": ""}
            down = start(Step(step_id, case.incident.id, Verb.FORCE_DOWN, case.incident.host), now, args)
            return replace(move, steps=(*move.steps, down))
        return move

    return call


def acts_whatever_is_so(was: Any) -> Any:
    """Once in each process, whether it is so already or was sent by another."""

    def call(self: Executor, step: Step, effect: Any, answer: Answer) -> bool:
        return bool(was(self, replace(step, acts=0), effect, Answer.NOT_SO))

    return call


class _Uncompared:
    """A store that leaves one compare out."""

    def __init__(self, store: Any, key_end: str) -> None:
        self._store, self._key_end = store, key_end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, compares: Any, puts: Any, deletes: Any = ()) -> int:
        left = [one for one in compares if not one.key.endswith(self._key_end)]
        return int(self._store.commit(left, puts, deletes))


def uncompared(key_end: str) -> Wrap:
    return lambda was: lambda self, store: was(self, _Uncompared(store, key_end))


def unwritten(was: Any) -> Any:
    """Acts first, and never writes that it did."""

    def call(self: Journal, segment: str, epoch: int, change: Any) -> None:
        was(self, segment, epoch, replace(change, steps=()))

    return call


def no_budget(was: Any) -> Any:
    def call(self: Journal, segment: str, epoch: int, change: Any) -> None:
        was(self, segment, epoch, replace(change, fences=None))

    return call


def no_vm_claims(was: Any) -> Any:
    return lambda *args: {key: one for key, one in was(*args).items() if not key.startswith(keys.OPEN_VMS)}


def elsewhere(was: Any) -> Any:
    """An evacuation that is sent again may go to another host."""

    def call(case: Any, step: Step, because: str, now: float) -> Step:
        if step.verb is not Verb.EVACUATE:
            same: Step = was(case, step, because, now)
            return same
        tried = {**step.args, "failed_on": step.args["target"]}
        again: Step = settle.later(case, replace(step, args=tried), because, now)
        return again

    return call


def any_target(was: Any) -> Any:
    return lambda server, step, at, only="": was(server, step, at, "")


def clean(was: Any) -> Any:
    """Where it failed before is forgotten; what is under way is not."""

    def call(case: Any, server: Any, inventory: Any) -> tuple[str, ...]:
        forgotten = tuple(replace(one, args={**one.args, "unclean_on": ""}) for one in case.steps)
        kept = tuple(one for one in inventory.migrations if one.status != settle.FAILED_ON_TARGET)
        return tuple(was(replace(case, steps=forgotten), server, replace(inventory, migrations=kept)))

    return call


def roomy(was: Any) -> Any:
    return always(True)(was)


def with_wide_groups(was: Any) -> Any:
    """The number of members that a host may hold is not asked."""

    def call(server: Any, step: Step, at: Any, only: str = "") -> Any:
        groups = tuple(replace(one, max_per_host=99) for one in at.groups_of.get(server.id, ()))
        return was(server, step, replace(at, groups_of={server.id: groups}), only)

    return call


def groupless(was: Any) -> Any:
    """A hard-affinity group's members go one by one."""

    def call(server: Any, step: Step, at: Any, only: str = "") -> Any:
        groups = tuple(one for one in at.groups_of.get(server.id, ()) if one.policy != "affinity")
        return was(server, step, replace(at, groups_of={server.id: groups}), only)

    return call


def any_receiver(was: Any) -> Any:
    def call(at: Any) -> tuple[str, ...]:
        names = {one: replace(verdict, judgement=Judgement.HEALTHY) for one, verdict in at.case.verdicts.items()}
        return tuple(was(replace(at, case=replace(at.case, busy_hosts=frozenset(), verdicts=names))))

    return call


def deaf_to_life(was: Any) -> Any:
    return lambda one, signal: was(one, signal._replace(life=False))


def in_scene(**values: Any) -> Wrap:
    """The brake sees a scene with these in place of what is."""
    return lambda was: lambda incident, scene, *rest: was(incident, replace(scene, **values), *rest)


def unpaused(was: Any) -> Any:
    return lambda incident, scene: was(incident, replace(scene, paused={}))


def any_off(was: Any) -> Any:
    return lambda evidence, policy, now: True


def trusting(was: Any) -> Any:
    return lambda evidence, policy, now: was(evidence._replace(bmc_trusted=True), policy, now)


def started_as_active(was: Any) -> Any:
    def call(case: Any, server: Any) -> Step:
        step: Step = was(case, server)
        return replace(step, args={**step.args, "state": "active"})

    return call


def no_limit_in_flight(was: Any) -> Any:
    def call(case: Any, inventory: Any, now: float) -> Any:
        return was(replace(case, policy=replace(case.policy, evacuations_max=10_000)), inventory, now)

    return call


def may_always_take(was: Any) -> Any:
    return lambda self, segment, owner, unchanged_s: True


def with_effect(**values: Any) -> Wrap:
    return lambda was: replace(was, **values)


def so_when_recorded(was: Any) -> Any:
    """An evacuation counts as done as soon as Nova has taken it."""

    def call(step: Step, level: Any) -> Any:
        answer, reading, text = was(step, level)
        return (Answer.SO if answer is Answer.NOT_YET else answer), reading, text

    return call
