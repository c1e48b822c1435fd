# SPDX-License-Identifier: Apache-2.0
"""What a Readiness behind the port says: ONE list of cases for every world.

tests/ports/test_readiness_contract.py runs CASES over real sockets with a stand-in for Nova, and on the simulated VMs.

| what                                                                      | case                             |
|---------------------------------------------------------------------------|----------------------------------|
| what is there is READY, at a port, at TCP, at HTTP, at a named address    | ready                            |
| what is not there is NOT_READY, and says why                              | not_ready                        |
| the words are the same while what is seen is                              | same_words                       |
| ready is a level: what is lost again is NOT_READY again                   | lost_again                       |
| who does not answer is UNKNOWN, within the limit                          | silent                           |
| without Nova ports and addresses are UNKNOWN, a named address is asked    | nova_away                        |
| a VM that there is not is READY: nobody has to wait for it                | no_such_vm                       |
| a gate of the guest agent is UNKNOWN here                                 | agent                            |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vmhad.kernel.gate import Gate, Kind, Ready
from vmhad.ports import Readiness

VM = "6a1b3c00-0000-4000-8000-000000000001"
GONE = "6a1b3c00-0000-4000-8000-00000000dead"


class Bench(Protocol):
    """A cloud with the VM, that is not ready at first. limit_s: of one read, Nova's part of it too. gates: port, tcp,
    http; named: tcp and http by an address. The latter do without Nova."""

    eye: Readiness
    limit_s: float
    gates: tuple[Gate, ...]
    named: tuple[Gate, ...]

    def serve(self) -> None:
        """The VM is ready now."""

    def stop_serving(self) -> None: ...

    def fall_silent(self) -> None:
        """What is asked of the VM itself gets no answer, neither yes nor no."""

    def lose_nova(self) -> None: ...

    def took_s(self, call: Callable[[], object]) -> float: ...


@dataclass(frozen=True)
class Case:
    name: str
    run: Callable[[Bench], None]


CASES: list[Case] = []


def case(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
    CASES.append(Case(run.__name__, run))
    return run


def _seen(bench: Bench, gates: tuple[Gate, ...], server: str = VM) -> set[Ready]:
    read = [bench.eye.read(server, gate) for gate in gates]
    assert all(words for _, words in read), read
    return {ready for ready, _ in read}


@case
def ready(bench: Bench) -> None:
    bench.serve()
    assert _seen(bench, bench.gates + bench.named) == {Ready.READY}


@case
def not_ready(bench: Bench) -> None:
    assert _seen(bench, bench.gates + bench.named) == {Ready.NOT_READY}


@case
def same_words(bench: Bench) -> None:
    for change in (bench.serve, bench.stop_serving):
        change()
        for gate in bench.gates + bench.named:
            assert bench.eye.read(VM, gate) == bench.eye.read(VM, gate)


@case
def lost_again(bench: Bench) -> None:
    bench.serve()
    assert _seen(bench, bench.gates) == {Ready.READY}
    bench.stop_serving()
    assert _seen(bench, bench.gates + bench.named) == {Ready.NOT_READY}


@case
def silent(bench: Bench) -> None:
    bench.fall_silent()
    for gate in (*bench.gates, *bench.named):
        if gate.kind is not Kind.PORT:
            assert bench.took_s(lambda gate=gate: bench.eye.read(VM, gate)) <= bench.limit_s + 0.5
            assert bench.eye.read(VM, gate)[0] is Ready.UNKNOWN


@case
def nova_away(bench: Bench) -> None:
    bench.serve()
    bench.lose_nova()
    assert _seen(bench, bench.gates) == {Ready.UNKNOWN}
    assert bench.took_s(lambda: bench.eye.read(VM, bench.gates[0])) <= bench.limit_s + 0.5
    assert _seen(bench, bench.named) == {Ready.READY}


@case
def no_such_vm(bench: Bench) -> None:
    assert _seen(bench, bench.gates, GONE) == {Ready.READY}


@case
def agent(bench: Bench) -> None:
    bench.serve()
    assert _seen(bench, (Gate(Kind.AGENT),)) == {Ready.UNKNOWN}
