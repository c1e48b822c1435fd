# SPDX-License-Identifier: Apache-2.0
"""Cases of Compute's contract: requests that are repeated, left behind, or read too late."""

from __future__ import annotations

from tests.ports.compute_bench import (
    Bench,
    bury,
    case,
    ended,
    evacuated,
    place,
    rare,
    refusal,
    server,
    statuses,
)
from vmhad.kernel.cloud import ServerState


@case
def twin_while_the_first_spawns(bench: Bench) -> None:
    """So a repeat is for a request that left no record within its time, never for a lost answer."""
    source, target = bench.hosts[:2]
    vm = bench.boot("vm", source)
    bury(bench, source)
    bench.slow_spawns(target, 4.0)
    bench.compute.evacuate(vm, target, False)
    bench.wait("it is spawning", lambda: server(bench, vm).task_state == "rebuild_spawning")
    bench.compute.evacuate(vm, target, False)
    ended(bench, source, vm, ["failed", "done"])
    assert place(bench, vm) == (target, ServerState.ERROR) and server(bench, vm).fault
    assert bench.running_on(vm) == [target]


@case
def twins_at_once(bench: Bench) -> None:
    """On a real Nova a race: none, one or both fail. Whatever the records say, it runs on the target and nowhere else;
    and a further request finds the copy there."""
    source, target = bench.hosts[:2]
    vm = bench.boot("vm", source)
    bury(bench, source)
    bench.slow_spawns(target, 2.0)
    bench.compute.evacuate(vm, target, False)
    bench.compute.evacuate(vm, target, False)
    assert [one.target for one in bench.compute.departures(source)[1] if one.server == vm] == [target, target]
    bench.wait("it runs on the target", lambda: bench.running_on(vm) == [target])
    bench.wait("Nova has stopped working on it", lambda: not server(bench, vm).task_state)
    assert {"done", "failed"} & set(statuses(bench, source, vm))
    host, state = place(bench, vm)
    assert host in (source, target)
    if host == source:
        assert state is ServerState.ERROR and "done" not in statuses(bench, source, vm)
        bench.compute.evacuate(vm, target, False)
        bench.wait("it failed", lambda: "already exists" in server(bench, vm).fault)
    assert bench.running_on(vm) == [target]


@rare
def target_dies_while_spawning(bench: Bench) -> None:
    source, target, other = bench.hosts[:3]
    vm = bench.boot("vm", source)
    bury(bench, source)
    bench.slow_spawns(target, 60.0)
    bench.compute.evacuate(vm, target, False)
    bench.wait("it is received", lambda: statuses(bench, source, vm) == ["pre-migrating"])
    bury(bench, target)
    bench.rest(2.0)
    assert statuses(bench, source, vm) == ["pre-migrating"] and server(bench, vm).task_state
    assert place(bench, vm) == (source, ServerState.ACTIVE)
    evacuated(bench, vm, other)
    assert statuses(bench, source, vm) == ["done", "pre-migrating"]
    assert bench.running_on(vm) == [other]


@case
def oldest_record_and_late_reader(bench: Bench) -> None:
    """The long way of one request: sent to a host that hangs, done by another host, read by the first one at last."""
    nova, (source, target, other) = bench.compute, bench.hosts[:3]
    vm = bench.boot("vm", source)
    bury(bench, source)
    bench.hang(target)
    nova.evacuate(vm, target, False)
    bench.rest(3.0)
    assert statuses(bench, source, vm) == ["accepted"] and server(bench, vm).task_state == "rebuilding"
    bury(bench, target)
    evacuated(bench, vm, other)
    bench.wait("a record is done", lambda: "done" in statuses(bench, source, vm))
    records = [one for one in nova.departures(source)[1] if one.server == vm]
    assert [(one.status, one.target) for one in records] == [("accepted", other), ("done", other)]
    assert place(bench, vm) == (other, ServerState.ACTIVE)
    bench.bring_back(source)
    bench.wait("one record is ended", lambda: "completed" in statuses(bench, source, vm))
    assert statuses(bench, source, vm) == ["completed", "done"]
    assert "done" in refusal(lambda: nova.set_forced_down(source, False))
    bench.restart_compute(source)
    bench.wait("the other one too", lambda: statuses(bench, source, vm) == ["completed", "completed"])
    nova.set_forced_down(source, False)
    bench.bring_back(target)
    bench.wait("the old request is read", lambda: server(bench, vm).state is ServerState.ERROR)
    assert server(bench, vm).host == other and bench.running_on(vm) == [other]
    assert server(bench, vm).task_state == "rebuilding", "what it could not save it saved with the ERROR"
    assert statuses(bench, source, vm) == ["completed", "failed"]


@case
def start_is_read_late(bench: Bench) -> None:
    """Nothing takes back a start that was sent. Whoever evacuates a server that was just being started must know."""
    nova, (source, target) = bench.compute, bench.hosts[:2]
    vm = bench.boot("vm", source, stopped=True)
    bench.hang(source)
    nova.start(vm)
    bury(bench, source)
    evacuated(bench, vm, target)
    ended(bench, source, vm, ["done"])
    assert place(bench, vm) == (target, ServerState.STOPPED) and bench.running_on(vm) == []
    bench.bring_back(source)
    bench.wait("the old start is done", lambda: bench.running_on(vm) == [source])
    assert place(bench, vm) == (target, ServerState.STOPPED)
