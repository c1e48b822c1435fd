# SPDX-License-Identifier: Apache-2.0
"""Which LUNs a storage of the segments file is made of: read by the engine that cuts, and by the agent that registers.

Raises ValueError with one sentence that names the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

LUN_MAX = 16383
URL = re.compile(r"iscsi://(?P<portal>[^/]+)/(?P<target>[^/]+)/(?P<lun>\d+)")
NOTHING = "either portals, target and luns, or urls, must say which LUNs there are"


def luns_of(said: Mapping[str, object]) -> frozenset[tuple[str, int]]:
    """The name of the target and the number there, of each."""
    found: set[tuple[str, int]] = set()
    if "target" in said or "luns" in said:
        target = iqn(said.get("target"), "target")
        found |= {(target, number) for number in numbers(said)}
    for parts in urls(said):
        found.add((iqn(parts["target"], "urls"), lun(int(parts["lun"]), "urls")))
    if not found:
        raise ValueError(NOTHING)
    return frozenset(found)


def urls(said: Mapping[str, object]) -> list[re.Match[str]]:
    found = []
    for url in texts(said, "urls") if "urls" in said else ():
        parts = URL.fullmatch(url)
        if parts is None:
            raise ValueError("urls must be like iscsi://192.0.2.1:3260/iqn.2026-01.example:disks/1")
        found.append(parts)
    return found


def numbers(said: Mapping[str, object]) -> set[int]:
    found = said.get("luns")
    if not isinstance(found, (list, tuple)) or not found:
        raise ValueError("luns must be a list of numbers")
    return {lun(one, "luns") for one in found}


def texts(said: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = said.get(key)
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{key} must be a list of texts")
    return tuple(value)


def iqn(value: object, key: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"(iqn|eui|naa)\.[A-Za-z0-9.:-]{1,219}", value):
        raise ValueError(f"{key} must hold an iSCSI name like iqn.2026-01.example:disks")
    return value


def lun(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LUN_MAX:
        raise ValueError(f"{key} must hold numbers from 0 to {LUN_MAX}")
    return value
