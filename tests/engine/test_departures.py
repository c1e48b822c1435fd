# SPDX-License-Identifier: Apache-2.0
"""What one look at a dead host's departures may conclude from, and how little of Nova it asks for."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmhad.engine.effects import EFFECTS
from vmhad.engine.executor import Executor
from vmhad.engine.world import World
from vmhad.guards.hosts.settle import IDLE
from vmhad.kernel.cloud import Inventory, Migration, Server, ServerState
from vmhad.kernel.step import Outcome, Step, StepState, Verb, record
from vmhad.sim.power import SimPower


@dataclass
class ManualClock:
    at: float = 1000.0

    def now(self) -> float:
        return self.at


@dataclass
class RecordedNova:
    """A Nova that answers what it is told to, and keeps what it was asked. Not the simulator's, which answers at once:
    here an answer comes late. takes_s: kind of read -> how long it takes."""

    clock: ManualClock
    servers: dict[str, Server] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    takes_s: dict[str, float] = field(default_factory=dict)

    def evacuations(self, host: str) -> tuple[Migration, ...]:
        self._asked("evacuations")
        return tuple(
            Migration(f"m-{server}", server, "evacuation", status, host, "h2", "")
            for server, status in sorted(self.records.items())
        )

    def departures(self, host: str) -> tuple[tuple[Server, ...], tuple[Migration, ...]]:
        self._asked("rows")
        servers = tuple(self.servers.values())
        return servers, self.evacuations(host)

    def server_ids(self, host: str, active: bool = False) -> frozenset[str]:
        self._asked("ids")
        return frozenset(self.servers)

    def _asked(self, kind: str) -> None:
        self.asked.append(kind)
        self.clock.at += self.takes_s.get(kind, 0.0)


class _AtOnce:
    """ports.Workers that does the work before submit returns."""

    def __init__(self) -> None:
        self.done: list[Outcome] = []

    def submit(self, key: str, work) -> bool:  # type: ignore[no-untyped-def]
        self.done.extend(work())
        return True


def vm(name: str, task: str = "rebuilding") -> Server:
    return Server(name, name, "h1", ServerState.ACTIVE, task_state=task)


def sent(name: str, at: float) -> Step:
    args = {"name": name, "state": "active", "target": "h2"}
    return Step(f"h1.1/evacuate/{name}", "h1.1", Verb.EVACUATE, name, args, StepState.STARTED, 1, 1, at, at)


def readings(nova: RecordedNova, step: Step, looks: int, apart_s: float = 1.0) -> Step:
    world = World(nova, _no_power(), nova.clock)  # type: ignore[arg-type]
    workers = _AtOnce()
    executor = Executor(world, workers, lambda segment: 60.0, 5.0)  # type: ignore[arg-type]
    for _ in range(looks):
        executor.pursue("east", [step], nova.clock.at)
        for outcome in workers.done:
            step = record(step, outcome)
        workers.done.clear()
        nova.clock.at += apart_s
    return step


def _no_power() -> SimPower:
    return None  # type: ignore[return-value]


def test_two_looks_at_one_reading_are_one_observation() -> None:
    """Nova froze while it was asked: the look began long before it was answered, and the next takes the same answer."""
    nova = RecordedNova(ManualClock(), {"a": vm("a", task="")}, {"a": "accepted"}, takes_s={"evacuations": 2.0})
    step = readings(nova, sent("a", nova.clock.at), looks=2)
    assert [seen.reading for seen in step.observed] == [f"m-a {IDLE}"]
    assert nova.asked.count("rows") == 1


def test_a_record_made_while_the_servers_were_listed_says_nothing_of_its_task() -> None:
    """The servers are read, then Nova takes the request, then the records are read."""
    clock = ManualClock()
    nova = RecordedNova(clock, {"a": vm("a", task="")})

    class Between(RecordedNova):
        def departures(self, host: str) -> tuple[tuple[Server, ...], tuple[Migration, ...]]:
            servers = tuple(self.servers.values())
            self.records["a"], self.servers["a"] = "accepted", vm("a")
            return servers, self.evacuations(host)

    nova = Between(clock, {"a": vm("a", task="")})
    step = readings(nova, sent("a", clock.at), looks=1)
    assert [seen.reading for seen in step.observed] == ["m-a accepted"]


def test_a_target_that_waits_to_finish_is_not_idle() -> None:
    """Its guest runs and its task is over; only its nova-compute has not written yet where it is. The rows are read all
    the while, for another that nobody took up."""
    servers, records = {"a": vm("a", task=""), "b": vm("b")}, {"a": "pre-migrating", "b": "accepted"}
    nova = RecordedNova(ManualClock(), servers, records)
    step = readings(nova, sent("a", nova.clock.at), looks=40)
    assert {seen.reading for seen in step.observed} == {"m-a pre-migrating"} and nova.asked.count("rows") > 2


def test_rows_are_asked_for_only_where_nova_may_have_given_up() -> None:
    names = [f"vm-{number:02}" for number in range(20)]
    nova = RecordedNova(ManualClock(), {one: vm(one) for one in names}, dict.fromkeys(names, "pre-migrating"))
    world = World(nova, _no_power(), nova.clock)  # type: ignore[arg-type]
    rows = tuple(nova.servers.values())
    world.remember(Inventory("h1", nova.clock.at, rows, (), (), {}, (), ()))
    for name in names:
        nova.clock.at += 2.0
        nova.records[name] = "done"
        del nova.servers[name]
        level = world.departures("h1", nova.clock.at)
        assert EFFECTS[Verb.EVACUATE].probe(sent(name, 0.0), level)[0].value == "so"
    assert nova.asked.count("rows") == 0 and nova.asked.count("ids") == len(names)
    nova.servers["vm-20"], nova.records["vm-20"] = vm("vm-20"), "error"
    nova.clock.at += 2.0
    world.departures("h1", nova.clock.at)
    assert nova.asked.count("rows") == 1


def test_what_waits_for_its_turn_is_not_called_given_up() -> None:
    """Sixty at once: the last of them is taken up long after it was asked for. Once none is taken up any more, it is
    asked whether Nova has given up the rest."""
    names = [f"vm-{number:02}" for number in range(20)]
    nova = RecordedNova(ManualClock(), {one: vm(one) for one in names}, dict.fromkeys(names, "accepted"))
    world = World(nova, _no_power(), nova.clock)  # type: ignore[arg-type]
    world.remember(Inventory("h1", nova.clock.at, tuple(nova.servers.values()), (), (), {}, (), ()))
    for name in names[:-1]:
        nova.clock.at += 2.0
        nova.records[name] = "pre-migrating"
        world.departures("h1", nova.clock.at)
    assert nova.asked.count("rows") == 0
    for _ in range(10):
        nova.clock.at += 2.0
        world.departures("h1", nova.clock.at)
    assert nova.asked.count("rows") == 1


def test_the_more_are_to_leave_the_seldomer_nova_is_asked() -> None:
    def asked(count: int) -> int:
        names = [f"vm-{number:02}" for number in range(count)]
        nova = RecordedNova(ManualClock(), {one: vm(one) for one in names}, dict.fromkeys(names, "pre-migrating"))
        world = World(nova, _no_power(), nova.clock)  # type: ignore[arg-type]
        world.remember(Inventory("h1", nova.clock.at, tuple(nova.servers.values()), (), (), {}, (), ()))
        for _ in range(60):
            nova.clock.at += 0.5
            world.departures("h1", 0.0)
        return nova.asked.count("evacuations")

    assert asked(5) == 20 and asked(20) == 10 and asked(60) == 5
