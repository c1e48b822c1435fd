# SPDX-License-Identifier: Apache-2.0
"""A host speaks for itself and for nobody else; several master keys may be valid, and none shows in a repr."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmhad.bus.signature import Forged, HostKey, Verifier, derive, sign

MASTER, OLDER = bytes(range(32)), bytes(range(32, 64))
BODY = b"what a host has to say"


def test_signed_and_opened() -> None:
    verifier = Verifier({"k1": MASTER})
    for host in ("h1", "compute-0001.example.org", "h\u00f6st"):
        for _ in range(2):
            assert verifier.open(sign(derive("k1", MASTER, host), BODY)) == (host, BODY)
    assert verifier.open(sign(derive("k1", MASTER, "h1"), b"")) == ("h1", b"")


def test_the_bytes_of_a_signature() -> None:
    """Agents and engines of different releases have to agree on them."""
    key = hmac.new(MASTER, b"vmhad key of a host\0h1", hashlib.sha256).digest()
    header = b"vmhad1\x02k1\x02h1"
    right = header + hmac.new(key, b"vmhad beat\0" + header + BODY, hashlib.sha256).digest() + BODY
    assert sign(derive("k1", MASTER, "h1"), BODY) == right


def test_a_host_cannot_speak_for_another() -> None:
    own = derive("k1", MASTER, "h2")
    with pytest.raises(Forged, match="its signature is wrong") as caught:
        Verifier({"k1": MASTER}).open(sign(replace(own, host="h1"), BODY))
    assert caught.value.claims == "h1"
    assert own.key != derive("k1", MASTER, "h1").key


def test_a_host_cannot_make_keys() -> None:
    """Its own key is not a master key: what it derives from it opens nothing."""
    own = derive("k1", MASTER, "h2").key
    with pytest.raises(Forged, match="its signature is wrong"):
        Verifier({"k1": MASTER}).open(sign(derive("k1", own, "h1"), BODY))


def test_rotation() -> None:
    both = Verifier({"k2": MASTER, "k1": OLDER})
    old, new = sign(derive("k1", OLDER, "h1"), BODY), sign(derive("k2", MASTER, "h1"), BODY)
    assert both.open(old) == both.open(new) == both.open(old) == ("h1", BODY)
    with pytest.raises(Forged, match="a key that is not among ours"):
        Verifier({"k2": MASTER}).open(old)
    with pytest.raises(Forged, match="its signature is wrong"):
        both.open(sign(derive("k2", OLDER, "h1"), BODY))


def test_every_bit_counts() -> None:
    verifier, message = Verifier({"k1": MASTER}), sign(derive("k1", MASTER, "h1"), BODY)
    verifier.open(message)
    for place in range(len(message)):
        for bit in (1, 0x80):
            changed = bytearray(message)
            changed[place] ^= bit
            with pytest.raises(Forged):
                verifier.open(bytes(changed))
    for end in range(len(message)):
        with pytest.raises(Forged):
            verifier.open(message[:end])
    with pytest.raises(Forged):
        verifier.open(message + b"!")


@given(st.binary(max_size=120), st.booleans())
@settings(max_examples=300, deadline=None)
def test_garbage(message: bytes, marked: bool) -> None:
    with pytest.raises(Forged):
        Verifier({"k1": MASTER}).open((b"vmhad1" if marked else b"") + message)


def test_made_up_names_are_not_remembered() -> None:
    verifier = Verifier({"k1": MASTER})
    for number in range(100):
        with pytest.raises(Forged):
            verifier.open(sign(HostKey(f"made-up-{number}", "k1", bytes(32)), BODY))
    verifier.open(sign(derive("k1", MASTER, "h1"), BODY))
    assert list(verifier._keys) == [("k1", "h1")]


def test_what_is_no_key() -> None:
    for key_id, master, host in (("", MASTER, "h"), ("k" * 33, MASTER, "h"), ("k 1", MASTER, "h"),
                                 ("k", MASTER[1:], "h"), ("k", MASTER, ""), ("k", MASTER, "h" * 256)):  # fmt: skip
        with pytest.raises(ValueError):
            derive(key_id, master, host)


def test_no_key_shows() -> None:
    key = derive("k1", MASTER, "h1")
    assert key.key.hex() not in repr(key) and repr(key.key) not in repr(key)
