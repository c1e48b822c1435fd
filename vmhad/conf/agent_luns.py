# SPDX-License-Identifier: Apache-2.0
"""[agent] registered_storages: the LUNs whose paths an agent registers, and with which key.

Rule kept: key and prefix are read from the file that the engines read them from. An agent with another prefix would
not know the mark of a cut.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vmhad.conf.segments_file import OPTIONAL_PARTS
from vmhad.conf.settings import ConfigError, StorageAccess
from vmhad.conf.storages_file import storages_of
from vmhad.conf.yaml_file import Field, parse, read_text
from vmhad.kernel.topology import Segment
from vmhad.scsi.listed import luns_of
from vmhad.scsi.marks import PREFIX, key_of, prefix_of

OPTION = "[agent] registered_storages"
DRIVER = "scsi_pr"
FORM = "NAME of a storage, or NAME and WWNs like naa.60014051234567890123456789abcdef"
WWN = re.compile(r"(naa|eui)\.\S+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ReservedLuns:
    """LUNs of one storage. key: of this host. prefix: of vmhad's own. luns: by target and number. wwids: in small
    letters."""

    storage: str
    key: int
    prefix: int
    luns: frozenset[tuple[str, int]]
    wwids: frozenset[str]


def reserved_luns(
    texts: Sequence[str], path: str, what: str, host: str, segments: Sequence[Segment]
) -> tuple[ReservedLuns, ...]:
    """what: the option that names the file. Raises ConfigError."""
    if not texts:
        return ()
    top = Field(path, "", parse(read_text(path, what), path, what)).mapping(["segments"], OPTIONAL_PARTS)
    storages = {one.name: one for one in storages_of(top["storages"], segments)} if "storages" in top else {}
    found: dict[str, ReservedLuns] = {}
    for text in texts:
        name, *wwids = text.split() or [""]
        if not name or not all(WWN.fullmatch(one) for one in wwids):
            raise ConfigError(f"{OPTION}: {text!r} must be {FORM}.")
        if name in found:
            raise ConfigError(f"{OPTION}: the name {name!r} stands twice.")
        found[name] = _reserved(name, wwids, storages, path, host)
    return tuple(found.values())


def _reserved(
    name: str, wwids: Sequence[str], storages: Mapping[str, StorageAccess], path: str, host: str
) -> ReservedLuns:
    storage = storages.get(name)
    if storage is None:
        raise ConfigError(f"{OPTION}: {name!r} is no storage of {path}.")
    if storage.driver != DRIVER:
        raise ConfigError(f"{OPTION}: {name!r} has the driver {storage.driver!r}, and LUNs are those of {DRIVER}.")
    keys = storage.clients.get(host, ()) if storage.are_named else ()
    if len(keys) != 1:
        raise ConfigError(f"{OPTION}: {name!r} must know {host!r} by one reservation key in {path}.")
    try:
        prefix = prefix_of(storage.settings.get("prefix", PREFIX))
        key, luns = key_of(host, keys[0]), luns_of(storage.settings)
    except ValueError as error:
        raise ConfigError(f"{OPTION}: {name!r} in {path}: {error}.") from None
    if key >> 48 == prefix:
        raise ConfigError(f"{OPTION}: the key of {host!r} at {name!r} begins with the prefix of vmhad's own keys.")
    return ReservedLuns(name, key, prefix, luns, frozenset(one.lower() for one in wwids))
