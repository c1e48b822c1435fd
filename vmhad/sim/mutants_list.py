# SPDX-License-Identifier: Apache-2.0
"""The guards that keep a VM from running twice and the brake from failing, each with the way to switch it off.

A mutant replaces one function, method or entry of the shipped core, at run time. seed: the first one that finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from math import inf
from typing import Any

from vmhad.engine import book, effects, loop
from vmhad.engine.cases import Cases
from vmhad.engine.executor import Executor
from vmhad.engine.ownership import Ownership
from vmhad.guards.hosts import judge, place, settle, treat
from vmhad.journal import keys
from vmhad.journal.journal import Journal
from vmhad.kernel import brake, evidence, proof
from vmhad.kernel.evidence import Evidence
from vmhad.kernel.incident import State
from vmhad.kernel.policy import SilentMeans
from vmhad.kernel.proof import Proof
from vmhad.kernel.signal import Reading
from vmhad.kernel.step import Answer, Observation, Step, Verb, start
from vmhad.kernel.verdict import Judgement

# The package has functions of these names, so that they hide the modules.
fence, lift, recover = (import_module(f"vmhad.guards.hosts.{name}") for name in ("fence", "lift", "recover"))
Wrap = Callable[[Any], Any]


@dataclass(frozen=True)
class Cut:
    """owner: a module, a class or a dict; name: of its function, method or entry; wrap: what was there -> what is."""

    owner: Any
    name: Any
    wrap: Wrap


@dataclass(frozen=True)
class Mutant:
    """guard: what is off. needs: what a script must have for the guard to be asked at all; others are not played."""

    name: str
    guard: str
    cuts: tuple[Cut, ...]
    needs: tuple[str, ...] = ()
    seed: int | None = None


def always(value: Any) -> Wrap:
    return lambda was: lambda *args, **kwargs: value


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


def _m(name: str, guard: str, *cuts: Cut, needs: tuple[str, ...] = (), seed: int | None = None) -> Mutant:
    return Mutant(name, guard, cuts, needs, seed)


# What takes the place of a guard.


def _proof_at_once(was: Any) -> Any:
    def call(case: Any, step: Step, now: float) -> Proof | None:
        seen = (Observation(now, Answer.SO, Reading.OFF.value, ""),) * 2
        fresh = Proof(case.incident.host, Verb.POWER_OFF.value, now, True, case.incident.round, seen)
        return fresh if step.acts else None

    return call


def _proof_unsent(was: Any) -> Any:
    return lambda case, step, now: was(case, replace(step, acts=1), now)


def _unsent(was: Any) -> Any:
    """power_off is not sent where it is off already."""

    def call(self: Executor, step: Step, effect: Any, answer: Answer) -> bool:
        return bool(was(self, step, effect, answer)) and not (effect.insists and answer is Answer.SO)

    return call


def _unknown_is_off(was: Any) -> Any:
    def call(step: Step, level: tuple[Reading, str]) -> Any:
        reading, text = level
        return was(step, (Reading.OFF if reading is Reading.UNKNOWN else reading, text))

    return call


def _judged_off(was: Any) -> Any:
    def call(*args: Any) -> Any:
        found = was(*args)
        return judge.Power.OFF if found is judge.Power.UNKNOWN else found

    return call


def _down_first(was: Any) -> Any:
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


def _acts_whatever_is_so(was: Any) -> Any:
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


def _uncompared(key_end: str) -> Wrap:
    return lambda was: lambda self, store: was(self, _Uncompared(store, key_end))


def _unwritten(was: Any) -> Any:
    """Acts first, and never writes that it did."""

    def call(self: Journal, segment: str, epoch: int, change: Any) -> None:
        was(self, segment, epoch, replace(change, steps=()))

    return call


def _no_budget(was: Any) -> Any:
    def call(self: Journal, segment: str, epoch: int, change: Any) -> None:
        was(self, segment, epoch, replace(change, fences=None))

    return call


def _no_vm_claims(was: Any) -> Any:
    return lambda *args: {key: one for key, one in was(*args).items() if not key.startswith(keys.OPEN_VMS)}


def _elsewhere(was: Any) -> Any:
    """An evacuation that is sent again may go to another host."""

    def call(case: Any, step: Step, because: str, now: float) -> Step:
        if step.verb is not Verb.EVACUATE:
            return was(case, step, because, now)
        tried = {**step.args, "failed_on": step.args["target"]}
        return settle.later(case, replace(step, args=tried), because, now)

    return call


def _any_target(was: Any) -> Any:
    return lambda server, step, at, only="": was(server, step, at, "")


def _clean(was: Any) -> Any:
    """Where it failed before is forgotten; what is under way is not."""

    def call(case: Any, server: Any, inventory: Any) -> tuple[str, ...]:
        forgotten = tuple(replace(one, args={**one.args, "unclean_on": ""}) for one in case.steps)
        kept = tuple(one for one in inventory.migrations if one.status != settle.FAILED_ON_TARGET)
        return tuple(was(replace(case, steps=forgotten), server, replace(inventory, migrations=kept)))

    return call


def _roomy(was: Any) -> Any:
    return always(True)(was)


def _with_wide_groups(was: Any) -> Any:
    """The number of members that a host may hold is not asked."""

    def call(server: Any, step: Step, at: Any, only: str = "") -> Any:
        groups = tuple(replace(one, max_per_host=99) for one in at.inventory.groups)
        return was(server, step, replace(at, inventory=replace(at.inventory, groups=groups)), only)

    return call


def _groupless(was: Any) -> Any:
    """A hard-affinity group's members go one by one."""

    def call(server: Any, step: Step, at: Any, only: str = "") -> Any:
        groups = tuple(one for one in at.inventory.groups if one.policy != "affinity")
        return was(server, step, replace(at, inventory=replace(at.inventory, groups=groups)), only)

    return call


def _any_receiver(was: Any) -> Any:
    def call(at: Any) -> tuple[str, ...]:
        names = {one: replace(verdict, judgement=Judgement.HEALTHY) for one, verdict in at.case.verdicts.items()}
        return tuple(was(replace(at, case=replace(at.case, busy_hosts=frozenset(), verdicts=names))))

    return call


def _deaf_to_life(was: Any) -> Any:
    return lambda one, signal: was(one, signal._replace(life=False))


def _scene(**values: Any) -> Wrap:
    """The brake sees a scene with these in place of what is."""
    return lambda was: lambda incident, scene, *rest: was(incident, replace(scene, **values), *rest)


def _unpaused(was: Any) -> Any:
    return lambda incident, scene: was(incident, replace(scene, paused={}))


def _all_off(was: Any) -> Any:
    return lambda evidence, policy, now: True


def _trusting(was: Any) -> Any:
    return lambda evidence, policy, now: was(replace(evidence, bmc_trusted=True), policy, now)


def _started_as_active(was: Any) -> Any:
    def call(case: Any, server: Any) -> Step:
        step = was(case, server)
        return replace(step, args={**step.args, "state": "active"})

    return call


def _no_limit_in_flight(was: Any) -> Any:
    def call(case: Any, inventory: Any, now: float) -> Any:
        return was(replace(case, policy=replace(case.policy, evacuations_max=10_000)), inventory, now)

    return call


def _may_always_take(was: Any) -> Any:
    return lambda self, segment, owner, unchanged_s: True


def _effect(**values: Any) -> Wrap:
    return lambda was: replace(was, **values)


def _so_when_recorded(was: Any) -> Any:
    """An evacuation counts as done as soon as Nova has taken it."""

    def call(step: Step, level: Any) -> Any:
        answer, reading, text = was(step, level)
        return (Answer.SO if answer is Answer.NOT_YET else answer), reading, text

    return call


MUTANTS: tuple[Mutant, ...] = (
    # The proof.
    _m("proof_never_dies", "a proof dies at the first sign of life", Cut(proof, "holds", lambda was: lambda one, *_: one is not None)),
    _m("proof_without_reading", "two readings OFF after the act", Cut(fence, "_proof", _proof_at_once)),
    _m("proof_by_one_reading", "the two readings are apart", Cut(fence, "_proof", without_policy(readings_apart_s=0.0))),
    _m("proof_without_act", "power_off is sent even where it is off", Cut(fence, "_proof", _proof_unsent), Cut(Executor, "_must_act", _unsent)),
    _m("unknown_is_proof", "UNKNOWN is never OFF, in a proof", Cut(effects.EFFECTS, Verb.POWER_OFF, _effect(probe=_unknown_is_off(effects._probe_power)))),
    _m("unknown_is_dead", "UNKNOWN is never OFF, in a verdict", Cut(judge, "_power", _judged_off)),
    _m("proof_not_read_again", "the proof is read just before an act", Cut(Executor, "_proof_refusal", always("")), needs=(' dead\n', 'restore')),
    _m("proof_of_another_clock", "an inherited proof dies at any life", Cut(book, "inherited", lambda was: lambda one: one), needs=('kill engine', 'engine late', 'restore')),
    _m("bystanders_unheard", "a host that goes with our act voids the proof", Cut(fence, "_fell_with_it", always("")), Cut(fence, "_all_read_since", always(True)), needs=(' other ',)),
    _m("bystanders_unread", "all others are read before the proof is believed", Cut(fence, "_all_read_since", always(True)), needs=(' other ', ' slow\n')),
    _m("down_before_proof", "Nova is told after the proof", Cut(fence, "fence", _down_first), Cut(loop.PURSUED, State.FENCING, lambda was: (*was, Verb.FORCE_DOWN))),
    # The verdict.
    _m("one_reading_is_death", "two bad readings, apart", Cut(Evidence, "is_repeated", always(True))),
    _m("life_is_no_veto", "a sign of life vetoes an OFF", Cut(evidence, "weigh", _deaf_to_life)),
    _m("any_off_is_believed", "an OFF is borne out", Cut(judge, "is_borne_out", _all_off), needs=(' lies\n',)),
    _m("any_bmc_is_trusted", "a BMC never read ON, or belied, is not trusted", Cut(judge, "is_borne_out", _trusting), needs=(' lies\n',)),
    _m("hold_is_fence", "silent_means = hold", Cut(judge, "judge", without_policy(silent_means=SilentMeans.FENCE))),
    # The brake.
    _m("no_brake", "the brake", Cut(brake, "brake", always(""))),
    _m("pauses_unheard", "an operator's pause", Cut(brake, "brake", _unpaused), needs=('order pause',)),
    _m("blindness_unseen", "we may be blind", Cut(brake, "_blind", always("")), needs=('nova hides', 'heartbeat_quiet_s=40s', 'silent_means=fence')),
    _m("storms_unseen", "failed_share_max", Cut(brake, "_storm", without_policy(failed_share_max=9.0))),
    _m("any_storm_is_one_domain", "only one domain may exceed failed_share_max", Cut(brake, "_are_one_domain", always(True))),
    _m("dead_switch_unseen", "silence of a domain is a dead switch", Cut(brake, "_silent_domains", always(""))),
    _m("no_back_grace", "when one is heard again the others wait", Cut(brake, "_storm", _scene(back=frozenset()))),
    _m("no_canary", "a canary is fenced first", Cut(brake, "_limits", without_policy(canary_from_hosts=10_000)), needs=('silent_means=fence',)),
    _m("recoveries_unbounded", "recoveries_max", Cut(brake, "_limits", without_policy(recoveries_max=10_000))),
    _m("fences_unbounded", "fences_in_flight_max", Cut(brake, "_limits", without_policy(fences_in_flight_max=10_000))),
    _m("budget_unwritten", "the cloud's fences stand in the journal", Cut(Journal, "commit", _no_budget)),
    # Who may act.
    _m("no_epoch", "the epoch is compared", Cut(Journal, "__init__", _uncompared("/epoch")), needs=(' in commit', 'blips 0.7s', 'engine e2')),
    _m("no_commit_count", "the commit count is compared", Cut(Journal, "__init__", _uncompared("/commits")), needs=('store late',)),
    _m("no_lease_margin", "the lease outlasts the call", Cut(Ownership, "remaining_s", always(inf)), needs=(' before ',)),
    _m("takes_over_at_once", "a take-over waits for the lease", Cut(Ownership, "_may_take", _may_always_take)),
    _m("acts_unwritten", "written before acted", Cut(Journal, "commit", _unwritten)),
    _m("acts_in_any_state", "only what belongs to the state is acted on", *(Cut(loop.PURSUED, state, lambda was: tuple(Verb)) for state in loop.PURSUED)),
    # What is sent twice.
    _m("sent_again_at_once", "another engine's request may be on its way", Cut(book, "perhaps_sent", lambda was: lambda step, now: step), needs=(' in evacuate',)),
    _m("acts_without_probe", "a probe before every act", Cut(Executor, "_must_act", _acts_whatever_is_so)),
    _m("repeated_elsewhere", "a repeat names the same target", Cut(settle, "_again", _elsewhere), needs=(' in evacuate',)),
    _m("copies_unasked", "hosts that may run it are proven off", Cut(treat, "may_run_on", always(())), needs=('evacuate_deadline_s=200s',)),
    _m("failures_forgotten", "where it failed it may run", Cut(treat, "may_run_on", _clean), needs=(' in evacuate', 'engine e2')),
    _m("retargeted", "what may run on one host goes nowhere else", Cut(place, "place", _any_target), needs=('evacuate_deadline_s=200s',)),
    _m("two_incidents", "one VM, one incident", Cut(loop, "_claims", _no_vm_claims), Cut(treat, "taken_by", always("")), needs=(' refuses',)),
    _m("done_when_taken", "done is what has left the host", Cut(effects.EFFECTS, Verb.EVACUATE, _effect(probe=_so_when_recorded(effects._probe_evacuated)))),
    # Where it goes.
    _m("groups_at_once", "an anti-affinity group moves one by one", Cut(recover, "_waits_for_group", always(False)), needs=('anti-affinity',)),
    _m("max_per_host_unasked", "max_server_per_host", Cut(place, "place", _with_wide_groups)),
    _m("affinity_parted", "an affinity group goes as one", Cut(place, "place", _groupless)),
    _m("zones_unasked", "a pinned VM stays in its zone", Cut(place, "_zone_fits", always(True))),
    _m("room_unasked", "there is room", Cut(place, "_has_room", _roomy)),
    _m("any_receiver", "only healthy hosts receive", Cut(place, "_receivers", _any_receiver)),
    _m("evacuations_unbounded", "evacuations_max", Cut(recover, "_starts", _no_limit_in_flight)),
    _m("targets_unbounded", "evacuations_per_target_max", Cut(place, "_below_cap", always(True))),
    _m("opt_out_unheard", "an owner may opt out", Cut(treat, "is_protected", always(True))),
    _m("disks_lost", "a local disk is not rebuilt", Cut(treat, "refusal", always(""))),
    _m("stopped_are_started", "a VM gets its former power state", Cut(treat, "_plan", _started_as_active)),
    # The end.
    _m("lifted_unheard", "a host is taken back when it is heard", Cut(lift, "_is_back", always(True))),
    _m("future_times", "times ahead of our clock count as now", Cut(book, "not_from_the_future", lambda was: lambda step, now: step), needs=('kill engine', 'engine late', 'offset=-3000s')),
)

# Those that no seed has found, and why.
SURVIVORS: dict[str, str] = {}
