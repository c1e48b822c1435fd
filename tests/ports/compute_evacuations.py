# SPDX-License-Identifier: Apache-2.0
"""Cases of Compute's contract: one evacuation after another, and the return of the source."""

from __future__ import annotations

from tests.ports.compute_bench import (
    NOBODY,
    Bench,
    bury,
    case,
    ended,
    evacuated,
    place,
    rare,
    refusal,
    server,
    service,
    statuses,
)
from vmhad.kernel.cloud import ServerState


@case
def refused(bench: Bench) -> None:
    nova, (source, target, _) = bench.compute, bench.hosts[:3]
    one, paused = bench.boot("one", source), bench.boot("paused", source)
    bench.pause(paused)
    assert f"Compute service of {source} is still in use" in refusal(lambda: nova.evacuate(one, target, False))
    bury(bench, source)
    assert "nosuchhost" in refusal(lambda: nova.evacuate(one, "nosuchhost", False))
    assert "can't be the same" in refusal(lambda: nova.evacuate(one, source, False))
    assert "vm_state paused" in refusal(lambda: nova.evacuate(paused, target, False))
    assert refusal(lambda: nova.evacuate(NOBODY, target, False))
    assert nova.departures(source)[1] == () and not server(bench, one).task_state


@case
def from_record_to_done(bench: Bench) -> None:
    source, target, other = bench.hosts[:3]
    on = bench.boot("on", source, locked=True)
    off = bench.boot("off", source, stopped=True)
    bury(bench, source)
    bench.slow_spawns(target, 2.0)
    bench.compute.evacuate(on, target, False)
    made = [one for one in bench.compute.departures(source)[1] if one.server == on]
    assert [(one.source, one.target, one.kind) for one in made] == [(source, target, "evacuation")]
    assert server(bench, on).task_state
    assert bench.compute.server_ids(source) == {on, off} and not bench.compute.server_ids(source, active=True) & {off}
    seen = [made[0].status]

    def moved() -> bool:
        seen.extend(statuses(bench, source, on))
        return server(bench, on).host == target and seen[-1] == "done"

    bench.wait("it moved", moved)
    order = {"accepted": 1, "pre-migrating": 2, "done": 3}
    assert seen == sorted(seen, key=order.__getitem__) and "pre-migrating" in seen
    evacuated(bench, off, other)
    ended(bench, source, off, ["done"])
    assert place(bench, on) == (target, ServerState.ACTIVE) and server(bench, on).locked
    assert place(bench, off) == (other, ServerState.STOPPED)
    assert (bench.running_on(on), bench.running_on(off)) == ([target], [])
    assert bench.compute.departures(source)[0] == () and not bench.compute.server_ids(source)
    assert on in bench.compute.server_ids(target, active=True)
    assert off in bench.compute.server_ids(other) - bench.compute.server_ids(other, active=True)
    assert refusal(lambda: bench.compute.evacuate(on, target, False))
    assert statuses(bench, source, on) == ["done"] and bench.running_on(on) == [target]


@case
def no_valid_host(bench: Bench) -> None:
    """Whoever repeats must remember what the server was."""
    source, target, other = bench.hosts[:3]
    vm = bench.boot("vm", source, stopped=True)
    bury(bench, source)
    bench.compute.set_enabled(target, False, "full")
    bench.compute.evacuate(vm, target, False)
    ended(bench, source, vm, ["error"])
    assert place(bench, vm) == (source, ServerState.ERROR) and not server(bench, vm).task_state
    assert "No valid host" in server(bench, vm).fault
    bury(bench, target)
    bench.compute.evacuate(vm, target, False)
    bench.wait("Nova gave up again", lambda: statuses(bench, source, vm) == ["error", "error"])
    evacuated(bench, vm, other)
    ended(bench, source, vm, ["done", "error", "error"])
    assert place(bench, vm) == (other, ServerState.ACTIVE)
    assert bench.running_on(vm) == [other]


@case
def enabled_too_early(bench: Bench) -> None:
    """Why a host is enabled only when it is up: else Placement keeps it from the scheduler for up to a minute."""
    nova, (source, target) = bench.compute, bench.hosts[:2]
    vm = bench.boot("vm", source)
    nova.set_enabled(target, False, "vmhad: why")
    nova.set_forced_down(target, True)
    nova.set_enabled(target, True, "")
    nova.set_forced_down(target, False)
    bury(bench, source)
    assert service(bench, target).up and service(bench, target).enabled
    nova.evacuate(vm, target, False)
    ended(bench, source, vm, ["error"])
    nova.set_enabled(target, False, "vmhad: again")
    nova.set_enabled(target, True, "")
    evacuated(bench, vm, target)


@case
def return_of_the_source(bench: Bench) -> None:
    nova, (source, target) = bench.compute, bench.hosts[:2]

    def left() -> dict[str, int]:
        return {room.host: room.ram_mib for room in nova.inventory(source, [source, target], 0.0).rooms}

    before = left()
    vm = bench.boot("vm", source)
    taken = server(bench, vm).ram_mib
    bury(bench, source)
    evacuated(bench, vm, target)
    ended(bench, source, vm, ["done"])
    assert left() == {source: before[source] - taken, target: before[target] - taken}
    assert "Unable to force up host" in refusal(lambda: nova.set_forced_down(source, False))
    bench.bring_back(source)
    bench.wait("it has cleaned up", lambda: statuses(bench, source, vm) == ["completed"])
    nova.set_forced_down(source, False)
    bench.wait("it is up", lambda: service(bench, source).up)
    assert left() == {source: before[source], target: before[target] - taken}
    assert bench.running_on(vm) == [target]


@rare
def fallen(bench: Bench) -> None:
    """What Nova switched off by itself is told from what a user did, until somebody starts or stops it."""
    nova, host = bench.compute, bench.hosts[0]
    on, off = bench.boot("on", host), bench.boot("off", host, stopped=True)
    assert nova.fallen(host) == ()
    assert on not in {one.id for one in nova.stopped_lately(600.0)}
    bench.reboot(host)
    bench.wait("Nova has seen it", lambda: [one.id for one in nova.fallen(host)] == [on])
    assert (on, host) in {(one.id, one.host) for one in nova.stopped_lately(600.0)}
    assert place(bench, on) == (host, ServerState.STOPPED)
    assert service(bench, host).up
    nova.start(on)
    bench.wait("it is on", lambda: bench.running_on(on) == [host])
    bench.wait("Nova knows it", lambda: place(bench, on) == (host, ServerState.ACTIVE))
    assert nova.fallen(host) == () and bench.running_on(off) == []


@case
def actions(bench: Bench) -> None:
    nova, host = bench.compute, bench.hosts[0]
    vm = bench.boot("vm", host)
    before = nova.actions(vm)
    nova.stop(vm)
    (stopped,) = nova.actions(vm)[: len(nova.actions(vm)) - len(before)]
    assert (stopped.kind, stopped.by_user) == ("stop", True)
    bench.wait("it is stopped", lambda: place(bench, vm) == (host, ServerState.STOPPED))
    nova.reboot(vm)
    assert [one.kind for one in nova.actions(vm)[:2]] == ["reboot", "stop"]
    assert "task_state" in refusal(lambda: nova.start(vm))
    bench.wait("it runs", lambda: place(bench, vm) == (host, ServerState.ACTIVE) and bench.running_on(vm) == [host])


@case
def lost_guest(bench: Bench) -> None:
    nova, host = bench.compute, bench.hosts[0]
    left, rebooted = bench.boot("left", host), bench.boot("rebooted", host)
    for one in (rebooted, left):
        bench.lose_guest(one, host)
    bench.wait("both are gone", lambda: bench.running_on(left) == bench.running_on(rebooted) == [])
    assert place(bench, left) == place(bench, rebooted) == (host, ServerState.ACTIVE)
    nova.reboot(rebooted)
    bench.wait("it runs", lambda: bench.running_on(rebooted) == [host])
    bench.wait("Nova has found the other", lambda: [one.id for one in nova.fallen(host)] == [left])
    newest = nova.actions(left)[0]
    assert (newest.kind, newest.by_user) == ("stop", False)
    bench.rest(2.0)
    assert place(bench, rebooted) == (host, ServerState.ACTIVE) and bench.running_on(rebooted) == [host]
