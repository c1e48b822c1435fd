# SPDX-License-Identifier: Apache-2.0
"""Cases of Compute's contract: services, power of servers, inventory, and an API that is away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.ports.compute_bench import (
    NOBODY,
    Bench,
    case,
    rare,
    refusal,
    server,
    service,
)
from vmhad.kernel.cloud import ServerState
from vmhad.ports import Unanswered


@case
def services(bench: Bench) -> None:
    found = bench.compute.services()
    assert tuple(one.host for one in found) == bench.hosts
    assert all(one.up and one.enabled and not one.forced_down for one in found)
    assert service(bench, bench.hosts[0]).host == bench.hosts[0]
    assert bench.compute.service("nosuchhost") is None
    assert "nosuchhost" in refusal(lambda: bench.compute.set_forced_down("nosuchhost", True))
    beating = bench.hosts[1]
    first = service(bench, beating)
    bench.wait("a heartbeat", lambda: service(bench, beating).updated_at != first.updated_at)


@rare
def dead_host_reads_up(bench: Bench) -> None:
    dead, alive = bench.hosts[:2]
    bench.kill(dead)
    before = service(bench, dead)
    assert before.up
    bench.wait("Nova calls it down", lambda: not service(bench, dead).up)
    assert service(bench, dead).updated_at == before.updated_at
    assert service(bench, alive).up


@case
def own_changes_look_like_life(bench: Bench) -> None:
    """Which is why a change of updated_at is a sign of life only if nothing else of the row changed."""
    host, nova = bench.hosts[0], bench.compute
    bench.kill(host)
    changes: list[Callable[[], None]] = [
        lambda: nova.set_forced_down(host, True),
        lambda: nova.set_enabled(host, False, "vmhad: why"),
        lambda: nova.set_enabled(host, True, ""),
        lambda: nova.set_forced_down(host, False),
    ]
    texts = [service(bench, host).updated_at]
    for change in changes:
        bench.rest(1.1)  # Nova writes whole seconds
        change()
        texts.append(service(bench, host).updated_at)
        now = service(bench, host)
        assert now.enabled or now.disabled_reason == "vmhad: why"
        assert not (now.forced_down and now.up)
    assert len(set(texts)) == len(texts)
    bench.rest(1.1)
    nova.set_forced_down(host, False)
    assert service(bench, host).updated_at == texts[-1], "nothing changed"


@case
def disable_blocks(bench: Bench) -> None:
    """Why a host is forced down first, and disabled then."""
    host, nova = bench.hosts[0], bench.compute
    bench.kill(host)
    with pytest.raises(Unanswered):
        nova.set_enabled(host, False, "vmhad: why")
    assert not service(bench, host).enabled
    nova.set_forced_down(host, True)
    nova.set_enabled(host, True, "")
    nova.set_enabled(host, False, "vmhad: again")
    assert service(bench, host).disabled_reason == "vmhad: again"


@case
def inventory(bench: Bench) -> None:
    first, second, third = bench.hosts[:3]
    group = bench.group("anti-affinity")
    here, there = bench.boot("here", first, group=group), bench.boot("there", second, group=group)
    found = bench.compute.inventory(first, [third, second], 17.0)
    assert (found.host, found.at, [one.id for one in found.servers]) == (first, 17.0, [here])
    assert [(one.id, one.policy, one.max_per_host) for one in found.groups] == [(group, "anti-affinity", 1)]
    assert dict(found.member_hosts) == {here: first, there: second}
    assert [one.host for one in found.services] == [second, third]
    rooms = {one.host: one for one in found.rooms}
    assert rooms[third].vcpus - rooms[second].vcpus == found.servers[0].vcpus
    assert rooms[third].ram_mib - rooms[second].ram_mib == found.servers[0].ram_mib


@case
def stop_and_start(bench: Bench) -> None:
    host = bench.hosts[0]
    vm = bench.boot("vm", host)
    assert "vm_state active" in refusal(lambda: bench.compute.start(vm))
    bench.compute.stop(vm)
    bench.wait("it is off", lambda: server(bench, vm).state is ServerState.STOPPED)
    assert bench.running_on(vm) == []
    assert "vm_state stopped" in refusal(lambda: bench.compute.stop(vm))
    bench.compute.start(vm)
    bench.wait("it is on", lambda: bench.running_on(vm) == [host])


@case
def absent(bench: Bench) -> None:
    assert bench.compute.server(NOBODY) is None
    assert bench.compute.departures("nosuchhost") == ((), ()) and not bench.compute.server_ids("nosuchhost")
    assert bench.compute.actions(NOBODY) == ()
    for call in (bench.compute.start, bench.compute.stop, bench.compute.reboot):
        assert refusal(lambda call=call: call(NOBODY))  # type: ignore[misc]


@case
def away(bench: Bench) -> None:
    source, target = bench.hosts[:2]
    vm = bench.boot("vm", source)
    bench.api_away()
    calls: list[Callable[[], object]] = [
        bench.compute.services,
        lambda: bench.compute.server(vm),
        lambda: bench.compute.actions(vm),
        lambda: bench.compute.departures(source),
        lambda: bench.compute.server_ids(source),
        lambda: bench.compute.evacuate(vm, target, False),
    ]
    for call in calls:
        with pytest.raises(Unanswered):
            call()
