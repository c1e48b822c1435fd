# SPDX-License-Identifier: Apache-2.0
"""Cases of Compute's contract: server groups."""

from __future__ import annotations

from tests.ports.compute_bench import (
    OPEN,
    Bench,
    bury,
    case,
    ended,
    evacuated,
    place,
    rare,
    server,
    statuses,
)
from vmhad.kernel.cloud import ServerState


@case
def hard_affinity(bench: Bench) -> None:
    """The filter wants a host that holds the group, and that host is dead."""
    nova, (source, target, other) = bench.compute, bench.hosts[:3]
    group = bench.group("affinity")
    vm = bench.boot("vm", source, group=group)
    bury(bench, source)
    nova.evacuate(vm, target, False)
    ended(bench, source, vm, ["error"])
    nova.evacuate(vm, target, True)
    bench.wait("by force", lambda: server(bench, vm).host == target)
    ended(bench, source, vm, ["done", "error"])
    bury(bench, target)
    nova.evacuate(vm, other, True)
    bench.wait("not by force", lambda: statuses(bench, target, vm) == ["error"])
    assert place(bench, vm) == (target, ServerState.ACTIVE) and not server(bench, vm).task_state
    assert bench.running_on(vm) == []


@case
def anti_affinity(bench: Bench) -> None:
    """Where a member is, no other comes."""
    source, target, other = bench.hosts[:3]
    group = bench.group("anti-affinity")
    vm = bench.boot("vm", source, group=group)
    bench.boot("sibling", target, group=group)
    bury(bench, source)
    bench.compute.evacuate(vm, target, False)
    ended(bench, source, vm, ["error"])
    assert "No valid host" in server(bench, vm).fault
    evacuated(bench, vm, other)
    assert bench.running_on(vm) == [other]


@case
def surroundings(bench: Bench) -> None:
    """Only what is asked for is told; of a group its id first. Where it is asked of somebody else, that one answers."""
    host = bench.hosts[0]
    group = bench.group("anti-affinity")
    vm, other = bench.boot("vm", host, group=group), bench.boot("other", host)
    found = bench.compute.surroundings(frozenset({"group", "aggregate"}), frozenset())
    assert not found.unknown and not found.domains and host not in found.aggregates
    assert found.groups[vm][0] == group and found.groups[vm][1] and other not in found.groups
    assert not bench.compute.surroundings(frozenset({"aggregate"}), frozenset()).groups


@rare
def late_check(bench: Bench) -> None:
    """Why members of a group are sent one after the other. The scheduler may remember where it sent the first and find
    no host, or not remember; past the scheduler it is the target that refuses."""
    nova, (first, second, target) = bench.compute, bench.hosts[:3]
    bench.late_check(target)
    apart, together = bench.group("anti-affinity"), bench.group("affinity")
    one = bench.boot("one", first, group=apart)
    two = bench.boot("two", second, group=apart)
    three = bench.boot("three", first, group=together)
    bench.boot("four", first, group=together)
    bury(bench, first, second)
    bench.slow_spawns(target, 8.0)
    nova.evacuate(one, target, False)
    bench.wait("the first is received", lambda: statuses(bench, first, one) == ["pre-migrating"])
    nova.evacuate(two, target, False)
    bench.wait("it ended", lambda: not OPEN & set(statuses(bench, second, two)))
    assert statuses(bench, second, two) in (["error"], ["failed"])
    assert place(bench, two) == (second, ServerState.ERROR)
    nova.evacuate(two, target, True)
    bench.wait("by force", lambda: len(statuses(bench, second, two)) == 2)
    bench.wait("it ended", lambda: not OPEN & set(statuses(bench, second, two)))
    assert statuses(bench, second, two)[0] == "failed" and place(bench, two) == (second, ServerState.ERROR)
    assert "Anti-affinity instance group policy was violated" in server(bench, two).fault
    ended(bench, first, one, ["done"])
    bench.slow_spawns(target, 0.0)
    nova.evacuate(three, target, True)
    ended(bench, first, three, ["failed"])
    assert place(bench, three) == (first, ServerState.ERROR)
    assert "Affinity instance group policy was violated" in server(bench, three).fault
    assert [bench.running_on(vm) for vm in (one, two, three)] == [[target], [], []]
