# SPDX-License-Identifier: Apache-2.0
"""The paths of this host to LUNs, out of /sys: each is a block device, and a nexus of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ADDRESS = re.compile(r"(\d+):(\d+):(\d+):(\d+)")
# How the kernel numbers a LUN above 255 that its target addresses flat.
FLAT, FLAT_BITS = 0x4000, 0x3FFF
# What multipath puts before the identifier of a LUN, by the kind of it.
KINDS = {"naa": "3", "eui": "2"}


@dataclass(frozen=True, slots=True)
class LunPath:
    """name: of its block device. born: no other path that is there, or was, has the same. by: the port that it goes by
    on this host; a target that hangs keeps those of one port only. target: the iSCSI name; '' where it is none. wwid:
    of the LUN, as the kernel has it ("naa.6001405..."), '' where it has none. works: commands go by it now; one that
    does not may work again, and whoever has it open has it open then."""

    name: str
    born: str
    by: str
    target: str
    number: int
    wwid: str
    works: bool = True

    @property
    def where(self) -> str:
        """The LUN, by whichever path."""
        return f"LUN {self.number} of {self.target}" if self.target else f"LUN {self.wwid}"


def paths(root: Path) -> list[LunPath]:
    """root: where /sys is."""
    found = (path for entry in sorted(root.glob("sys/block/sd*")) if (path := path_of(root, entry)) is not None)
    return list(found)


def path_of(root: Path, entry: Path) -> LunPath | None:
    """entry: a block device in /sys. None where it is no path to a LUN, or gone."""
    try:
        device = (entry / "device").resolve(strict=True)
        born = f"{device}/{device.stat().st_ino}"
    except OSError:
        return None
    address = ADDRESS.fullmatch(device.name)
    if address is None:
        return None
    number = int(address[4])
    number = number & FLAT_BITS if number >> 14 == FLAT >> 14 else number
    session = next((part for part in device.parts if part.startswith("session")), "")
    target = _text(root / "sys/class/iscsi_session" / session / "targetname") if session else ""
    works = _text(device / "state") == "running"
    return LunPath(entry.name, born, f"host{address[1]}", target, number, _text(device / "wwid"), works)


def has_map(root: Path, wwid: str) -> bool:
    """Whether a multipath map may hold that LUN, with or without a path to it at the moment."""
    texts = map(_text, sorted(root.glob("sys/block/dm-*/dm/uuid")))
    held = {text.removeprefix("mpath-").lower() for text in texts if text.startswith("mpath-")}
    kind, _, rest = wwid.partition(".")
    return f"{KINDS[kind]}{rest}".lower() in held if kind in KINDS else bool(held)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
