# SPDX-License-Identifier: Apache-2.0
"""Every change vmhad can make to a cloud, on one page: for each verb the level to look at, the probe, and the act.

look reads (and may raise Unanswered); probe judges what was read («is it already so?») and is pure; act makes one call.
The executor looks and probes before every act, and only ever concludes from a probe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vmhad.engine.guests import Told
from vmhad.engine.migrating import probe_migrated
from vmhad.engine.world import BEAT_OLD_S, Departures, World
from vmhad.guards.hosts.settle import IDLE
from vmhad.guards.instances.judge import USERS
from vmhad.guards.instances.recover import CROSSED
from vmhad.guards.services.recover import AGAIN
from vmhad.kernel.beat import DISK_PAUSED, DomainState, Unit, UnitState
from vmhad.kernel.cloud import ARRIVED, BROKEN, OUR_REASON, ComputeService, Migration, Server, ServerState, Standing
from vmhad.kernel.signal import Access, Reading
from vmhad.kernel.step import Answer, Step, Verb

Probed = tuple[Answer, str, str]  # the answer, the level in one word, and a sentence

JUST_BEFORE_S = 1.0


@dataclass(frozen=True, slots=True)
class Effect:
    """every_s: how often a STARTED step is looked at. insists: the act is made even where the probe says that it is so
    already, and what came of it is looked at right away. read_at: when a level that looks share was read; two looks at
    one reading are one observation, and a look may have waited long for it."""

    look: Callable[[World, Step], Any]
    probe: Callable[[Step, Any], Probed]
    act: Callable[[World, Step], None]
    every_s: float = 1.0
    insists: bool = False
    read_at: Callable[[Any], float] | None = None


def _look_power(world: World, step: Step) -> tuple[Reading, str]:
    return world.power.read(step.subject)


def _probe_power(step: Step, level: tuple[Reading, str]) -> Probed:
    reading, text = level
    if reading is Reading.UNKNOWN:
        return Answer.UNKNOWN, reading.value, text
    wanted = Reading.OFF if step.verb is Verb.POWER_OFF else Reading.ON
    return (Answer.SO if reading is wanted else Answer.NOT_SO), reading.value, text


def _look_storage(world: World, step: Step) -> tuple[Access, str]:
    return world.storage(step).read(step.subject)


def _probe_access(step: Step, level: tuple[Access, str]) -> Probed:
    access, text = level
    if access is Access.UNKNOWN:
        return Answer.UNKNOWN, access.value, text
    wanted = Access.CUT if step.verb is Verb.CUT_STORAGE else Access.OPEN
    return (Answer.SO if access is wanted else Answer.NOT_SO), access.value, text


def _look_service(world: World, step: Step) -> ComputeService | None:
    return world.compute.service(step.subject)


def _probe_forced_down(step: Step, level: ComputeService | None) -> Probed:
    if level is None:
        return Answer.FAILED, "absent", "Nova does not know this compute service"
    so = level.forced_down
    return (Answer.SO if so else Answer.NOT_SO), str(so), "forced down" if so else "not forced down"


def _probe_disabled(step: Step, level: ComputeService | None) -> Probed:
    if level is None:
        return Answer.FAILED, "absent", "Nova does not know this compute service"
    so = not level.enabled
    return (Answer.SO if so else Answer.NOT_SO), str(so), "disabled" if so else "enabled"


def _probe_enabled(step: Step, level: ComputeService | None) -> Probed:
    """A service that somebody else disabled stays disabled."""
    if level is None:
        return Answer.SO, "absent", "Nova does not know this compute service any more"
    if level.enabled:
        return Answer.SO, "enabled", "enabled"
    if not level.disabled_reason.startswith(step.args.get("reason", OUR_REASON)):
        return Answer.SO, "disabled", f"left disabled: {level.disabled_reason or 'without a reason'}"
    return (
        (Answer.NOT_SO if level.up else Answer.NOT_YET),
        "disabled",
        "disabled by us" + ("" if level.up else ", not up yet"),
    )


def _look_lift(world: World, step: Step) -> tuple[ComputeService | None, tuple[Migration, ...]]:
    return world.compute.service(step.subject), world.departures(step.subject, world.clock.now()).evacuations


def _probe_lifted(step: Step, level: tuple[ComputeService | None, tuple[Migration, ...]]) -> Probed:
    """forced_down may be cleared only when nova-compute has cleaned up: no migration reads done any more."""
    service, migrations = level
    if service is None or not service.forced_down:
        return Answer.SO, "lifted", "not forced down"
    waiting = sum(one.status == "done" for one in migrations)
    if waiting:
        return Answer.NOT_YET, "forced_down", f"nova-compute has still to clean up {waiting} evacuated guests"
    return Answer.NOT_SO, "forced_down", "clean, still forced down"


def _look_departures(world: World, step: Step) -> Departures:
    """A first attempt may rest on what the plan was made from, read just before it was STARTED. A later one is looked
    for again first: the request before it may have arrived late."""
    host, fresh_s = step.incident.rpartition(".")[0], JUST_BEFORE_S if step.attempt == 1 else 0.0
    return world.departures(host, 0.0 if step.acts else step.started_at - fresh_s)


def _probe_evacuated(step: Step, level: Departures) -> Probed:
    """Done = an evacuation of this incident is done *and* the server has left the host. The reading: «id status».

    Nova may finish the attempt under the record of an earlier one that was given up (it takes the oldest accepted one),
    and a late twin may fail after the first has landed: so once the server has left, any record that is done will do.
    """
    server = next((one for one in level.servers if one.id == step.subject), None)
    known, given_up = (step.args.get(key, "").split(",") for key in ("known", "given_up"))
    ours = [one for one in level.evacuations if one.server == step.subject and one.id not in known]
    if server is None:
        return _departed(ours)
    pending = [one for one in ours if one.id not in given_up]
    if not pending:
        return Answer.NOT_SO, "", "no evacuation of it is under way"
    newest = pending[0]
    if all(one.status in BROKEN for one in pending):
        why = server.fault or f"Nova's migration ended in {newest.status}"
        return Answer.FAILED, f"{newest.id} {newest.status}", why
    untaken = {one.status for one in pending} <= {"accepted", *BROKEN}
    if untaken and newest.id in level.before and not server.task_state:
        return Answer.NOT_YET, f"{newest.id} {IDLE}", f"Nova does nothing with it: {server.fault or server.state.value}"
    text = f"evacuating to {newest.target or 'a host of the scheduler'}: {newest.status}"
    return Answer.NOT_YET, f"{newest.id} {newest.status}", text


def _departed(ours: list[Migration]) -> Probed:
    done = next((one for one in ours if one.status in ARRIVED), None)
    if done is not None:
        return Answer.SO, f"{done.id} {done.status}", f"on {done.target}"
    under_way = next((one for one in ours if one.status not in BROKEN), None)
    if under_way is not None:
        return Answer.NOT_YET, f"{under_way.id} {under_way.status}", f"arriving on {under_way.target}"
    return Answer.SO, "", "gone: it left the host without an evacuation"


def _act_evacuate(world: World, step: Step) -> None:
    world.compute.evacuate(step.subject, step.args["target"], step.args.get("force") == "yes")


def _look_state(world: World, step: Step) -> tuple[Standing, str] | Server | str | None:
    """Most VMs come back ACTIVE where they were sent, which is asked for all of a target at once: then its name. The
    others are looked at one by one; of one that is off and was to run also whether its user has stopped it since, and
    which other host says that it has its guest."""
    target = step.args.get("target", "")
    is_wanted = step.args["state"] == ServerState.ACTIVE.value
    if target and is_wanted and step.subject in world.active_on(target, step.started_at):
        return target
    at, server = world.clock.now(), world.compute.server(step.subject)
    if is_wanted and server is not None and server.state is ServerState.STOPPED:
        standing = Standing(server.id, at, server, world.compute.actions(server.id))
        return standing, world.guests.beside(server.id, server.host, at, BEAT_OLD_S)
    return server


def _probe_state(step: Step, level: tuple[Standing, str] | Server | str | None) -> Probed:
    if isinstance(level, str):
        return Answer.SO, step.args["state"], f"{step.args['state']} on {level}"
    beside = ""
    if isinstance(level, tuple):
        standing, beside = level
        newest = standing.actions[0] if standing.actions else None
        level = standing.server
        is_off = level is not None and level.state is ServerState.STOPPED and not level.task_state
        if is_off and newest is not None and newest.kind == "stop" and newest.by_user:
            return Answer.SO, ServerState.STOPPED.value, "stopped by its user meanwhile"
    if level is None:
        return Answer.SO, "absent", "gone: deleted"
    if level.task_state or level.host == step.args.get("source"):
        return Answer.NOT_YET, level.state.value, f"busy: {level.task_state or 'still on its old host'}"
    if level.state.value == step.args["state"]:
        return Answer.SO, level.state.value, f"{level.state.value} on {level.host}"
    if beside:
        return Answer.NOT_YET, level.state.value, f"not started: {beside} says that it has its guest"
    if level.state in (ServerState.ACTIVE, ServerState.STOPPED):
        return Answer.NOT_SO, level.state.value, f"{level.state.value}, should be {step.args['state']}"
    return Answer.FAILED, level.state.value, f"{level.state.value} on {level.host}: {level.fault or 'no fault given'}"


def _act_state(world: World, step: Step) -> None:
    if step.args["state"] == ServerState.STOPPED.value:
        world.compute.stop(step.subject)
    else:
        world.compute.start(step.subject)


def _look_standing(world: World, step: Step) -> Standing:
    return world.standing(step.subject)


def _probe_restarted(step: Step, level: Standing) -> Probed:
    """An action of the same kind that came after the proof is ours, or as good; any other one is its user's, who comes
    first. What came before ours and after the proof crossed it on its way."""
    server = level.server
    if server is None:
        return Answer.SO, "absent", "gone: deleted"
    if server.host != step.args["host"]:
        return Answer.FAILED, USERS, f"it has left {step.args['host']}"
    ids = [one.id for one in level.actions]
    newer = level.actions[: ids.index(step.args["known"])] if step.args["known"] in ids else level.actions
    ours = [one for one in newer if one.kind == step.args["how"]]
    theirs = [one for one in newer if one.by_user and one not in ours]
    if theirs:
        # Two starts of which one is ours: the user's own came after the stop.
        crossed = len(ours) == 1 and newer[0] in ours and theirs[0].kind == "stop"
        return Answer.FAILED, CROSSED if crossed else USERS, f"its user was first: {theirs[0].kind}"
    if server.task_state:
        if ours or newer:
            return Answer.NOT_YET, server.state.value, f"busy: {server.task_state}"
        return Answer.FAILED, USERS, f"somebody works on it: {server.task_state}"
    if server.state is ServerState.ACTIVE and (ours or step.args["how"] == "start"):
        return Answer.SO, server.state.value, f"active on {server.host}"
    if server.state in (ServerState.ACTIVE, ServerState.STOPPED):
        return Answer.NOT_SO, server.state.value, f"{server.state.value}, not restarted"
    return Answer.FAILED, server.state.value, f"it is {server.state.value}: {server.fault or 'no fault given'}"


def _act_restart(world: World, step: Step) -> None:
    if step.args["how"] == "start":
        world.compute.start(step.subject)
    else:
        world.compute.reboot(step.subject)


def _look_resumed(world: World, step: Step) -> tuple[Standing, Told | None]:
    return world.standing(step.subject), world.guests.told.get(step.args["host"])


def _probe_resumed(step: Step, level: tuple[Standing, Told | None]) -> Probed:
    """Its user comes first. How the guest is, is said by its hypervisor: in a beat that is newer than the act, though
    what that beat says may be some seconds older than it."""
    standing, told = level
    server = standing.server
    if server is None:
        return Answer.SO, "absent", "gone: deleted"
    ids = [one.id for one in standing.actions]
    known = step.args["known"]
    theirs = [one for one in standing.actions[: ids.index(known) if known in ids else len(ids)] if one.by_user]
    if theirs or server.host != step.args["host"] or server.task_state or server.state is not ServerState.ACTIVE:
        did = theirs[0].kind if theirs else server.task_state or f"{server.state.value} on {server.host}"
        return Answer.FAILED, USERS, f"its user was first: {did}"
    domain = told.domains.get(step.subject) if told is not None else None
    if told is None or domain is None or told.at < max(step.started_at - JUST_BEFORE_S, step.acted_at):
        return Answer.NOT_YET, "", f"{step.args['host']} has not told of it since"
    said = f"its hypervisor says {domain.state.value}" + (f" ({domain.detail})" if domain.detail else "")
    if domain.state in (DomainState.RUNNING, DomainState.UNRESPONSIVE):
        return Answer.SO, domain.state.value, f"runs again on {server.host}"
    if domain.state is DomainState.FROZEN and domain.detail.startswith(DISK_PAUSED):
        return Answer.NOT_SO, domain.state.value, said
    return Answer.FAILED, domain.state.value, said


def _look_unit(world: World, step: Step) -> tuple[Unit | None, float]:
    return world.unit(step.args["host"], step.args["service"])


def _probe_unit(step: Step, level: tuple[Unit | None, float]) -> Probed:
    """Its systemd draws another invocation for each start: the known one is that which was proven to have failed."""
    unit, _ = level
    if unit is None:
        return Answer.UNKNOWN, "", f"the agent of {step.args['host']} does not tell of it"
    is_known = unit.invocation == step.args["known"]
    if unit.is_wanted_off:
        return Answer.FAILED, unit.state.value, f"somebody stopped it meanwhile: {unit.kept_off or 'it ended clean'}"
    if unit.state is UnitState.RUNS and not is_known:
        return Answer.SO, unit.state.value, f"runs on {step.args['host']}"
    if unit.state is UnitState.CHANGING:
        return Answer.NOT_YET, unit.state.value, "it is being started"
    if is_known:
        return Answer.NOT_SO, unit.state.value, f"not restarted, it {unit.state.value}"
    return Answer.FAILED, AGAIN, f"it was started and ended again: {unit.detail or unit.state.value}"


def _act_unit(world: World, step: Step) -> None:
    world.hands.restart_service(step.args["host"], step.args["service"], step.args["known"])


EFFECTS: dict[Verb, Effect] = {
    Verb.POWER_OFF: Effect(_look_power, _probe_power, lambda world, step: world.power.off(step.subject), 0.9, True),
    Verb.POWER_ON: Effect(_look_power, _probe_power, lambda world, step: world.power.on(step.subject), 5.0),
    Verb.CUT_STORAGE: Effect(
        _look_storage,
        _probe_access,
        lambda world, step: world.storage(step).cut(step.subject),
        0.4,
        True,
    ),
    Verb.RESTORE_STORAGE: Effect(
        _look_storage, _probe_access, lambda world, step: world.storage(step).restore(step.subject)
    ),
    Verb.FORCE_DOWN: Effect(
        _look_service, _probe_forced_down, lambda world, step: world.compute.set_forced_down(step.subject, True), 0.5
    ),
    Verb.DISABLE: Effect(
        _look_service,
        _probe_disabled,
        lambda world, step: world.compute.set_enabled(step.subject, False, step.args["reason"]),
    ),
    Verb.EVACUATE: Effect(
        _look_departures, _probe_evacuated, _act_evacuate, 1.0, read_at=lambda departures: departures.at
    ),
    Verb.LIVE_MIGRATE: Effect(
        lambda world, step: world.moved(step.subject),
        probe_migrated,
        lambda world, step: world.compute.live_migrate(step.subject, step.args["target"]),
    ),
    Verb.RESTORE_STATE: Effect(_look_state, _probe_state, _act_state, 1.0),
    Verb.RESTART: Effect(_look_standing, _probe_restarted, _act_restart, 1.0),
    Verb.RESUME: Effect(
        _look_resumed,
        _probe_resumed,
        lambda world, step: world.hands.resume_guest(step.args["host"], step.subject),
        1.0,
        read_at=lambda level: level[1].at if level[1] is not None else level[0].at,
    ),
    Verb.RESTART_SERVICE: Effect(_look_unit, _probe_unit, _act_unit, 1.0, read_at=lambda level: level[1]),
    Verb.LIFT_FENCE: Effect(
        _look_lift, _probe_lifted, lambda world, step: world.compute.set_forced_down(step.subject, False), 2.0
    ),
    Verb.ENABLE: Effect(
        _look_service, _probe_enabled, lambda world, step: world.compute.set_enabled(step.subject, True, ""), 2.0
    ),
}
