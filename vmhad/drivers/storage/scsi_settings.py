# SPDX-License-Identifier: Apache-2.0
"""What an operator says of LUNs that hosts are cut off by persistent reservations, checked.

Raises ValueError with one sentence that names the key, and never what a secret holds.
"""

from __future__ import annotations

import ipaddress
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vmhad.drivers.storage.iscsi_session import Portal
from vmhad.scsi.listed import NOTHING, iqn, lun, numbers, texts, urls
from vmhad.scsi.marks import ACTOR_PORT, PREFIX, key_of, marks_of, prefix_of

KNOWN = frozenset({"portals", "target", "luns", "urls", "initiator", "user", "password_file", "reserve", "prefix"})
RESERVES = ("never", "at-cut")
PORT = 3260


@dataclass(frozen=True, slots=True)
class Target:
    """Portals: ways to the same LUNs, in the order in which they are tried."""

    portals: tuple[Portal, ...]
    luns: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.portals[0].target


@dataclass(frozen=True, slots=True)
class Settings:
    """reserves: whether a cut takes a reservation where there is none."""

    targets: tuple[Target, ...]
    reserves: bool
    prefix: int


def settings_of(said: Mapping[str, object]) -> Settings:
    unknown = sorted(set(said) - KNOWN)
    if unknown:
        raise ValueError(f"{unknown[0]} is no setting of scsi_pr")
    reserve = _one_of(said, "reserve", RESERVES, "never")
    prefix = prefix_of(said.get("prefix", PREFIX))
    return Settings(_targets(said), reserve == "at-cut", prefix)


def clients_of(clients: Mapping[str, tuple[str, ...]], prefix: int) -> dict[str, frozenset[int]]:
    """Host -> its keys. No key may be another host's, or one that a mark could be."""
    found: dict[str, frozenset[int]] = {}
    whose: dict[int, str] = {}
    for host in sorted(clients):
        keys = frozenset(key_of(host, text) for text in clients[host])
        for key in sorted(keys):
            if key in whose:
                raise ValueError(f"clients: {host} and {whose[key]} have the same reservation key")
            if key >> 48 == prefix:
                raise ValueError(f"clients: a reservation key of {host} begins with the prefix of vmhad's own keys")
            whose[key] = host
        found[host] = keys
    if len({ACTOR_PORT, *(marks_of(host, prefix).port for host in found)}) <= len(found):
        raise ValueError("clients: two hosts would have the same mark; choose another name for one of them")
    return found


def _targets(said: Mapping[str, object]) -> tuple[Target, ...]:
    found: dict[tuple[str, tuple[str, ...]], set[int]] = {}
    if any(key in said for key in ("portals", "target", "luns")):
        portals = tuple(_portal(text, "portals") for text in texts(said, "portals"))
        found[(iqn(said.get("target"), "target"), portals)] = numbers(said)
    for parts in urls(said):
        key = (iqn(parts["target"], "urls"), (_portal(parts["portal"], "urls"),))
        found.setdefault(key, set()).add(lun(int(parts["lun"]), "urls"))
    if not found:
        raise ValueError(NOTHING)
    initiator = iqn(said.get("initiator"), "initiator")
    user, password_file = (_text(said, key) for key in ("user", "password_file"))
    if bool(user) != bool(password_file):
        raise ValueError("user and password_file must be set together")
    password = _password(Path(password_file)) if password_file else ""
    return tuple(
        Target(tuple(Portal(place, name, initiator, user, password) for place in places), tuple(sorted(luns)))
        for (name, places), luns in sorted(found.items())
    )


def _text(said: Mapping[str, object], key: str) -> str:
    value = said.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"{key} must be a text")
    return value


def _password(path: Path) -> str:
    """The settings are written into every export of the topology, so that no secret stands there."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        password = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"password_file: {path} cannot be read: {type(error).__name__}") from None
    if mode & 0o077:
        raise ValueError(f"password_file: {path} has mode {mode:04o}, it must be 0600")
    if not password or "\0" in password:
        raise ValueError(f"password_file: {path} holds no password")
    return password


def _one_of(said: Mapping[str, object], key: str, words: tuple[str, ...], default: str) -> str:
    value = said.get(key, default)
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{key} must be one of {', '.join(words)}")
    return value


def _portal(text: str, key: str) -> str:
    """As libiscsi takes it."""
    parts = re.fullmatch(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<four>[0-9.]+))(?::(?P<port>\d{1,5}))?", text)
    try:
        if parts is None:
            raise ValueError
        port = int(parts["port"] or PORT)
        address = ipaddress.ip_address(parts["six"] or parts["four"])
        if not 0 < port <= 0xFFFF:
            raise ValueError
    except ValueError:
        raise ValueError(f"{key} must hold IP addresses with or without a port, like 192.0.2.1:3260") from None
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
