# SPDX-License-Identifier: Apache-2.0
"""A beat as bytes and back: msgpack, each field by its name.

Rule of an upgrade: engines first. A field that an engine does not know is passed over; a word that it does not know (a
new state of a guest) makes the beat unreadable, because half a beat would be a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

import msgspec

from vmhad.kernel.beat import Beat

BODY_BYTES_MAX = 256 * 1024
DOMAINS_MAX = 2000
PEERS_MAX = 256
# Services, storages, complaints of the hardware, and what is seen of one peer.
FEW_MAX = 256
NAME_MAX = 255

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Beat)


class UnreadableBeat(Exception):
    """The bytes, or the value, are not a beat; one sentence that shows nothing of what is in them."""


def encode(beat: Beat) -> bytes:
    """Raises UnreadableBeat for what no engine would take."""
    _check(beat)
    body = _ENCODER.encode(beat)
    _check_size(body)
    return body


def decode(body: bytes) -> Beat:
    """Raises UnreadableBeat, and nothing else, whatever the bytes are."""
    _check_size(body)
    try:
        beat = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        # Its words name the field and the types, and the wrong word where one of a few was expected; not that one.
        raise UnreadableBeat(f"it is not a beat: {_where(error)}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableBeat("it is not msgpack.") from None
    _check(beat)
    return beat


def _where(error: msgspec.ValidationError) -> str:
    text = str(error)
    return "a word that is not known here" + text[text.rfind(" - at ") :] if text.startswith("Invalid enum") else text


def _check_size(body: bytes) -> None:
    if len(body) > BODY_BYTES_MAX:
        raise UnreadableBeat(f"it has {len(body)} bytes, and may have {BODY_BYTES_MAX}.")


def _check(beat: Beat) -> None:
    """What types alone do not say."""
    for name, text in (("host", beat.host), ("boot", beat.boot), ("run", beat.run)):
        if not 0 < len(text) <= NAME_MAX or not text.isprintable():
            raise UnreadableBeat(f"its {name} is no name.")
    if beat.count < 0 or beat.uptime_s < 0:
        raise UnreadableBeat("its count or its uptime is negative.")
    for what, things, most in _counted(beat):
        if len(things) > most:
            raise UnreadableBeat(f"it has {len(things)} {what}, and may have {most}.")
    if not all(map(math.isfinite, _figures(beat))):
        raise UnreadableBeat("one of its times is not a number.")


def _counted(beat: Beat) -> Iterator[tuple[str, Sized, int]]:
    yield "guests", beat.domains or (), DOMAINS_MAX
    yield "peers", beat.peers, PEERS_MAX
    yield "services", beat.services, FEW_MAX
    yield "storages", beat.storages, FEW_MAX
    yield "complaints", beat.hardware, FEW_MAX
    for view in beat.peers.values():
        yield "records of one peer", view.storage, FEW_MAX


def _figures(beat: Beat) -> Iterator[float]:
    yield beat.uptime_s
    yield beat.sent_at
    if beat.domains is not None:
        for domain in beat.domains.values():
            yield domain.since_s
    for view in beat.peers.values():
        for record in view.storage.values():
            yield record.still_s
