# SPDX-License-Identifier: Apache-2.0
"""The border: all that vmhad may ask of the world.

Small Protocols in the core's own words. Behind them stand vmhad/drivers (the real world) and vmhad/sim (the simulated
one), which never import each other; one contract suite a port (tests/ports) runs against both.

Rules of the border. Every call tries once and ends within its own time limit: the loop's steps are the only retry. A
call that cannot tell raises Unanswered, or answers UNKNOWN where it has that value; it never guesses. A call whose
request was understood and declined raises Refused. Whatever else went wrong is Unanswered: the effect may have landed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vmhad.kernel.beat import HeardBeat
from vmhad.kernel.cloud import Action, ComputeService, Inventory, Migration, Server
from vmhad.kernel.gate import Gate, Ready
from vmhad.kernel.signal import Access, Reading, Signal
from vmhad.kernel.vm_resolve import Surroundings


class Unanswered(Exception):
    """No answer to be trusted: time ran out, the peer failed, or it was garbage. Says nothing about the effect."""


class Refused(Exception):
    """The peer understood and declined; nothing was changed."""


class Clock(Protocol):
    def now(self) -> float:
        """Unix seconds that never jump within a process (boot clock plus an offset); two engines' may differ."""

    def wait(self, timeout_s: float) -> None:
        """Returns after timeout_s, or earlier when woken."""

    def wake(self) -> None:
        """Ends a wait; may be called from any thread."""


class Workers(Protocol):
    """Slow calls, away from the deciding thread."""

    def submit(self, name: str, call: Callable[[], object]) -> bool:
        """Runs call elsewhere; False if one of that name still runs. Wakes the clock when it is over."""

    def finished(self) -> Sequence[tuple[str, object]]:
        """The calls that ended since last asked, oldest first: (name, result or its Exception). Never blocks."""


class Watch(Protocol):
    """One channel's eye on many hosts. It reads at its own pace, in threads of its own."""

    def read(self) -> Iterable[Signal]:
        """The signals gathered since last asked, but for those that only say again what was told of their host: they
        wait for latest(). Of a host that is in the answer nothing waits. Never blocks."""

    def latest(self, host: str) -> Signal | None:
        """The newest signal of this host that waits, in place of all before it; None if none came since it was asked
        for. Never blocks."""

    def look(self, hosts: Iterable[str]) -> None:
        """Look at these hosts now rather than at the next round. Never blocks."""


class Beats(Protocol):
    """What the agents of the compute hosts say."""

    def read(self) -> Iterable[HeardBeat]:
        """The newest beat of each host that beat since last asked, oldest first. Forged and replayed ones are not among
        them. A beat of news (a service, a storage, a guest or the agent's leaving) wakes the clock. Never blocks."""


@dataclass(frozen=True, slots=True)
class Nudge:
    """Something may have changed: look now. host '' where only the server is known."""

    host: str
    server: str
    why: str


class Nudges(Protocol):
    def read(self) -> Iterable[Nudge]:
        """The nudges that came since last asked, coalesced per subject. Never blocks."""


class Compute(Protocol):
    """Nova. Every method is one or a few calls within a time limit; Unanswered and Refused as above."""

    def services(self) -> tuple[ComputeService, ...]:
        """All nova-computes, sorted by host."""

    def service(self, host: str) -> ComputeService | None: ...

    def inventory(self, host: str, hosts: Sequence[str], at: float) -> Inventory:
        """What planning needs for one dead host; hosts: those that could receive. at: stamped into the result."""

    def departures(self, host: str) -> tuple[tuple[Server, ...], tuple[Migration, ...]]:
        """The servers Nova still has on the host, and the evacuations away from it, newest first. Two calls in all."""

    def evacuations(self, host: str) -> tuple[Migration, ...]:
        """Only the evacuations away from it, newest first: one cheap call."""

    def server_ids(self, host: str, active: bool = False) -> frozenset[str]:
        """The servers on the host, if asked only those that read ACTIVE: one call, far cheaper than their rows."""

    def fallen(self, host: str) -> tuple[Server, ...]:
        """The stopped servers of the host that Nova itself switched off on finding their guests gone."""

    def stopped_lately(self, within_s: float) -> tuple[Server, ...]:
        """The servers of all hosts that read stopped and changed no longer ago than this, by Nova's own clock: one
        call, and a small answer however many are stopped for good."""

    def server(self, server_id: str) -> Server | None:
        """None if it does not exist (any more)."""

    def actions(self, server_id: str) -> tuple[Action, ...]:
        """What was done to it, newest first; () for one that does not exist. An accepted request stands there before it
        is answered."""

    def surroundings(self, keys: frozenset[str], domains: frozenset[str]) -> Surroundings:
        """What policies of VMs may match by and no server's row says. keys: which of it is asked for, as
        vm_resolve.SURROUNDED has them; domains: those whose projects are meant. What is refused is told as unknown."""

    def set_forced_down(self, host: str, forced: bool) -> None: ...

    def set_enabled(self, host: str, enabled: bool, reason: str) -> None: ...

    def evacuate(self, server_id: str, target: str, force: bool) -> None:
        """Never idempotent. force: past the scheduler (2.67); else the scheduler validates the target (2.94)."""

    def live_migrations(self, server_id: str) -> tuple[Migration, ...]:
        """Those of the server, newest first, over or not."""

    def live_migrate(self, server_id: str, target: str) -> None:
        """The scheduler validates the target, later: what it does not take leaves a record in error, and the server as
        it was. Refused while the server has a task, and where it does not run."""

    def start(self, server_id: str) -> None: ...

    def stop(self, server_id: str) -> None: ...

    def reboot(self, server_id: str) -> None:
        """HARD: whatever is left of its guest is ended, and it is started anew, also where Nova calls it stopped."""


class Power(Protocol):
    """A host's power through its BMC."""

    def read(self, host: str) -> tuple[Reading, str]:
        """ON, OFF or UNKNOWN, and in words what was seen. Never raises: a wrong password or silence is UNKNOWN."""

    def off(self, host: str) -> None:
        """Returns once the BMC accepted, or says that it is off already. Acceptance is no proof."""

    def on(self, host: str) -> None: ...


class Storage(Protocol):
    """One shared storage, which can cut a host off."""

    def read(self, host: str) -> tuple[Access, str]:
        """OPEN, CUT or UNKNOWN, and in words what was seen. CUT is said only of what was observed at the storage, never
        because a call returned. A host that it cannot name all clients of is never CUT. Never raises."""

    def cut(self, host: str) -> None:
        """Returns once the storage accepted, also where it is so already, and then makes the cut last as long as a new
        one. Acceptance is no proof. No other host loses anything. Refused for a host that is no client of it."""

    def restore(self, host: str) -> None:
        """Takes the cut back; returns also where there is none. What the host had open stays dead where the storage
        can see to that."""


class Readiness(Protocol):
    """Whether a recovered VM is ready for those that come after it."""

    def read(self, server_id: str, gate: Gate) -> tuple[Ready, str]:
        """What was seen at this gate of it, and in words why. The words are the same while what is seen is. READY also
        where Nova has no such VM any more: nobody has to wait for it. A gate of the guest agent is UNKNOWN here, beats
        tell of it. Never raises: silence is UNKNOWN."""


class Hands(Protocol):
    """What the agent of a host does there by our order. An order is signed both ways and good for one call."""

    def restart_service(self, host: str, service: str, known: str) -> None:
        """known: its systemd invocation as the beat told it; where another one runs since then it is Refused."""

    def resume_guest(self, host: str, server_id: str) -> None:
        """Only a guest that is paused by an I/O error of its disk; any other one is Refused."""


class Membership(Protocol):
    """Which engines live, and who should own what. A hint: the journal says who may."""

    def beat(self) -> None:
        """Stay a member; re-joins when it was lost. Called at least every third of the lease."""

    def should_own(self, segment: str) -> bool:
        """True if the ring gives the segment to this engine; also True when the ring cannot be seen."""


class Conflict(Exception):
    """A compare of a commit did not hold; nothing was written."""


@dataclass(frozen=True, slots=True)
class Compare:
    """Holds when key has exactly this value; value None: when key does not exist."""

    key: str
    value: bytes | None


class Store(Protocol):
    """A key-value store with compare-and-swap; the journal's floor. Raises Unanswered when it cannot be reached."""

    def get(self, key: str) -> bytes | None: ...

    def list(self, prefix: str) -> Mapping[str, bytes]:
        """Every key that starts with prefix, sorted by key; one consistent revision."""

    def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        """All or nothing; returns the store's new revision. Raises Conflict. At most 100 operations in all."""

    def revision(self, prefix: str) -> int:
        """Grows whenever a key under prefix is put or deleted; cheap."""
