# SPDX-License-Identifier: Apache-2.0
"""The place in NFS-Ganesha's export files that belongs to vmhad: which clients are shut out there.

The rule kept: only the lines between two marks are ever changed, and they are written as a whole, beside the file and
then over it, so that Ganesha reads the old text or the new one and a restart finds what was decided last. Where the
marks stand is its operator's choice, within the EXPORT block and before its first CLIENT block: Ganesha takes the first
one that fits a client. Whether that is so is read from Ganesha, never from here.

Each cut has a name of its own, which is new whenever it is made anew: who takes one back says which, so that an order
to do so that comes late takes back no newer one.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

BEGIN = "# vmhad: shut out"
END = "# vmhad: end"
_BLOCK = "CLIENT { Clients = %s; Access_Type = None; } # cut %s"
_LINE = re.compile(r"\s*CLIENT \{ Clients = (?P<address>\S+); Access_Type = None; \} # cut (?P<cut>[0-9a-f]+)\s*")


class NoPlace(Exception):
    """The file has no place for what is shut out, or more than one, or something else stands there."""


def shut_out(path: Path) -> dict[str, str]:
    """The addresses that the file shuts out -> the name of the cut. Raises NoPlace and OSError."""
    lines = path.read_text().splitlines()
    begin, end = _place(path, lines)
    return dict(_read(path, line) for line in lines[begin + 1 : end])


def change(path: Path, changed: Callable[[dict[str, str]], Mapping[str, str]]) -> None:
    """The file with changed(what it shuts out) in its place. Raises NoPlace and OSError."""
    lines = path.read_text().splitlines(keepends=True)
    begin, end = _place(path, lines)
    before = dict(_read(path, line) for line in lines[begin + 1 : end])
    after = changed(before)
    if before == after:
        return
    margin = lines[begin][: len(lines[begin]) - len(lines[begin].lstrip())]
    addresses = sorted(after, key=_in_order)
    lines[begin + 1 : end] = [f"{margin}{_BLOCK % (address, after[address])}\n" for address in addresses]
    _replace(path, "".join(lines))


def _in_order(address: str) -> tuple[int, int]:
    read = ipaddress.ip_address(address)
    return read.version, int(read)


def _place(path: Path, lines: list[str]) -> tuple[int, int]:
    stripped = [line.strip() for line in lines]
    begins = [number for number, line in enumerate(stripped) if line == BEGIN]
    ends = [number for number, line in enumerate(stripped) if line == END]
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        raise NoPlace(f"{path} does not have the lines «{BEGIN}» and «{END}», once each and in this order")
    return begins[0], ends[0]


def _read(path: Path, line: str) -> tuple[str, str]:
    found = _LINE.fullmatch(line)
    try:
        if found is None:
            raise ValueError
        return str(ipaddress.ip_address(found["address"])), found["cut"]
    except ValueError:
        raise NoPlace(f"{path} has a line of somebody else's between «{BEGIN}» and «{END}»") from None


def _replace(path: Path, text: str) -> None:
    """On the disk before it is seen: a cut that a crash of the server undoes is none."""
    status = path.stat()
    # In a folder of its own: «%dir» of Ganesha's reads every file of a folder, and goes into none.
    beside = path.parent / ".vmhad" / path.name
    beside.parent.mkdir(mode=0o700, exist_ok=True)
    with open(beside, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        os.fchmod(file.fileno(), status.st_mode & 0o7777)
        os.fchown(file.fileno(), status.st_uid, status.st_gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
