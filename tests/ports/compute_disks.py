# SPDX-License-Identifier: Apache-2.0
"""Contract of Compute: an inventory says of each disk where it is kept. ONE case for every world.

tests/ports/test_compute_contract.py runs it on the simulated Nova, tests/cloud/test_volumes_on_cinder.py on a real one
with a real Cinder. What a proof of a cut covers rests on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vmhad.kernel.cloud import ServerState
from vmhad.kernel.topology import OF_NOVA
from vmhad.ports import Compute

A, B = "cinder/array-a", "cinder/array-b"


class DisksBench(Protocol):
    """One cloud, empty at first, with two backends. hosts: at least two, sorted."""

    compute: Compute
    hosts: tuple[str, ...]

    def boot_on(self, name: str, host: str, place: str) -> str:
        """The id of a new server whose one disk is kept there."""

    def kill(self, host: str) -> None: ...

    def wait(self, what: str, holds: Callable[[], bool]) -> None: ...


def disks(bench: DisksBench, host: str) -> dict[str, tuple[str, ...]]:
    return {one.id: one.disks for one in bench.compute.inventory(host, bench.hosts, 0.0).servers}


def disks_are_where_their_storage_is(bench: DisksBench) -> None:
    """On a dead host too; and a volume stays on its backend when its server goes elsewhere."""
    source, target = bench.hosts[:2]
    expected = {bench.boot_on(f"vm-{number}", source, place): (place,) for number, place in enumerate((OF_NOVA, A, B))}
    assert disks(bench, source) == expected
    bench.kill(source)
    bench.compute.set_forced_down(source, True)
    assert disks(bench, source) == expected
    moved = next(vm for vm, places in expected.items() if places == (B,))
    bench.compute.evacuate(moved, target, False)

    def arrived() -> bool:
        server = bench.compute.server(moved)
        assert server is not None
        return (server.host, server.state, server.task_state) == (target, ServerState.ACTIVE, "")

    bench.wait("it runs elsewhere", arrived)
    assert disks(bench, target) == {moved: expected.pop(moved)}
    assert disks(bench, source) == expected
