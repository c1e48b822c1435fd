# SPDX-License-Identifier: Apache-2.0
"""Seeds played: what befalls a drawn datacentre, with every rule of safety asked all the time, then the mending, and
whether everything came right.

Time in which nothing can happen is not stepped: when the world is calm the script's next fault comes at once, and the
whole rest of the script comes that much sooner. What was done, and when, is kept as a story that replays to the byte.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

from vmhad.engine.stopped import EVERY_S, REACHES_BACK_S
from vmhad.kernel.cloud import ServerState
from vmhad.kernel.incident import Incident, State
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.sim import rules_of_certificates
from vmhad.sim.directives import Stage
from vmhad.sim.draft import StoryError
from vmhad.sim.failures import failures_of_engines
from vmhad.sim.inbox import incidents
from vmhad.sim.nova import ServerRow
from vmhad.sim.rebuild import REBUILDING
from vmhad.sim.rules_of_storages import left_cut
from vmhad.sim.show import SHOWS, spoken
from vmhad.sim.swarm import STANDARD, Script, Shape, draw
from vmhad.sim.world import World

# How often a world that may be calm is asked.
LOOK_EVERY_S = 1.0
# After the mending: the longest that anything of the policies makes it wait for its next try, and a fence.
SETTLES_WITHIN_S = 1500.0
# A new round of a STUCK incident is fenced, and told to Nova, in this time; then its VMs are tried again.
ROUND_BEGINS_S = 30.0
OPT_OUT = "vmhad"


@dataclass(frozen=True)
class Played:
    """What became of a script. violations: rules that were broken. unexplained: protected VMs that do not run as their
    user wants and are in no STUCK incident that says why, and incidents that rest without a time to look again.

    simulated_s: the script's time; stepped_s: what of it was not calm. end: a digest of all that was said and of the
    final state. fates: what became of each VM, wherever it is. story: what was done, as directives.
    """

    seed: int
    violations: tuple[str, ...]
    unexplained: tuple[str, ...]
    events: int
    simulated_s: float
    stepped_s: float
    cpu_s: float
    end: str
    fates: tuple[str, ...] = ()
    story: tuple[str, ...] = ()

    @property
    def stuck_without_reason(self) -> int:
        return len(self.unexplained)

    @property
    def failed(self) -> tuple[str, ...]:
        return (*self.violations, *self.unexplained)


def play(seed: int, shape: Shape = STANDARD, passing_over: bool = True) -> Played:
    """One seed, from its drawing to its judgement."""
    return play_script(draw(seed, shape), seed, passing_over)


def sow(seeds: Sequence[int], shape: Shape, jobs: int = 1) -> Iterator[Played]:
    """Plays them in order, jobs at a time, each in a process of its own if there are several."""
    one = partial(play, shape=shape)
    if jobs <= 1:
        yield from map(one, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(one, seeds, chunksize=4)


def play_script(script: Script, seed: int = 0, passing_over: bool = True, to_its_end: bool = True) -> Played:
    """to_its_end: whether everything came right is asked, too.

    Raises StoryError, KeyError, ValueError or IndexError where the script cannot be understood.
    """
    with failures_of_engines() as failures:
        return _play(script, seed, passing_over, to_its_end, failures)


def _play(script: Script, seed: int, passing_over: bool, to_its_end: bool, failures: list[str]) -> Played:
    began = time.process_time()
    stage = Stage()
    told = [*script.declarations]
    for line in script.declarations:
        stage.perform(line)
    run = _Run(stage.world, passing_over, told)
    for at, line in script.faults:
        run.until(at)
        told.append(line)
        stage.perform(line)
        stage.world.touched_at = stage.world.agenda.now
    run.until(script.ends_at_s)
    if to_its_end:
        run.settle()
    run.flush()
    world = stage.world
    rules_of_certificates.tell(world)
    return Played(
        seed=seed,
        violations=(*world.checkers.breaches, *dict.fromkeys(failures)),
        unexplained=tuple(unexplained(world, is_over=True)) if to_its_end else (),
        events=world.events,
        simulated_s=world.agenda.elapsed_s + run.passed_s,
        stepped_s=world.agenda.elapsed_s,
        cpu_s=time.process_time() - began,
        end=digest(world),
        fates=tuple(fates(world)),
        story=tuple(told),
    )


@dataclass
class _Run:
    """The clock of one script. passed_s: how much of it was passed over. told gets what was run, as directives."""

    world: World
    passing_over: bool
    told: list[str]
    passed_s: float = 0.0
    untold_s: float = 0.0

    def until(self, at: float) -> None:
        """Runs to that time of the script, or to the calm before it. Then what the script says next is due."""
        agenda = self.world.agenda
        while (left_s := round(at - self.passed_s - agenda.elapsed_s, 3)) > 0:
            if self.passing_over and self.world.may_be_passed_over:
                self.passed_s += left_s
                break
            self._step(min(left_s, LOOK_EVERY_S) if self.passing_over else left_s)
        self.flush()

    def settle(self) -> None:
        """What is under way at the end is let go on until nothing is left unexplained, or as long as it could take."""
        until = self.world.agenda.now + SETTLES_WITHIN_S
        while self.world.agenda.now < until and next(unexplained(self.world), None) is not None:
            self._step(LOOK_EVERY_S)

    def flush(self) -> None:
        if self.untold_s:
            self.told.append(f"run {self.untold_s:.3f}s")
        self.untold_s = 0.0

    def _step(self, seconds: float) -> None:
        self.world.run(seconds)
        self.untold_s = round(self.untold_s + seconds, 3)


# The end.


def unexplained(world: World, is_over: bool = False) -> Iterator[str]:
    """What has not come right, and of which nobody is told why. Whether a VM runs is told by its guests: Nova may call
    one that runs well an ERROR, for a request that came too late. is_over: no more time is given to anything."""
    open_now = [one for one in incidents(world) if one.is_open]
    for incident in open_now:
        if not incident.wake_at > 0.0:
            yield f"incident {incident.id} rests without a time to look again"
        if incident.state is State.STUCK and not incident.because:
            yield f"incident {incident.id} is stuck and does not say why"
    yield from (f"{subject}: {why}" for subject, why in left_cut(world.ledger))
    known = [one for one in world.ledger.incidents.values() if not (one.is_open or one.drain)]
    ended = [one for one in known if "order" in one.because]
    given_up = {one.subject for one in ended}
    for server_id, wanted in sorted(world.nova.wished.items()):
        row = world.nova.servers.get(server_id)
        if row is None or row.metadata.get(OPT_OUT) == "false" or server_id in world.nova.taken:
            continue
        vm = world.datacentre.vms[server_id]
        # What is left where all its disks are refused waits for that host's fence, and its incident says so.
        guests = vm.guests - world.datacentre.fenced_from_all(vm)
        runs = len(guests)
        if guests == ({row.host} if wanted is ServerState.ACTIVE else set()):
            continue
        if guests & world.checkers.excused or _wished_meanwhile(world, server_id) or _is_spoilt(world, row):
            continue
        if row.state is ServerState.STOPPED and _nobody_was_there(world, row.stopped_at):
            continue
        if is_over and _is_tried_again(world, row, open_now):
            continue
        if not _is_stuck(world, row, open_now) and given_up.isdisjoint((row.id, row.host)):
            state = f"{row.state.value}{' ' + row.task_state if row.task_state else ''} on {row.host}"
            yield f"vm {row.name} should be {wanted.value} and is {state}, with {runs} guests, and no incident is stuck"


def _wished_meanwhile(world: World, server_id: str) -> bool:
    """Its user stopped or started it while its recovery was under way: whose word was the last is not for us to say."""
    at = world.nova.wished_at.get(server_id)
    mine = [one for one in world.ledger.started.get(server_id, ()) if at is not None and one.at <= at]
    steps = [one for one in world.ledger.steps.values() if mine and one.subject == server_id]
    over_at = world.ledger.over_at
    return any(one.incident == mine[-1].incident and over_at.get(one.id, inf) >= (at or 0.0) for one in steps)


def _nobody_was_there(world: World, stopped_at: float) -> bool:
    """When Nova switched it off no engine lived for long enough to see it, and none came while it would still have
    looked back that far: it may be its user's wish for all that anybody can know. Long enough is two looks: Nova may
    leave one unanswered, and whoever comes has to take over first."""
    seen_at, come_by = stopped_at + 2 * EVERY_S, stopped_at + REACHES_BACK_S - 2 * EVERY_S
    return not any(node.life.born_at <= come_by and node.life.died_at > seen_at for node in world.nodes.values())


def _is_spoilt(world: World, row: ServerRow) -> bool:
    """It was recovered, and a request of that recovery which came too late made Nova call it an ERROR, rebuilding. Nova
    refuses every action on it until an operator resets its state, so when its next host fails and comes back by itself,
    nothing can start it. Nova tells that, with the fault."""
    return row.id in world.nova.spoilt and row.state is ServerState.ERROR and row.task_state in (REBUILDING, "")


def _is_stuck(world: World, row: ServerRow, open_now: Sequence[Incident]) -> bool:
    """An open STUCK incident speaks of it: of its host, or of a step of its own that failed with a reason. One whose
    host was taken back speaks of no other VM than those."""
    steps = [one for one in world.ledger.steps.values() if one.subject == row.id and one.because]
    of_it = {one.incident for one in steps if one.state is StepState.FAILED}
    stuck = [one for one in open_now if one.state is State.STUCK and one.because]
    of_host = [one for one in stuck if one.host == row.host and one.is_of_host and not _was_taken_back(world, one)]
    return bool(of_host) or any(one.id in of_it or one.vm == row.id for one in stuck)


def _was_taken_back(world: World, incident: Incident) -> bool:
    step = world.ledger.steps.get(f"{incident.id}/{incident.round}/{Verb.LIFT_FENCE.value}")
    return step is not None and step.state is StepState.DONE


def _is_tried_again(world: World, row: ServerRow, open_now: Sequence[Incident]) -> bool:
    """Given up with a reason while things settled, its incident was STUCK, and time ran out in the next round of tries,
    where it has been tried or refused already, or the fence just began. What refuses it for ever is told round by
    round, and of several incidents one may always be in the middle of a round, for another VM that is tried longer."""
    now, ledger = world.agenda.now, world.ledger
    under_way = {one.id for one in open_now if one.state in (State.FENCING, State.RECOVERING)}

    def is_told(step: Step) -> bool:
        was_refused = step.state is StepState.FAILED and bool(step.because)
        begins = now - ledger.fencing_since.get(step.incident, 0.0) < ROUND_BEGINS_S
        return step.attempt > 0 or was_refused or begins

    mine = [one for one in ledger.steps.values() if one.subject == row.id and one.incident in under_way]
    given_up = [one for one in mine if one.id in ledger.failed_at]
    return any(now - ledger.failed_at[one.id] < SETTLES_WITHIN_S and is_told(one) for one in given_up)


def fates(world: World) -> Iterator[str]:
    for row in sorted(world.nova.servers.values(), key=lambda one: one.name):
        yield f"{row.name} runs {len(world.datacentre.vms[row.id].guests)} times"


def digest(world: World) -> str:
    """Of all that was said and all that is, to the byte."""
    lines = [*spoken(world.said, with_engine=True), *(line for show in sorted(SHOWS) for line in SHOWS[show](world))]
    lines += [f"{host} {vars(truth)}" for host, truth in sorted(world.datacentre.hosts.items())]
    return hashlib.sha256("\n".join([*lines, str(world.events), f"{world.agenda.now:.6f}"]).encode()).hexdigest()


def replay_command(seed: int, shape: Shape) -> str:
    """What a reader types to see that seed again."""
    size = f" --hosts {shape.hosts}" * (shape.hosts != STANDARD.hosts)
    size += f" --hours {shape.hours:g}" * (shape.hours != STANDARD.hours)
    size += " --agents" * shape.agents + " --lonely" * shape.lonely + " --drains" * shape.drains
    size += " --storages" * shape.storages + " --rules" * shape.rules
    return f"vmhad-sim seeds --replay {seed}{size}"


def timeline(played_story: Sequence[str]) -> Iterator[str]:
    """The story told again, with what was done and what came of it."""
    stage = Stage()
    told = 0
    for line in played_story:
        stage.perform(line)
        said = stage.world.said[told:] if stage.is_built else []
        told += len(said)
        yield from spoken(said, with_engine=True)
        if stage.is_built and not line.startswith("run "):
            yield f"+{stage.world.agenda.elapsed_s:.1f}s".ljust(9) + f"==> {line}"


__all__ = ["Played", "StoryError", "digest", "play", "play_script", "replay_command", "timeline", "unexplained"]
