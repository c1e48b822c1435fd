# SPDX-License-Identifier: Apache-2.0
"""A beat as bytes and back: msgpack, each field by its name, in two parts.

What moves with every beat stands apart from what mostly says again what was said, its guests before all: a Reader takes
that from the beat before where the bytes are the same, which spares an engine of a thousand hosts half the work.

Rule of an upgrade: engines first. A field that an engine does not know is passed over; a word that it does not know (a
new state of a guest) makes the beat unreadable, because half a beat would be a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import msgspec

from vmhad.kernel.beat import Beat, Domain, PeerView, Unit
from vmhad.kernel.signal import Reading

BODY_BYTES_MAX = 256 * 1024
DOMAINS_MAX = 2000
PEERS_MAX = 256
# Services, storages, complaints of the hardware, and what is seen of one peer.
FEW_MAX = 256
NAME_MAX = 255
# Of what a host says in words: it stands in logs, and in the journal.
TEXT_MAX = 500
NO_TIME = "one of its times is not a number."


T = TypeVar("T", Domain, Unit)


@dataclass(frozen=True, slots=True)
class Moving:
    """What is another with every beat."""

    host: str
    boot: str
    run: str
    count: int
    uptime_s: float
    sent_at: float
    peers: Mapping[str, PeerView]


@dataclass(frozen=True, slots=True)
class Lasting:
    """What mostly is as it was. What an older agent does not know has a default."""

    leaving: bool
    services: Mapping[str, Reading]
    storages: Mapping[str, Reading]
    domains: Mapping[str, Domain] | None
    hardware: tuple[str, ...]
    units: Mapping[str, Unit] = field(default_factory=dict)


class Parts(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A body. lasting: the bytes of a Lasting."""

    moving: Moving
    lasting: msgspec.Raw


MOVING, LASTING = (tuple(one.name for one in fields(part)) for part in (Moving, Lasting))
_ENCODER = msgspec.msgpack.Encoder()
_PARTS = msgspec.msgpack.Decoder(Parts)
_LASTING = msgspec.msgpack.Decoder(Lasting)


class UnreadableBeat(Exception):
    """The bytes, or the value, are not a beat; one sentence that shows nothing of what is in them."""


def encode(beat: Beat) -> bytes:
    """Raises UnreadableBeat for what no engine would take."""
    _check(beat)
    moving = Moving(*(getattr(beat, name) for name in MOVING))
    lasting = Lasting(*(getattr(beat, name) for name in LASTING))
    body = _ENCODER.encode(Parts(moving, msgspec.Raw(_ENCODER.encode(lasting))))
    _check_size(body)
    return body


class Reader:
    """Remembers the last beat of each sender that it was given. The caller bounds the senders."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[bytes, Lasting]] = {}

    def decode(self, sender: str, body: bytes) -> Beat:
        """Raises UnreadableBeat, and nothing else, whatever the bytes are."""
        _check_size(body)
        try:
            parts = _PARTS.decode(body)
            raw = bytes(parts.lasting)
            last = self._last.get(sender)
            lasting = last[1] if last is not None and last[0] == raw else _LASTING.decode(raw)
        except msgspec.ValidationError as error:
            # Its words name the field and the types, and the wrong word where one of a few was expected; not that one.
            raise UnreadableBeat(f"it is not a beat: {_where(error)}.") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UnreadableBeat("it is not msgpack.") from None
        beat = _joined(parts.moving, lasting)
        if last is None or lasting is not last[1]:
            _check(beat)
            lasting = _in_words(lasting)
            beat = _joined(parts.moving, lasting)
            self._last[sender] = raw, lasting
        else:
            _check_moving(beat)
        return beat


def decode(body: bytes) -> Beat:
    """One beat by itself, as a Reader does."""
    return Reader().decode("", body)


def _joined(moving: Moving, lasting: Lasting) -> Beat:
    return Beat(
        moving.host,
        moving.boot,
        moving.run,
        moving.count,
        moving.uptime_s,
        moving.sent_at,
        lasting.leaving,
        lasting.services,
        lasting.storages,
        moving.peers,
        lasting.domains,
        lasting.hardware,
        lasting.units,
    )


def printable(text: str) -> str:
    """Whoever says it may be somebody else's by now: it takes one line, however it is shown, and is not long."""
    if len(text) <= TEXT_MAX and text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else " " for letter in text[:TEXT_MAX])


def _in_words(lasting: Lasting) -> Lasting:
    """Not refused for its words: a host that lives must not look silent because its hardware has a strange name."""
    domains = lasting.domains
    return Lasting(
        lasting.leaving,
        {printable(name): reading for name, reading in lasting.services.items()},
        {printable(name): reading for name, reading in lasting.storages.items()},
        domains and {name: _said(one) for name, one in domains.items()},
        tuple(map(printable, lasting.hardware)),
        {name: _said(one) for name, one in lasting.units.items()},
    )


def _said(one: T) -> T:
    return one if one.detail == (text := printable(one.detail)) else replace(one, detail=text)


def _where(error: msgspec.ValidationError) -> str:
    text = str(error)
    return "a word that is not known here" + text[text.rfind(" - at ") :] if text.startswith("Invalid enum") else text


def _check_size(body: bytes) -> None:
    if len(body) > BODY_BYTES_MAX:
        raise UnreadableBeat(f"it has {len(body)} bytes, and may have {BODY_BYTES_MAX}.")


def _check(beat: Beat) -> None:
    """What types alone do not say."""
    _check_moving(beat)
    _check_counts(_counted(beat))
    lasting = (*(beat.domains or {}).values(), *beat.units.values())
    if not all(math.isfinite(one.since_s) for one in lasting):
        raise UnreadableBeat(NO_TIME)


def _check_moving(beat: Beat) -> None:
    for name, text in (("host", beat.host), ("boot", beat.boot), ("run", beat.run)):
        if not 0 < len(text) <= NAME_MAX or not text.isprintable():
            raise UnreadableBeat(f"its {name} is no name.")
    if beat.count < 0 or beat.uptime_s < 0:
        raise UnreadableBeat("its count or its uptime is negative.")
    _check_counts(_counted_peers(beat))
    if not all(map(math.isfinite, _figures(beat))):
        raise UnreadableBeat(NO_TIME)
    dumps = [view.dump for view in beat.peers.values() if view.dump is not None]
    if not all(0.0 <= dump.last_s <= dump.first_s for dump in dumps):
        raise UnreadableBeat("a message of a peer's crash kernel is from the future, or older than the first one.")


def _check_counts(counted: Iterator[tuple[str, Sized, int]]) -> None:
    for what, things, most in counted:
        if len(things) > most:
            raise UnreadableBeat(f"it has {len(things)} {what}, and may have {most}.")


def _counted(beat: Beat) -> Iterator[tuple[str, Sized, int]]:
    yield "guests", beat.domains or (), DOMAINS_MAX
    yield "services", beat.services, FEW_MAX
    yield "units", beat.units, FEW_MAX
    yield "storages", beat.storages, FEW_MAX
    yield "complaints", beat.hardware, FEW_MAX


def _counted_peers(beat: Beat) -> Iterator[tuple[str, Sized, int]]:
    yield "peers", beat.peers, PEERS_MAX
    for view in beat.peers.values():
        yield "records of one peer", view.storage, FEW_MAX


def _figures(beat: Beat) -> Iterator[float]:
    yield beat.uptime_s
    yield beat.sent_at
    for view in beat.peers.values():
        for record in view.storage.values():
            yield record.still_s
            yield record.self_fence_s
        if view.dump is not None:
            yield view.dump.first_s
            yield view.dump.last_s
