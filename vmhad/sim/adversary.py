# SPDX-License-Identifier: Apache-2.0
"""Who chooses what goes wrong: a script of choices, and the store with a network before it that the chooser has.

The store also keeps who wrote under which epoch: an epoch has one writer, and only the next one replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from vmhad.journal import codec, keys
from vmhad.ports import Compare, Conflict, Unanswered
from vmhad.sim.store import MemoryStore

# Within the acting share of the lease (10 s), between that and the lease (15 s), just past it, and past all that the
# other engine does with it.
SLEEPS_S = (4, 12, 17, 35)
LATE_S = (4, 20)

ON_SEND = (
    "arrives",
    "is lost",
    "arrives, its answer is lost",
    *(f"arrives {late} s late" for late in LATE_S),
    *(f"sleeps {sleep} s before it leaves" for sleep in SLEEPS_S),
    "dies before it leaves",
    "dies when it has left",
)
ON_COMMIT = (
    "lands",
    "is lost",
    "lands, its answer is lost",
    *(f"lands {late} s late" for late in LATE_S),
    *(f"sleeps {sleep} s before it leaves" for sleep in SLEEPS_S[1:]),
)
CALM = "nothing"


@dataclass(frozen=True)
class Point:
    """Where the adversary was asked, what it could choose, what it chose. state: of the world, 0 if not known."""

    at: float
    what: str
    options: tuple[str, ...]
    chosen: str
    state: int = 0


@dataclass
class Adversary:
    """script: point number -> what is chosen there; the first option everywhere else. armed from the first fault on."""

    script: Mapping[int, str]
    now: Callable[[], float] = lambda: 0.0
    points: list[Point] = field(default_factory=list)
    armed: bool = False

    @property
    def is_spent(self) -> bool:
        """Nothing of its script is to come."""
        return len(self.points) > max(self.script, default=-1)

    def choose(self, what: str, options: tuple[str, ...], state: int = 0) -> str:
        if not self.armed:
            return options[0]
        chosen = self.script.get(len(self.points), options[0])
        if chosen not in options:
            raise ValueError(f"{what}: there is no choice {chosen}")
        self.points.append(Point(self.now(), what, options, chosen, state))
        return chosen


class ContestedStore(MemoryStore):
    """The store, with a network before it that the adversary has. late: puts a call some seconds ahead. sleep:
    stops an engine for some seconds, then calls. is_busy: whether anything is under way; where nothing is, a lost
    renewal is not worth a choice."""

    def __init__(
        self,
        adversary: Adversary,
        late: Callable[[float, Callable[[], None]], object],
        sleep: Callable[[str, float, Callable[[], None]], None],
    ) -> None:
        super().__init__()
        self._adversary, self._late, self._sleep = adversary, late, sleep
        self.is_busy: Callable[[], bool] = lambda: True
        self.epochs = Epochs()

    def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        engine, chosen = self.writer, ON_COMMIT[0]
        if engine and (self.is_busy() or not any(_is_epoch(key) for key in puts)):
            chosen = self._adversary.choose(_of_commit(engine, puts), ON_COMMIT)
        if chosen == "is lost":
            raise Unanswered("the store cannot be reached")
        if chosen.endswith("late"):
            self._late(seconds_in(chosen), lambda: self._land_late(engine, compares, puts, deletes))
            raise Unanswered("the store did not answer in time")
        if chosen.startswith("sleeps"):
            self._sleep(engine, seconds_in(chosen), lambda: self._land_late(engine, compares, puts, deletes))
            raise Unanswered("the store did not answer in time")
        revision = self._land(engine, compares, puts, deletes)
        if chosen != "lands":
            raise Unanswered("the store did not answer in time")
        return revision

    def _land(self, engine: str, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str]) -> int:
        epochs = {one.key: self.get(one.key) for one in compares if _is_epoch(one.key)}
        revision = super().commit(compares, puts, deletes)
        for key, had in epochs.items():
            self.epochs.landed(engine, key, had, compares, puts)
        return revision

    def _land_late(
        self, engine: str, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str]
    ) -> None:
        self.writer = engine
        try:
            self._land(engine, compares, puts, deletes)
        except Conflict:
            return
        finally:
            self.writer = ""


@dataclass
class Epochs:
    """Which engine wrote under which epoch. A title (owner and epoch) may be renewed, or taken with the next number."""

    writers: dict[tuple[str, int], str] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)

    def landed(
        self, engine: str, key: str, had: bytes | None, compares: Sequence[Compare], puts: Mapping[str, bytes]
    ) -> None:
        claimed = next(codec.decode_number(key, one.value) for one in compares if one.key == key)
        stood, stands = codec.decode_number(key, had), codec.decode_number(key, puts.get(key, had))
        if claimed != stood:
            self.breaches.append(f"{engine} wrote under epoch {claimed} while epoch {stood} stood")
        if not stood <= stands <= stood + 1:
            self.breaches.append(f"{engine} made epoch {stands} of epoch {stood}")
        under = stands if key in puts else claimed
        first = self.writers.setdefault((key, under), engine)
        if first != engine:
            self.breaches.append(f"{engine} wrote under epoch {under}, which is {first}'s")


def _is_epoch(key: str) -> bool:
    return key.startswith(keys.SEGMENTS) and key.endswith("/epoch")


def _of_commit(engine: str, puts: Mapping[str, bytes]) -> str:
    return f"{engine} renews" if any(_is_epoch(key) for key in puts) else f"{engine} commits"


def seconds_in(text: str) -> float:
    """The number that a choice names."""
    return float(next(word for word in text.split() if word.isdigit()))
