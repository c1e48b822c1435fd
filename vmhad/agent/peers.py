# SPDX-License-Identifier: Apache-2.0
"""Looks at the peers on each plane: whether their kernels answer.

A look is a TCP connection to a port of theirs. Connected or refused, the peer's own kernel has answered, whatever has
become of the programs on it. Two looks in a row without an answer are DOWN: one lost packet is not.

Rule kept: DOWN is said of a peer only where it cannot be this host that is cut off. A way that is closed at our own
end, and a plane on which nobody answers at all, are UNKNOWN. A host that watches a single peer and was given no witness
on that plane has nobody to compare with; there the carrier of its own link must do.
"""

from __future__ import annotations

import errno
import selectors
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vmhad.agent.bootclock import boot_s
from vmhad.agent.routes import way_is_open
from vmhad.agent.told import Rounds, Told
from vmhad.kernel.beat import Plane
from vmhad.kernel.signal import Reading

ANSWERED = (0, errno.ECONNREFUSED)
# Errors of our own end: no route, no address, no leave.
OURS = (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS)
MISSES_UNTIL_DOWN = 2
# An abortive close: no look leaves a connection behind that waits for its end.
AT_ONCE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to look at: a peer on a plane, or a witness (name ''), whose answer shows that this host is on the plane."""

    name: str
    plane: Plane
    address: str


class PeerLooks:
    """The eye on the peers. All looks of a round are under way together and end within look_s."""

    def __init__(
        self,
        targets: Iterable[Target],
        port: int,
        *,
        interval_s: float = 1.0,
        look_s: float = 0.9,
        stale_s: float = 5.0,
        way_is_open: Callable[[str], bool] = way_is_open,
    ) -> None:
        self._targets = tuple(targets)
        self._port = port
        self._look_s = look_s
        self._stale_s = stale_s
        self._way_is_open = way_is_open
        self._misses: Counter[Target] = Counter()
        self._rounds = Rounds("peers", self._look, interval_s)
        self._word: tuple[float, Mapping[str, Mapping[Plane, Reading]]] | None = None

    def start(self) -> None:
        self._rounds.start()

    def stop(self) -> None:
        self._rounds.stop()

    def tell(self, now: float) -> Told:
        if self._word is not None and now - self._word[0] <= self._stale_s:
            return Told(planes=self._word[1])
        unknown: dict[str, dict[Plane, Reading]] = {}
        for target in self._targets:
            if target.name:
                unknown.setdefault(target.name, {})[target.plane] = Reading.UNKNOWN
        return Told(planes=unknown)

    def _look(self) -> None:
        began = boot_s()
        answers = answers_of(self._targets, self._port, self._look_s)
        planes: dict[str, dict[Plane, Reading]] = {}
        for plane in Plane:
            here = [target for target in self._targets if target.plane is plane]
            for target, reading in self._judge(here, answers).items():
                if target.name:
                    planes.setdefault(target.name, {})[plane] = reading
        self._word = (began, planes)

    def _judge(self, here: Sequence[Target], answers: Mapping[Target, int]) -> dict[Target, Reading]:
        """The readings of one plane."""
        readings = {}
        we_are_there = len(here) == 1 or any(answers[target] in ANSWERED for target in here)
        for target in here:
            answer = answers[target]
            self._misses[target] = 0 if answer in ANSWERED else self._misses[target] + 1
            if answer in ANSWERED:
                readings[target] = Reading.UP
            elif answer in OURS or not we_are_there or not self._way_is_open(target.address):
                readings[target] = Reading.UNKNOWN
            else:
                down = self._misses[target] >= MISSES_UNTIL_DOWN
                readings[target] = Reading.DOWN if down else Reading.UNKNOWN
        return readings


def answers_of(targets: Sequence[Target], port: int, limit_s: float) -> dict[Target, int]:
    """Target -> the error number of a connection to it; 0: connected, ETIMEDOUT: no answer within limit_s."""
    answers: dict[Target, int] = {}
    until = time.monotonic() + limit_s
    with selectors.DefaultSelector() as waiting:
        try:
            for target in targets:
                _begin(target, port, answers, waiting)
            while waiting.get_map() and (left_s := until - time.monotonic()) > 0:
                for key, _ in waiting.select(left_s):
                    ended = key.fileobj
                    assert isinstance(ended, socket.socket)
                    answers[key.data] = ended.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    waiting.unregister(ended)
                    ended.close()
        finally:
            for key in list((waiting.get_map() or {}).values()):
                answers[key.data] = errno.ETIMEDOUT
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
    return answers


def _begin(target: Target, port: int, answers: dict[Target, int], waiting: selectors.BaseSelector) -> None:
    family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
    try:
        begun = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        answers[target] = error.errno or errno.EMFILE
        return
    begun.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    answer = begun.connect_ex((target.address, port))
    if answer == errno.EINPROGRESS:
        waiting.register(begun, selectors.EVENT_WRITE, target)
        return
    answers[target] = answer
    begun.close()
