# SPDX-License-Identifier: Apache-2.0
"""Who says it: a message of a host is signed with a key that only this host and the engines have.

Engines hold master keys. A host's own key is derived from one of them and its name, so that an engine needs no list of
keys, and a host that is taken over can speak for itself and for nobody else, though it has the bus password. Several
master keys may be valid at a time: the agents get keys of the new one at leisure, then the old one is taken away.

A signed message is: the mark, the id of the master key and the host's name, each after its length in one byte, the
HMAC-SHA256 of all that and of the body, and the body.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MARK = b"vmhad1"
KEY_BYTES = 32
MAC_BYTES = 32
NAME_BYTES_MAX = 255
KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_DERIVED = b"vmhad key of a host\0"
# What a signature is for: a beat can never be taken for an order, and an order never for its answer.
BEAT = b"vmhad beat\0"
ORDER = b"vmhad order\0"
ANSWER = b"vmhad answer\0"


class Forged(Exception):
    """Not signed by the host it names. claims: that host's name, '' where none can be read; anybody may have written
    it. The sentence shows nothing else of the message."""

    def __init__(self, claims: str, why: str) -> None:
        super().__init__(why)
        self.claims = claims


@dataclass(frozen=True, slots=True)
class HostKey:
    """A host's own key. id: of the master key that it was derived from."""

    host: str
    id: str
    key: bytes = field(repr=False)


def derive(key_id: str, master: bytes, host: str) -> HostKey:
    """Raises ValueError for what is no key id, no whole key or no name."""
    if not KEY_ID.fullmatch(key_id):
        raise ValueError("a key's id has at most 32 letters, digits, '.', '_' and '-'")
    if len(master) != KEY_BYTES:
        raise ValueError(f"a master key has {KEY_BYTES} bytes")
    if not 0 < len(host.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"a host's name has at most {NAME_BYTES_MAX} bytes")
    return HostKey(host, key_id, hmac.digest(master, _DERIVED + host.encode(), "sha256"))


def sign(key: HostKey, body: bytes, purpose: bytes = BEAT) -> bytes:
    header = MARK + _short(key.id.encode()) + _short(key.host.encode())
    return header + hmac.digest(key.key, purpose + header + body, "sha256") + body


class Verifier:
    """Opens signed messages. masters: key id -> master key. One thread at a time."""

    def __init__(self, masters: Mapping[str, bytes]) -> None:
        self._masters = dict(masters)
        # Only keys that proved right are kept, so that made-up names cannot fill the memory.
        self._keys: dict[tuple[str, str], bytes] = {}

    def open(self, message: bytes, purpose: bytes = BEAT) -> tuple[str, bytes]:
        """The host that signed it and the body. Raises Forged, and nothing else, whatever the bytes are."""
        key_id, host, header_end = _header(message)
        known = self._keys.get((key_id, host))
        key = known or self._derived(key_id, host)
        body_at = header_end + MAC_BYTES
        body = message[body_at:]
        right = hmac.digest(key, purpose + message[:header_end] + body, "sha256")
        if not hmac.compare_digest(right, message[header_end:body_at]):
            raise Forged(host, "its signature is wrong.")
        if known is None:
            self._keys[key_id, host] = key
        return host, body

    def _derived(self, key_id: str, host: str) -> bytes:
        master = self._masters.get(key_id)
        if master is None:
            raise Forged(host, "it is signed with a key that is not among ours.")
        return derive(key_id, master, host).key


def _short(name: bytes) -> bytes:
    return bytes((len(name),)) + name


def _header(message: bytes) -> tuple[str, str, int]:
    """The key id, the host's name, and where the header ends."""
    if not message.startswith(MARK):
        raise Forged("", "it is not signed as ours are.")
    try:
        id_at = len(MARK) + 1
        host_at = id_at + message[id_at - 1] + 1
        end = host_at + message[host_at - 1]
        key_id, host = message[id_at : host_at - 1].decode(), message[host_at:end].decode()
    except (IndexError, UnicodeDecodeError):
        raise Forged("", "its header is broken.") from None
    if len(message) < end + MAC_BYTES or not host or not KEY_ID.fullmatch(key_id):
        raise Forged("", "its header is broken.")
    return key_id, host, end
