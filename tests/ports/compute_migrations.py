# SPDX-License-Identifier: Apache-2.0
"""Cases of Compute's contract: VMs that are moved while they run."""

from __future__ import annotations

from tests.ports.compute_bench import NOBODY, Bench, case, place, refusal, server
from vmhad.kernel.cloud import OVER, ServerState


def ended_live(bench: Bench, server_id: str) -> list[str]:
    """Waits until no live migration of it is open; their statuses, newest first."""

    def over() -> bool:
        moves = bench.compute.live_migrations(server_id)
        return bool(moves) and all(one.status in OVER for one in moves) and not server(bench, server_id).task_state

    bench.wait("every live migration has ended", over)
    return [one.status for one in bench.compute.live_migrations(server_id)]


@case
def live_migration(bench: Bench) -> None:
    """There is a task when the answer comes; the guest runs in one place; its record is in the inventory afterwards."""
    nova, (source, target) = bench.compute, bench.hosts[:2]
    one = bench.boot("one", source, locked=True)
    assert nova.live_migrations(one) == ()
    nova.live_migrate(one, target)
    found = server(bench, one)
    assert found.task_state or found.host == target
    assert ended_live(bench, one) == ["completed"]
    assert place(bench, one) == (target, ServerState.ACTIVE) and bench.running_on(one) == [target]
    made = nova.live_migrations(one)[0]
    assert (made.kind, made.source, made.target) == ("live-migration", source, target)
    assert made.id in {move.id for move in nova.inventory(source, bench.hosts, 1.0).migrations}
    assert nova.evacuations(source) == () and nova.actions(one)[0].kind == "live-migration"
    nova.live_migrate(one, source)
    assert ended_live(bench, one) == ["completed", "completed"]
    assert bench.running_on(one) == [source]


@case
def live_migration_that_nobody_takes(bench: Bench) -> None:
    """To itself, to a host that is disabled: a record in error, and the server runs on as if nothing had been asked."""
    nova, (source, target) = bench.compute, bench.hosts[:2]
    one, off = bench.boot("one", source), bench.boot("off", source, stopped=True)
    assert "nosuchhost" in refusal(lambda: nova.live_migrate(one, "nosuchhost"))
    assert refusal(lambda: nova.live_migrate(off, target))
    assert refusal(lambda: nova.live_migrate(NOBODY, target))
    nova.live_migrate(one, source)
    assert ended_live(bench, one) == ["error"]
    nova.set_enabled(target, False, "a case")
    bench.rest(1.0)
    nova.live_migrate(one, target)
    assert ended_live(bench, one) == ["error", "error"]
    assert place(bench, one) == (source, ServerState.ACTIVE) and bench.running_on(one) == [source]
    nova.set_enabled(target, True, "")
