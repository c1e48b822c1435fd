# SPDX-License-Identifier: Apache-2.0
"""Hears which peers write a dump of their panicked kernels, by the messages that fence_kdump_send sends meanwhile.

A message is a UDP datagram of two 32-bit words, a magic number and a version, in the byte order of its sender. It says
nothing more, and nobody signed it: who it is from is told by its source address alone, and that can be forged. So it is
heard only on the management plane, of the peers that this host watches, and an engine believes it only of a host that
nothing else shows alive.

Rule kept: a flood costs no more than BATCH datagrams a round. What the kernel drops meanwhile is lost; a true sender
repeats itself.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import struct
from collections.abc import Mapping

from vmhad.agent.bootclock import boot_s
from vmhad.agent.told import Rounds, Told
from vmhad.kernel.beat import DUMP_HEARD_S, Dump

LOG = logging.getLogger(__name__)
MAGIC, VERSION = 0x1B302A40, 1
MESSAGES = frozenset(struct.pack(order + "II", MAGIC, VERSION) for order in "<>")
# One byte more than a message, so that a longer datagram does not look like one.
READ_BYTES = 9
BATCH = 512


class Dumps:
    """The eye. here: the address of this host to listen on. peers: address -> peer, on the same plane."""

    def __init__(self, here: str, port: int, peers: Mapping[str, str], *, interval_s: float = 0.5) -> None:
        self._place = (here, port)
        self._peers = {ipaddress.ip_address(address): peer for address, peer in peers.items()}
        self._rounds = Rounds("dumps", self._look, interval_s)
        self._open: socket.socket | None = None
        # Peer -> when the first and the newest message of its row came. Replaced, never changed: it is read elsewhere.
        self._heard: Mapping[str, tuple[float, float]] = {}

    def start(self) -> None:
        self._rounds.start()

    def stop(self) -> None:
        self._rounds.stop()

    def tell(self, now: float) -> Told:
        return Told(
            dumps={
                peer: Dump(max(0.0, now - first), max(0.0, now - last))
                for peer, (first, last) in sorted(self._heard.items())
                if now - last < DUMP_HEARD_S
            }
        )

    def _look(self) -> None:
        if self._open is None:
            self._open = _listening(self._place)
        for _ in range(BATCH):
            try:
                body, (source, *_) = self._open.recvfrom(READ_BYTES)
            except BlockingIOError:
                return
            if body in MESSAGES and (peer := self._peers.get(ipaddress.ip_address(source))) is not None:
                self._take(peer, boot_s())

    def _take(self, peer: str, now: float) -> None:
        first, last = self._heard.get(peer, (now, now))
        if now - last >= DUMP_HEARD_S or peer not in self._heard:
            first = now
            LOG.warning("the crash kernel of %s says that it writes a dump", peer)
        self._heard = {**self._heard, peer: (first, now)}


def _listening(place: tuple[str, int]) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.bind(place)
    except OSError:
        made.close()
        raise
    return made
